"""An answer as one page of HTML: the query with its heatmaps, both probabilities, and the similar studies in pictures.

Heatmaps are transparent pictures over the radiographs, so a reader can take them away (a checkbox, which needs no
script) or make them stronger and weaker (a slider, a few lines of script whose digest the page's policy names).
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from retrieval.answer import Answer
from retrieval.errors import RadiographError
from retrieval.explain.rendering import heatmap_png, place_of, radiograph_jpeg
from retrieval.explain.smooth_grad_cam import explain_class
from retrieval.query import Images, read_views
from retrieval.reports.page import Html, Section, join, label_mark, page, paragraph, safe, table, terms, warnings
from retrieval.reports.similar_studies import Looked, similar_cards
from retrieval.reports.stack import BAR, SCRIPT, STYLE, named, stack
from retrieval.reports.svg_chart import Axis, Chart
from retrieval.searcher import Searcher

__all__ = ["answer_report"]

_SIDE = 800  # pixels of the query's pictures
_CLAIM = "Not a medical device: research and teaching only."
_READING = (
    "A heatmap shows where what speaks for abnormal lies, whatever the verdict. It says where, not how much, and "
    "outlines no lesion; a white line runs around its strongest places."
)


def answer_report(searcher: Searcher, answer: Answer, images: Images, when: datetime | None = None) -> str:
    """The page of an answer that `searcher` gave of `images`; `when` it was made, now if nothing is said.

    It holds pictures of the query and of indexed studies. Raises RadiographError where the query can no longer be read.
    """
    views, _ = read_views(images)
    if len(views) != answer.query.views:
        raise RadiographError(f"{answer.query.files[0]}: the study's files changed while it was read; ask again")
    names = _names(answer)
    looked = Looked.at(searcher.encoder, views, names)
    sections = [
        Section("query", "The study" if len(views) > 1 else "The radiograph", _query(searcher, answer, looked)),
        Section("similar", "Similar studies", similar_cards(searcher, answer, looked)),
        Section("sources", "Where this comes from", _sources(searcher, answer, when or datetime.now(UTC))),
    ]
    title = f"Answer for {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    foot = paragraph(f"{_CLAIM} This page holds radiographs; handle it as you handle those.", "quiet")
    return page(title, _head(answer), sections, foot, bar=BAR, style=STYLE, script=SCRIPT)


def _names(answer: Answer) -> list[str]:
    """The views' names without their folders, where those tell them apart."""
    short = [Path(file).name for file in answer.query.files]
    return [named(name) for name in (short if len(set(short)) == len(short) else answer.query.files)]


def _head(answer: Answer) -> Html:
    remarks = [named(f"{text}.") for text in answer.warnings]
    if unnamed := answer.unnamed_patients:
        remarks.append(named(f"the studies of {', '.join(unnamed)} are left out: it is the same patient."))
    unfamiliar = answer.familiarity.familiar is False
    why = "; ".join(answer.familiarity.reasons)
    lead = [f"UNFAMILIAR: {why}. Do not rely on what follows."] if unfamiliar else []
    return join(
        Html(f'<div role="alert">{warnings(lead)}</div>' if lead else ""),
        Html(f'<p class="verdict">{_verdict(answer)}</p>'),
        paragraph(_CLAIM, "lede"),
        warnings(remarks),
    )


def _verdict(answer: Answer) -> Html:
    classifier, vote = _call(answer.classifier.abnormal), _call(answer.knn.abnormal)
    if answer.agreement is None:
        return Html(f"{classifier}: by the classifier alone, nothing could vote")
    if answer.agreement:
        return Html(f"{classifier}: classifier and vote agree")
    return Html(f"Undecided: the classifier says {classifier}, the vote says {vote}")


