"""An answer as one page of HTML: the query with its heatmaps, both probabilities, and the similar studies in pictures.

Heatmaps are transparent layers over the radiographs. A checkbox hides them without any script; a slider changes their
strength by a few lines of script, which the page's policy allows by their digest.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from retrieval.answer import Answer
from retrieval.encoding.batches import small_jpeg
from retrieval.errors import RadiographError
from retrieval.explain.evidence import evidence_of
from retrieval.explain.rendering import heatmap_png, strongest_region
from retrieval.query import Images, read_views
from retrieval.reports.pictures import Layers
from retrieval.reports.similar_studies import MOST, EncodedQuery, similar_studies
from retrieval.reports.svg_chart import Axis, Chart
from retrieval.reports.templating import render
from retrieval.searcher import Searcher
from retrieval.wording import FINDINGS, evaluation_text, verdict, vote_share, vote_title

__all__ = ["answer_report"]

_DESCRIBED = ("part", "view", "patient", "finding")
_SIDE = 800  # pixels of the query's pictures


def answer_report(searcher: Searcher, answer: Answer, images: Images, when: datetime | None = None) -> str:
    """The report of an answer that `searcher` gave about `images`, dated `when` (by default now).

    It holds pictures of the query and of indexed studies. Raises RadiographError where the query can no longer be read.
    """
    views, _ = read_views(images)
    if len(views) != answer.query.views:
        raise RadiographError(f"{answer.query.files[0]}: the study's files changed while it was read; ask again")
    names = _names(answer)
    query = EncodedQuery.encode(searcher.encoder, views, names)
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return render(
        "answer.html",
        title=f"Answer for {names[0]}{more}",
        sections=[
            ("query", "The study" if len(views) > 1 else "The radiograph"),
            ("similar", "Similar studies"),
            ("sources", "Sources"),
        ],
        answer=answer,
        verdict=verdict(answer),
        doubts=_sentences(answer.doubts),
        notes=_notes(answer),
        names=names,
        pictures=_pictures(searcher, answer, query),
        chart=_chart(answer).svg(),
        findings=FINDINGS,
        vote_share=vote_share(answer),
        vote_title=vote_title(answer.knn),
        measured=evaluation_text(answer),
        studies=similar_studies(searcher, answer, query),
        most=MOST,
        # A collection that names no parts, views or patients gets no columns for them.
        described=[name for name in _DESCRIBED if any(getattr(case, name) for case in answer.cases)],
        rules=searcher.rules,
        when=when or datetime.now(UTC),
    )


def _notes(answer: Answer) -> list[str]:
    """The answer's other warnings as sentences, and the patients left out whom no warning names."""
    notes = _sentences(answer.other_warnings)
    if unnamed := answer.unnamed_patients:
        notes.append(f"The studies of {', '.join(unnamed)} are left out: they are of the same patient.")
    return notes


def _sentences(texts: Sequence[str]) -> list[str]:
    return [text if text.endswith("?") else f"{text}." for text in texts]


def _names(answer: Answer) -> list[str]:
    """The views' names without their folders, unless two views have the same name."""
    short = [Path(file).name for file in answer.query.files]
    return short if len(set(short)) == len(short) else list(answer.query.files)


def _pictures(searcher: Searcher, answer: Answer, query: EncodedQuery) -> list[Layers]:
    """The query's views with the heatmaps of "abnormal"."""
    pictures = []
    for number, (view, name, figures) in enumerate(zip(query.views, query.names, answer.views, strict=True)):
        heatmap = evidence_of(
            searcher.explained, searcher.rules, view.pixels, query.encoded_view(number), views=query.maps_of(number)
        )
        words = f"where the classifier looks, strongest here: {strongest_region(heatmap)}"
        if not heatmap.values.any():
            words = "nothing is drawn: the view's probability is below the threshold"
        many = f" {number + 1} of {len(query.names)}" if len(query.names) > 1 else ""
        knn = "none" if figures.knn is None else f"{figures.knn:.3f}"
        pictures.append(
            Layers(
                small_jpeg(view.pixels, _SIDE),
                f"query radiograph{many}, {name}",
                f"{name}: classifier {figures.classifier:.3f}, vote {knn}",
                heatmap_png(heatmap),
                f"heatmap of radiograph{many}: {words}",
            )
        )
    return pictures


def _chart(answer: Answer) -> Chart:
    classifier, knn = answer.classifier, answer.knn
    rows = (
        ("classifier", classifier.probability, classifier.threshold, 2.0),
        ("vote", knn.probability, knn.threshold, 1.0),
    )
    words = (f"{name} {'none' if p is None else f'{p:.3f}'}, threshold {limit:.3f}" for name, p, limit, _ in rows)
    chart = Chart(
        f"Probability of abnormality: {'; '.join(words)}",
        Axis("probability of abnormality", grid=False),
        Axis("", 0.4, 2.6, tuple((y, name) for name, _, _, y in rows), grid=False),
        height=150,
    )
    for name, probability, limit, y in rows:
        chart.guide((limit, y - 0.35), (limit, y + 0.35))
        if probability is not None:
            chart.line([(0, y), (probability, y)], name)
            chart.marks([(probability, y)], name, size=6)
    chart.key("threshold", "", "guide")
    return chart
