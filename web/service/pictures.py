"""The pictures of remembered studies and of indexed cases: radiographs, grey values and heatmaps."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.errors import RadiographError
from retrieval.explain.evidence import evidence_of, within_limb
from retrieval.explain.rendering import heatmap_png, radiograph_png
from retrieval.explain.smooth_grad_cam import explain_class, explain_similarity
from retrieval.images.grey_values import grey_values_of, shrunk
from retrieval.images.radiograph import read_radiograph
from retrieval.images.windows import GreyValues
from retrieval.searcher import Searcher
from web.errors import Refused
from web.service.admission import Admission
from web.service.decoding import Decoding
from web.service.indexed import case_embedding, no_case, require_case
from web.service.searchers import Searchers, run_in
from web.service.study_store import StudyStore

__all__ = ["Pictures"]

_DRAWINGS, _PICTURES = 16, 64  # heatmaps and radiographs that may wait to be drawn
_LONGEST = 2048  # pixels on the long side of a radiograph as a picture
_VALUES = 4096  # the same of its grey values
_HEAT = 768, 255  # the same of a heatmap, and its levels of colour


class Pictures:
    """Draws on two threads: one for heatmaps, one for radiographs, which need less time."""

    def __init__(
        self, studies: StudyStore, searchers: Searchers, decoding: Decoding, memory: int, *, files: bool
    ) -> None:
        """memory: bytes for all that is drawn. files: whether indexed cases are read from the collection's files."""
        self.files = files
        self._studies = studies
        self._searchers = searchers
        self._decoding = decoding
        self._drawings = Admission(_DRAWINGS, memory)
        self._pictures = Admission(_PICTURES, memory)
        self._drawer = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._painter = ThreadPoolExecutor(1, thread_name_prefix="picture")

    def close(self) -> None:
        """Draw nothing more; a drawing that is begun is completed."""
        for thread in (self._drawer, self._painter):
            thread.shutdown(wait=True, cancel_futures=True)

    async def view(self, name: str, number: int, longest: int = _LONGEST) -> bytes:
        """A view, 1 to V, of a remembered study, as PNG of at most `longest` pixels. Raises Refused."""
        pixels = self._studies.get(name).view(number).pixels
        with self._pictures.enter():
            return await run_in(self._painter, radiograph_png, pixels, longest)

    async def grey_values(self, name: str, number: int) -> GreyValues:
        """A view, 1 to V, of a remembered study with all its bits, of at most 4096 pixels a side. Raises Refused."""
        view = self._studies.get(name).view(number)
        with self._pictures.enter():
            if view.original is None:
                return await run_in(self._painter, lambda: shrunk(grey_values_of(view.pixels), _VALUES))
            return await self._decoding.values(view.original, _VALUES)

    async def case(self, name: str, *, small: bool) -> tuple[bytes, str]:
        """An indexed case's picture and its media type: the full one if `files` allows it, else the preview.

        Raises Refused with 404.
        """

        def picture(searcher: Searcher) -> tuple[bytes, str]:
            if self.files and not small:
                return radiograph_png(_file_pixels(require_case(searcher, name)), _LONGEST), "image/png"
            stored = (None if small else searcher.index.preview(name)) or searcher.index.thumbnail(name)
            if stored is None:
                raise no_case()
            return stored, "image/png" if stored.startswith(b"\x89PNG") else "image/jpeg"

        with self._pictures.enter():
            async with self._searchers.borrow() as searcher:
                return await run_in(self._painter, picture, searcher)

    async def class_heatmap(self, name: str, number: int, target: str, *, always: bool = True) -> bytes:
        """Where the classifier looks in a view of a remembered study, or what speaks for normal, as PNG.

        always: also if the view's probability is below the threshold. Raises Refused.
        """
        study = self._studies.get(name)
        view = study.view(number)

        def draw(searcher: Searcher) -> bytes:
            study.require_model(searcher)
            study.require_radiographs("its heatmap")
            encoder, encoded = searcher.explained, study.encoded.row(number - 1)
            if target == "abnormal":
                return heatmap_png(evidence_of(encoder, searcher.rules, view.pixels, encoded, always=always), *_HEAT)
            return heatmap_png(within_limb(explain_class(encoder, view.pixels, target=target), view.pixels), *_HEAT)

        return await self.draw(draw)

    async def likeness(self, name: str, number: int, case: str, *, inside: bool) -> bytes:
        """What makes a view and an indexed case alike: where in the view, or where inside the case, as PNG.

        Raises Refused.
        """
        study = self._studies.get(name)
        view = study.view(number)

        def draw(searcher: Searcher) -> bytes:
            if inside:
                study.require_model(searcher)
                pixels = self._case_pixels(searcher, require_case(searcher, case))
                embedding = study.encoded.embeddings[number - 1]
            else:
                pixels, embedding = view.pixels, case_embedding(searcher, study, case)
            alike = explain_similarity(searcher.encoder, pixels, embedding)
            return heatmap_png(within_limb(alike, pixels), *_HEAT)

        return await self.draw(draw)

    async def draw(self, draw: Callable[[Searcher], bytes]) -> bytes:
        """What a drawing with the searcher of the index as it is now gives. Raises Refused if too many wait."""
        with self._drawings.enter():
            async with self._searchers.borrow() as searcher:
                return await run_in(self._drawer, draw, searcher)

    def _case_pixels(self, searcher: Searcher, case: Case) -> NDArray[np.uint8]:
        """The case's radiograph if its file may be read, else its preview or thumbnail."""
        if self.files:
            return _file_pixels(case)
        stored = searcher.index.preview(case.case) or searcher.index.thumbnail(case.case)
        pixels = None if stored is None else cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise no_case()
        return np.asarray(pixels, np.uint8)


def _file_pixels(case: Case) -> NDArray[np.uint8]:
    try:
        return read_radiograph(Path(case.path)).pixels
    except RadiographError as error:  # which names the file
        raise Refused(404, "this case's file can no longer be read; ask the server's administrator") from error
