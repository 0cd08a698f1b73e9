"""The map of the index for the page: where the studies lie, their fields, and where a query would lie."""

import json
from collections.abc import Callable, Sequence

import numpy as np

from index.case import Case
from retrieval.decision.vote import vote_weights
from retrieval.indexing.projection import Place, stored_places
from retrieval.searcher import Searcher
from web.errors import Refused
from web.service.study_store import Study

__all__ = ["Atlas", "place_of"]

_NEIGHBOURS = 5  # studies whose places give that of a query


class Atlas:
    """The map as JSON, made once a generation of the index."""

    def __init__(self) -> None:
        self._generation = -1
        self._text = b""
        self.placed = 0

    def text(self, searcher: Searcher) -> bytes:
        """The map: studies, the first radiograph of each, x and y in [0, 1], and each field as names and their numbers.

        Raises Refused with 404 if the index has no map.
        """
        generation = searcher.source.generation
        if generation != self._generation:
            cases = searcher.index.read_whole(searcher.index.cases)
            self._text, self.placed = _document(searcher, cases, stored_places(searcher.index), generation)
            self._generation = generation
        if not self.placed:
            raise Refused(404, "the index has no map yet; make it with  mura-search index project")
        return self._text


def place_of(study: Study) -> Callable[[Searcher], list[dict[str, float]]]:
    """Gives where each view of a remembered study would lie: among the most similar studies that have a place."""

    def find(searcher: Searcher) -> list[dict[str, float]]:
        study.require_model(searcher)
        known = stored_places(searcher.index)
        points = []
        for hits in searcher.index.search(study.encoded.embeddings, _NEIGHBOURS):
            placed = [(hit.similarity, known[hit.case.study]) for hit in hits if hit.case.study in known]
            if placed:
                weights = vote_weights([similarity for similarity, _ in placed], searcher.rules.temperature)
                x, y = weights @ np.array([(place.x, place.y) for _, place in placed])
                points.append({"x": float(x), "y": float(y)})
        return points

    return find


def _document(
    searcher: Searcher, cases: Sequence[Case], places: dict[str, Place], generation: int
) -> tuple[bytes, int]:
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(case.study, case)
    kept = [case for study, case in first.items() if study in places]
    points = [places[case.study] for case in kept]
    fields = {name: _coded([getattr(case, name) for case in kept]) for name in ("part", "view", "split")}
    fields["label"] = _coded([case.label_name for case in kept])
    fields["agreement"] = _coded([_agreement(searcher, place) for place in points])
    document = {
        "generation": generation,
        "unplaced": len(first) - len(kept),
        "studies": [case.study for case in kept],
        "cases": [case.case for case in kept],
        "x": [round(place.x, 5) for place in points],
        "y": [round(place.y, 5) for place in points],
        "fields": fields,
    }
    return json.dumps(document, separators=(",", ":")).encode(), len(kept)


def _agreement(searcher: Searcher, place: Place) -> str:
    """Whether classifier and vote agreed on a study when the map was made."""
    if place.vote is None:
        return "no vote"
    rules = searcher.rules
    agree = (place.classifier > rules.classifier_threshold) == (place.vote > rules.vote_threshold)
    return "agree" if agree else "disagree"


def _coded(values: Sequence[str]) -> dict[str, list[str] | list[int]]:
    """Texts as their different values and, for each text, the number of its value."""
    names = sorted(set(values))
    numbers = {name: number for number, name in enumerate(names)}
    return {"names": names, "values": [numbers[value] for value in values]}
