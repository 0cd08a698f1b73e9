"""The query beside each similar study: heatmaps show what in each radiograph makes the two similar."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.answer import Answer, SimilarCase
from retrieval.encoding.batches import small_jpeg
from retrieval.encoding.encoder import Encoded, Encoder
from retrieval.errors import RadiographError
from retrieval.explain.rendering import heatmap_png, strongest_region
from retrieval.explain.smooth_grad_cam import explain_similarity
from retrieval.images.preprocessing import shrink
from retrieval.images.radiograph import decode_radiograph, read_radiograph
from retrieval.query import View
from retrieval.reports.pictures import Layers
from retrieval.searcher import Searcher

__all__ = ["MOST", "EncodedQuery", "SimilarStudy", "similar_studies"]

MOST = 12  # studies in pictures; the table has all
_SIDE = 360  # pixels of a picture
_EXPLAINED = 1000  # pixels of a radiograph that is explained: more than an encoder sees, and fast

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """The query's V views, their names, and what the encoder makes of them.

    `maps` is what `Encoder.views` gives for all views, (V, C, h, w) each; `embeddings` (V, D), `logits` (V,).
    """

    views: Sequence[View]
    names: Sequence[str]
    maps: Sequence[Array]
    embeddings: Array
    logits: Array

    @classmethod
    def encode(cls, encoder: Encoder, views: Sequence[View], names: Sequence[str]) -> "EncodedQuery":
        maps = encoder.views([encoder.prepare(view.pixels) for view in views])
        encoded = encoder.harmonised(encoder.pool(maps), [encoder.measure(view.pixels) for view in views])
        return cls(views, names, maps, encoded.embeddings, encoded.logits)

    def encoded_view(self, number: int) -> Encoded:
        """One view alone."""
        return Encoded(self.embeddings, self.logits).row(number)

    def maps_of(self, number: int) -> list[Array]:
        """The maps of one view."""
        return [maps[number : number + 1] for maps in self.maps]


@dataclass(frozen=True, slots=True)
class SimilarStudy:
    """One of the nearest studies: the query's nearest view beside the study's nearest radiograph."""

    case: SimilarCase
    query: Layers
    indexed: Layers


def similar_studies(searcher: Searcher, answer: Answer, query: EncodedQuery) -> list[SimilarStudy]:
    """The first MOST of the nearest studies, with pictures."""
    studies = []
    for case in answer.cases[:MOST]:
        embedding = searcher.index.embedding(case.case)  # None where the case was removed a moment ago
        number = 0 if embedding is None else int((query.embeddings @ embedding).argmax())
        indexed = _indexed(searcher, case, query.embeddings[number])
        studies.append(SimilarStudy(case, _queried(searcher, case, query, number, embedding), indexed))
    return studies


def _queried(
    searcher: Searcher, case: SimilarCase, query: EncodedQuery, number: int, embedding: Array | None
) -> Layers:
    pixels, name = query.views[number].pixels, query.names[number]
    picture, alt = small_jpeg(pixels, _SIDE), f"the query, {name}"
    caption = f"query, {name}" if len(query.views) > 1 else "query"
    if embedding is None:
        return Layers(picture, alt, caption)
    maps = query.maps_of(number)
    heatmap = explain_similarity(searcher.encoder, shrink(pixels, _EXPLAINED), embedding, views=maps)
    words = f"heatmap: the query is most similar to study {case.study} in this region: {strongest_region(heatmap)}"
    return Layers(picture, alt, caption, heatmap_png(heatmap, _SIDE), words)


def _indexed(searcher: Searcher, case: SimilarCase, embedding: Array) -> Layers:
    pixels, source = _pixels(searcher, case)
    if pixels is None:
        return Layers(None, f"the picture of study {case.study} is no longer there", case.study)
    heatmap = explain_similarity(searcher.encoder, shrink(pixels, _EXPLAINED), embedding)
    return Layers(
        small_jpeg(pixels, _SIDE),
        f"nearest radiograph of study {case.study}, labelled {case.label}",
        f"{case.label}, {case.similarity:.3f}{source}",
        heatmap_png(heatmap, _SIDE),
        f"heatmap: study {case.study} is most similar to the query in this region: {strongest_region(heatmap)}",
    )


def _pixels(searcher: Searcher, case: SimilarCase) -> tuple[NDArray[np.uint8] | None, str]:
    """The case's radiograph, from its file while that is unchanged, else from the index; and a note on the latter."""
    try:
        radiograph = read_radiograph(Path(case.path)) if case.path else None
    except RadiographError:
        radiograph = None
    if radiograph and any(match.case == case.case for match in searcher.index.find_digest(radiograph.digest)):
        return radiograph.pixels, ""
    stored = searcher.index.preview(case.case) or searcher.index.thumbnail(case.case)
    if stored is None:
        return None, ""
    return decode_radiograph(stored, case.case).pixels, " (small copy in the index)"
