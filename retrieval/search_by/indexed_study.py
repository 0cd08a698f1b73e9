"""An indexed study as the query: its stored embeddings and logits are asked about, so no file is needed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.case import Case, Where
from index.errors import IndexFailure
from index.reader import IndexReader
from retrieval.answer import Answer
from retrieval.datasets.pseudonyms import indexed_names
from retrieval.encoding.encoder import Encoded
from retrieval.errors import HeatmapError, RadiographError
from retrieval.explain.rendering import overlay, overlay_files, write_overlay
from retrieval.explain.smooth_grad_cam import explain_class
from retrieval.images.measures import TABLE, Measures, unpacked
from retrieval.images.radiograph import decode_radiograph, read_radiograph
from retrieval.notices import Code, Notice
from retrieval.query import SHOWN, Scope, View
from retrieval.searcher import Searcher

__all__ = ["IndexedStudy", "case_pixels", "indexed_study", "pictures_of", "search_indexed"]


@dataclass(frozen=True, slots=True)
class IndexedStudy:
    """A study of V indexed radiographs: its cases, its views, and what the index stores of them.

    The pixels of a view are those of the small picture that the index stores. `measures` are those of the radiographs
    as read, none if the index does not have all of them.
    """

    cases: tuple[Case, ...]
    views: tuple[View, ...]
    encoded: Encoded
    notice: Notice
    measures: tuple[Measures, ...] = ()

    @property
    def study(self) -> str:
        return self.cases[0].study


def indexed_study(index: IndexReader, name: str, prefixes: tuple[str, ...] = ()) -> IndexedStudy:
    """The indexed study of this name: the name of a study or of one of its radiographs, here or at the site.

    prefixes: of merged indexes. The same patient may be indexed without the prefix. Raises IndexFailure if the index
    holds no such study or radiograph.
    """
    cases = index.find("study", indexed_names("study", name)) or index.find("case", indexed_names("case", name))
    batch = index.study(cases[0].study) if cases else None
    if batch is None or not batch.cases:
        raise IndexFailure(
            f"the index holds no study and no radiograph {name}; mura-search index list shows what it holds"
        )
    patient = batch.cases[0].patient
    patients = {patient, *(patient.removeprefix(prefix) for prefix in prefixes)}
    views = tuple(
        View(
            name=case.case,
            pixels=decode_radiograph(image, case.case).pixels,
            digest=case.digest,
            patients=tuple(sorted(patients)),
            study=case.study,
            case=case.case,
        )
        for case, image in zip(batch.cases, batch.thumbnails, strict=True)
    )
    label = batch.cases[0].label_name
    notice = Notice(Code.INDEXED_STUDY, detail={"study": batch.cases[0].study, "label": label, "patient": patient})
    measures = [unpacked(data) for data in batch.extras.get(TABLE, ())]
    known = tuple(measured for measured in measures if measured is not None)
    encoded = Encoded(batch.embeddings, batch.logits)
    return IndexedStudy(tuple(batch.cases), views, encoded, notice, known if len(known) == len(measures) else ())


def search_indexed(
    searcher: Searcher,
    name: str,
    *,
    k: int = SHOWN,
    patient: str | None = None,
    where: Where | None = None,
    heatmap: Path | None = None,
) -> tuple[Answer, IndexedStudy]:
    """Answer for an indexed study as `Searcher.search` does for files, without its own patient.

    No file is read, except for `heatmap`. Raises IndexFailure for an unknown study, and HeatmapError if the heatmap's
    radiograph cannot be read.
    """
    searcher.refresh()
    study = indexed_study(searcher.index, name, tuple(searcher.prefixes))
    pixels = [case_pixels(case) for case in study.cases] if heatmap else []
    files = overlay_files(heatmap, len(pixels), [case.path for case in study.cases]) if heatmap else []
    scope = Scope(k, patient, where)
    answer = searcher.answer(study.views, study.encoded, scope, notices=[study.notice], measures=study.measures)
    for file, picture in zip(files, pixels, strict=True):
        write_overlay(file, overlay(picture, explain_class(searcher.explained, picture)))
    return answer.with_heatmaps(files), study


def case_pixels(case: Case) -> NDArray[np.uint8]:
    """The radiograph, (H, W) or (H, W, 3) BGR, of an indexed case, from its file. Raises HeatmapError."""
    if not case.path:
        raise HeatmapError(
            f"the index stores no path of {case.case}, so its heatmap cannot be drawn; ask about the file itself"
        )
    try:
        return read_radiograph(Path(case.path)).pixels
    except RadiographError as error:
        raise HeatmapError(f"the heatmap of {case.case} cannot be drawn: {error}") from error


def pictures_of(study: IndexedStudy) -> list[NDArray[np.uint8]]:
    """The study's radiographs, (H, W) or (H, W, 3) BGR, each from its file, or as the index's small picture of it."""
    pictures = []
    for case, view in zip(study.cases, study.views, strict=True):
        try:
            pictures.append(case_pixels(case))
        except HeatmapError:
            pictures.append(view.pixels)
    return pictures