def _query(searcher: Searcher, answer: Answer, looked: Looked) -> Html:
    pictures = []
    for number, (view, name) in enumerate(zip(looked.views, looked.names, strict=True)):
        heatmap = explain_class(searcher.encoder, view.pixels, views=looked.own(number))
        many = f" {number + 1} of {len(looked.names)}" if len(looked.names) > 1 else ""
        words = f"heatmap of radiograph{many}: what speaks for abnormal is strongest at the {place_of(heatmap)}"
        told = answer.views[number]
        pictures.append(
            stack(
                radiograph_jpeg(view.pixels, _SIDE),
                f"radiograph{many} asked about, {name}",
                f"{name}: classifier {_number(told.classifier)}, vote {_number(told.knn)}",
                heatmap_png(heatmap),
                words,
            )
        )
    several = " several" if len(pictures) > 1 else ""
    return join(
        Html(f'<div class="asked{several}"><div class="views">{"".join(pictures)}</div><div>'),
        _figures(answer, looked.names),
        paragraph(_READING, "quiet"),
        Html("</div></div>"),
    )


def _figures(answer: Answer, names: Sequence[str]) -> Html:
    of = answer.familiarity
    rows = [
        ["classifier", _number(answer.classifier.probability), _number(answer.classifier.threshold)],
        [_voters(answer), _number(answer.knn.probability), _number(answer.knn.threshold)],
    ]
    for row, abnormal in zip(rows, (answer.classifier.abnormal, answer.knn.abnormal), strict=True):
        row.append(_call(abnormal))
    known = "unfamiliar: " + "; ".join(of.reasons) if of.reasons else "familiar"
    agreement = {
        True: "Classifier and vote agree.",
        False: "Classifier and vote disagree.",
        None: "Nothing could vote, so there is nothing to agree with.",
    }[answer.agreement]
    nearest = (
        "Nothing is there to compare it with."
        if of.similarity is None
        else f"The nearest study has a similarity of {of.similarity:.3f}; below {of.limit:.3f} a query is unlike the "
        f"index. This one is {known}."
    )
    blocks = [
        Html("<h3>Classifier and vote</h3>"),
        _chart(answer),
        table("Probability of abnormality", ["", "probability", "threshold", "call"], rows),
        paragraph(f"{agreement} {nearest}"),
    ]
    if answer.query.views > 1:
        views = [
            [name, _number(view.classifier), _number(view.knn), _number(view.similarity)]
            for name, view in zip(names, answer.views, strict=True)
        ]
        heading = "By radiograph; the study has the mean of the probabilities and the lowest similarity"
        blocks.append(table(heading, ["", "classifier", "vote", "nearest study"], views))
    return join(*blocks)


def _chart(answer: Answer) -> Html:
    classifier, vote = answer.classifier, answer.knn
    readers = (
        ("classifier", classifier.probability, classifier.threshold, 2.0),
        ("vote", vote.probability, vote.threshold, 1.0),
    )
    told = "; ".join(f"{name} {_number(value)}, threshold {_number(limit)}" for name, value, limit, _ in readers)
    chart = Chart(
        f"Probability of abnormality: {told}",
        Axis("probability of abnormality", grid=False),
        Axis("", 0.4, 2.6, tuple((at, name) for name, _, _, at in readers), grid=False),
        height=150,
    )
    for name, value, limit, at in readers:
        chart.guide((limit, at - 0.35), (limit, at + 0.35))
        if value is not None:
            chart.line([(0, at), (value, at)], name)
            chart.marks([(value, at)], name, size=6)
    chart.key("threshold", "", "guide")
    return Html(chart.svg())


def _sources(searcher: Searcher, answer: Answer, when: datetime) -> Html:
    model, index, rules = answer.model, answer.index, searcher.rules
    pairs = [
        ("Model", f"{model.name} ({model.sha256})"),
        ("Index", f"{index.path}: {index.cases:,} radiographs of {index.studies:,} studies"),
        ("Vote", f"the {rules.k} nearest studies of each radiograph, softmax at temperature {rules.temperature:g}"),
        ("Rules", f"{rules.source}."),
        ("Heatmaps", "Smooth Grad-CAM++, of the classifier's score and of similarities"),
        ("Files", ", ".join(answer.query.files)),
        ("Made", f"{when:%Y-%m-%d %H:%M} UTC; the answer took {answer.seconds.total:.2f} s"),
    ]
    return terms([(name, named(value)) for name, value in pairs])


def _voters(answer: Answer) -> str:
    return f"vote of {answer.knn.k} {'study' if answer.knn.k == 1 else 'studies'}"


def _call(abnormal: bool | None) -> Html:
    return safe("unknown") if abnormal is None else label_mark("abnormal" if abnormal else "normal")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
