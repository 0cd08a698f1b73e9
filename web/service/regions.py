"""Search by a region of a remembered radiograph."""

from collections.abc import Callable
from dataclasses import replace

from index.errors import IndexFailure
from retrieval.query import Scope
from retrieval.search_by.region import Box, RegionAnswer, RegionIndex, search_view_region
from retrieval.searcher import Searcher
from web.errors import Refused
from web.service.study_store import Study

__all__ = ["Regions"]


class Regions:
    """The regions of the index, read once a generation."""

    def __init__(self) -> None:
        self._generation = -1
        self._index: RegionIndex | None = None

    def asked(self, study: Study, number: int, parts: Box, k: int) -> Callable[[Searcher], RegionAnswer]:
        """Answers for a rectangle, as parts of the sides of view `number`, 1 to V, of a remembered study."""
        view = study.view(number)
        study.require_radiographs("a region")
        height, width = view.pixels.shape[:2]
        box = Box(parts.x * width, parts.y * height, parts.width * width, parts.height * height)

        def ask(searcher: Searcher) -> RegionAnswer:
            study.require_model(searcher)
            answer = search_view_region(searcher, self._region_index(searcher), view, box, Scope(k, study.patient))
            return replace(answer, regions=tuple(replace(region, path="") for region in answer.regions))

        return ask

    def _region_index(self, searcher: Searcher) -> RegionIndex:
        generation = searcher.source.generation
        if self._index is None or generation != self._generation:
            try:
                self._index = RegionIndex(searcher.index)
            except IndexFailure as error:
                raise Refused(
                    404, "the index has no regions to search; make them with  mura-search index regions"
                ) from error
            self._generation = generation
        return self._index
