"""The query beside each study that is like it: what in the one makes it like the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.answer import Answer, SimilarCase
from retrieval.encoding.encoder import Encoder
from retrieval.errors import RadiographError
from retrieval.explain.rendering import heatmap_png, place_of, radiograph_jpeg
from retrieval.explain.smooth_grad_cam import explain_similarity
from retrieval.images.preprocessing import shrink
from retrieval.images.radiograph import decode_radiograph, read_radiograph
from retrieval.query import View
from retrieval.reports.page import Html, join, label_mark, paragraph, safe, table, terms
from retrieval.reports.stack import blank, named, stack
from retrieval.searcher import Searcher

__all__ = ["MOST", "Looked", "similar_cards"]

MOST = 12  # studies in pictures; the table has all
_SIDE = 360  # pixels of a picture
_EXPLAINED = 1000  # pixels of a radiograph that is explained: more than any encoder sees, and soon done

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Shown:
    """The picture of an indexed case: its own file, or the small copy in the index."""

    pixels: NDArray[np.uint8]
    small: bool


@dataclass(frozen=True, slots=True)
class Looked:
    """The query's V views by their names, and what the encoder makes of them.

    `maps` is what `Encoder.views` gives of all of them together, (V, C, h, w) each; `embeddings` (V, D).
    """

    views: Sequence[View]
    names: Sequence[str]
    maps: Sequence[Array]
    embeddings: Array

    @classmethod
    def at(cls, encoder: Encoder, views: Sequence[View], names: Sequence[str]) -> "Looked":
        maps = encoder.views([encoder.prepare(view.pixels) for view in views])
        return cls(views, names, maps, encoder.pool(maps).embeddings)

    def own(self, number: int) -> list[Array]:
        """The maps of one view."""
        return [maps[number : number + 1] for maps in self.maps]


def similar_cards(searcher: Searcher, answer: Answer, looked: Looked) -> Html:
    """A card for each of the nearest studies, and a table of all."""
    if not answer.cases:
        return paragraph("No study of the index fits what was asked for.")
    cards = [_card(searcher, case, looked) for case in answer.cases[:MOST]]
    lead = (
        "Left the query, right the study's nearest radiograph. The heatmaps show what in the one makes it like the "
        "other. Similarity is the cosine of the two embeddings; weight is a study's part of the vote."
    )
    more = f" The first {MOST} are shown in pictures." if len(answer.cases) > MOST else ""
    return join(
        paragraph(lead + more),
        Html(f'<ol class="found">{"".join(cards)}</ol>'),
        _table(answer.cases),
    )


def _card(searcher: Searcher, case: SimilarCase, looked: Looked) -> Html:
    there = searcher.index.embedding(case.case)  # None where it was removed a moment ago
    number = 0 if there is None else int((looked.embeddings @ there).argmax())
    about = ", ".join(named(text) for text in (case.part, case.view) if text)
    figures = f"similarity {case.similarity:.3f}, weight {case.weight:.0%}" + (f"; {about}" if about else "")
    return join(
        Html(f"<li><h3>{case.rank}. {safe(named(case.study))}</h3>"),
        Html(f"<p>{label_mark(case.label)}, {safe(figures)}</p>"),
        Html(f'<div class="two">{_asked(searcher, case, looked, number, there)}'),
        Html(f"{_found(searcher, case, looked.embeddings[number])}</div></li>"),
    )


def _asked(searcher: Searcher, case: SimilarCase, looked: Looked, number: int, there: Array | None) -> Html:
    pixels, name = looked.views[number].pixels, looked.names[number]
    picture, alt = radiograph_jpeg(pixels, _SIDE), f"the query, {name}"
    caption = f"query, {name}" if len(looked.views) > 1 else "query"
    if there is None:
        return stack(picture, alt, caption)
    heatmap = explain_similarity(searcher.encoder, shrink(pixels, _EXPLAINED), there, views=looked.own(number))
    words = f"heatmap: what in the query is like study {named(case.study)} is strongest at the {place_of(heatmap)}"
    return stack(picture, alt, caption, heatmap_png(heatmap, _SIDE), words)


def _found(searcher: Searcher, case: SimilarCase, embedding: Array) -> Html:
    study = named(case.study)
    shown = _picture(searcher, case)
    if shown is None:
        return blank(f"no picture of study {study} is there any more", study)
    heatmap = explain_similarity(searcher.encoder, shrink(shown.pixels, _EXPLAINED), embedding)
    words = f"heatmap: what in study {study} is like the query is strongest at the {place_of(heatmap)}"
    caption = f"{case.label}, {case.similarity:.3f}" + (" (small copy in the index)" if shown.small else "")
    return stack(
        radiograph_jpeg(shown.pixels, _SIDE),
        f"nearest radiograph of study {study}, labelled {case.label}",
        caption,
        heatmap_png(heatmap, _SIDE),
        words,
    )


def _picture(searcher: Searcher, case: SimilarCase) -> _Shown | None:
    """The case's own file, while that has the bytes that were indexed; else the index's copy; None without either."""
    try:
        radiograph = read_radiograph(Path(case.path)) if case.path else None
    except RadiographError:
        radiograph = None
    if radiograph and any(one.case == case.case for one in searcher.index.find_digest(radiograph.digest)):
        return _Shown(radiograph.pixels, small=False)
    stored = searcher.index.thumbnail(case.case)
    return None if stored is None else _Shown(decode_radiograph(stored, case.case).pixels, small=True)


def _table(cases: Sequence[SimilarCase]) -> Html:
    """All of them; a collection that names no parts or views gets no columns for them."""
    described = [name for name in ("part", "view", "patient") if any(getattr(case, name) for case in cases)]
    rows = [
        [
            str(case.rank),
            named(case.study),
            label_mark(case.label),
            f"{case.similarity:.3f}",
            f"{case.weight:.0%}",
            *(named(getattr(case, name)) for name in described),
        ]
        for case in cases
    ]
    headings = ["", "study", "label", "similarity", "weight", *described]
    files = [(f"{case.rank}", named(case.path or case.case)) for case in cases]
    return join(
        table("The similar studies, nearest first", headings, rows), paragraph("Their files:", "quiet"), terms(files)
    )
