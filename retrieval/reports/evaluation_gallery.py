"""Pictures for a report: the studies that were read worst with their neighbours, and near duplicates."""

from collections.abc import Sequence
from pathlib import Path

from index.case import LABEL_NAMES, Case
from index.reader import Hit
from retrieval.audit.near_duplicates import NearDuplicate
from retrieval.encoding.batches import thumbnail
from retrieval.errors import RadiographError
from retrieval.evaluation.index_leakage import IndexLeakage
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.images.radiograph import read_radiograph
from retrieval.reports.page import Html, image, join, label_mark, paragraph, safe
from retrieval.searcher import Searcher

__all__ = ["errors_of", "gallery", "near_duplicates_gallery"]

MOST = 12  # studies, and pairs
_VIEWS, _NEIGHBOURS = 4, 5  # pictures of each


def errors_of(readings: Sequence[StudyPrediction]) -> list[StudyPrediction]:
    """The studies that classifier or vote called wrong, those of the worst mean probability first."""
    wrong = [reading for reading in readings if any(call != (reading.label == 1) for call in reading.calls)]
    return sorted(wrong, key=lambda reading: (-abs(reading.mean - reading.label), reading.study))


def gallery(wrong: Sequence[StudyPrediction], searcher: Searcher) -> Html:
    """The first of the studies, a picture for each radiograph and each neighbour."""
    shown = wrong[:MOST]
    follow = f"; the {MOST} worst follow" if len(wrong) > MOST else ""
    lead = f"Studies that classifier or vote called wrong: {len(wrong):,}{follow}."
    return join(
        paragraph(f"{lead} First those whose mean probability is furthest from their label."),
        *(_study(reading, searcher) for reading in shown),
    )


def near_duplicates_gallery(copies: IndexLeakage, readings: Sequence[StudyPrediction], searcher: Searcher) -> Html:
    """The first pairs of near duplicates, for the eye to judge: a judged radiograph, and the one in the index."""
    thumbnails = {
        case.case: picture
        for reading in readings
        for case, picture in zip(reading.cases, reading.thumbnails, strict=True)
    }
    shown = copies.pairs[:MOST]
    pictures = []
    for twin in shown:
        for whose, name, study, stored in (
            ("judged", twin.cases[0], twin.studies[0], thumbnails[twin.cases[0]]),
            ("indexed", twin.cases[1], twin.studies[1], searcher.index.thumbnail(twin.cases[1])),
        ):
            words = f"{whose} radiograph {name} of study {study}"
            picture = _blank(f"no picture of the {words}") if stored is None else image(stored, words)
            pictures.append(f"<li>{picture}{safe(f'{whose}: {study}')}<br>{safe(_alike(twin))}</li>")
    more = len(copies.pairs) - len(shown)
    return join(
        paragraph(f"Pairs{f', and {more:,} that are not shown' if more else ''}:", "quiet"),
        Html(f'<ul class="pictures">{"".join(pictures)}</ul>'),
    )


def _alike(twin: NearDuplicate) -> str:
    labels = ", other label" if twin.across_labels else ""
    return f"match {twin.match:.3f}{', mirrored' if twin.mirrored else ''}{labels}"


def _study(reading: StudyPrediction, searcher: Searcher) -> Html:
    label = LABEL_NAMES[reading.label]
    calls = [
        f"{name} {probability:.3f}, called {LABEL_NAMES[call]}{'' if call == reading.label else ' (wrong)'}"
        for name, probability, call in zip(
            ("classifier", "vote"), (reading.probability, reading.vote_probability), reading.calls, strict=True
        )
    ]
    about = ", ".join(text for text in (reading.part, reading.lesion) if text)
    more = len(reading.cases) - _VIEWS
    views = [_asked(case, number) for number, case in enumerate(reading.cases[:_VIEWS], 1)]
    return join(
        Html("<article>"),
        Html(f"<h3>{safe(reading.study)}</h3>"),
        Html(
            f"<p>Labelled {label_mark(label)}{safe(f' ({about})' if about else '')}; {safe('; '.join(calls))}."
            f"{safe(f' Radiographs not shown: {more}.' if more > 0 else '')}</p>"
        ),
        Html(f'<ul class="pictures">{"".join(views)}</ul>'),
        paragraph("Its nearest studies in the index:", "quiet"),
        Html(f'<ul class="pictures">{"".join(_found(hit, searcher) for hit in reading.neighbours[:_NEIGHBOURS])}</ul>'),
        Html("</article>"),
    )


def _asked(case: Case, number: int) -> Html:
    words = f"radiograph {number}{f', {case.view}' if case.view else ''}"
    try:
        picture = image(thumbnail(read_radiograph(Path(case.path)).pixels), f"{words} of study {case.study}")
    except RadiographError:  # it was there a moment ago
        picture = _blank(f"{words} of study {case.study} can no longer be read")
    return Html(f"<li>{picture}{safe(words)}</li>")


def _found(hit: Hit, searcher: Searcher) -> Html:
    case = hit.case
    stored = searcher.index.thumbnail(case.case)
    words = f"nearest radiograph of study {case.study}, labelled {case.label_name}"
    picture = _blank(f"no picture of the {words}") if stored is None else image(stored, words)
    told = f"similarity {hit.similarity:.3f}"
    return Html(f"<li>{picture}{label_mark(case.label_name)}<br>{safe(told)}<br>{safe(case.study)}</li>")


def _blank(alt: str) -> Html:
    return Html(f'<span class="blank" role="img" aria-label="{safe(alt)}"></span>')
