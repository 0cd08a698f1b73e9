"""Indexed studies as queries: what the index stores becomes a study to be remembered, without a file of the reader."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from index.errors import IndexFailure
from retrieval.encoding.encoder import Encoded
from retrieval.errors import HeatmapError
from retrieval.notices import Notice
from retrieval.query import View
from retrieval.search_by.indexed_study import case_pixels, indexed_study
from retrieval.searcher import Searcher
from web.errors import Refused
from web.service.study_store import Study

__all__ = [
    "case_embedding",
    "cases_of_study",
    "from_index",
    "from_selection",
    "no_case",
    "require_case",
    "similarities_to",
]

MOST_SELECTED = 2000  # studies of one selection


def from_index(name: str, *, files: bool) -> Callable[[Searcher], Study]:
    """Makes the query of an indexed study. files: whether its radiographs are read, for heatmaps.

    The query raises Refused with 404 if the index has no such study.
    """

    def make(searcher: Searcher) -> Study:
        try:
            indexed = indexed_study(searcher.index, name, tuple(searcher.prefixes))
        except IndexFailure as error:
            raise Refused(404, "the index has no such study, or no longer has it") from error
        views, previews = list(indexed.views), not files
        for number, case in enumerate(indexed.cases if files else ()):
            try:
                views[number] = replace(views[number], pixels=case_pixels(case))
            except HeatmapError:
                previews = True
        study = _study(searcher, views, indexed.encoded, (indexed.notice,), previews=previews)
        return replace(study, measures=indexed.measures)

    return make


def from_selection(names: Sequence[str], *, mean: bool, most: int) -> Callable[[Searcher], Study]:
    """Makes one query of several indexed studies: the mean of their embeddings, or a view each, of at most `most`.

    All their patients are left out. The picture of a mean is that of the study nearest to it.
    Raises Refused for too many studies; the query raises it for one that is not indexed.
    """
    if not 0 < len(names) <= (MOST_SELECTED if mean else most):
        raise Refused(422, f"select 1 to {MOST_SELECTED if mean else most} studies")

    def make(searcher: Searcher) -> Study:
        try:
            studies = [indexed_study(searcher.index, name, tuple(searcher.prefixes)) for name in dict.fromkeys(names)]
        except IndexFailure as error:
            raise Refused(404, "the index no longer has one of these studies; reload the atlas") from error
        first = [study.views[0] for study in studies]
        means = np.stack([study.encoded.embeddings.mean(0) for study in studies])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        patients = tuple(sorted({patient for view in first for patient in view.patients}))
        if not mean:
            logits = np.array([study.encoded.logits.mean() for study in studies], np.float32)
            views = [replace(view, patients=patients, digest="", study="") for view in first]
            return _study(searcher, views, Encoded(means.astype(np.float32), logits), (), previews=True)
        middle = means.mean(0, keepdims=True)
        middle = np.asarray(middle / np.maximum(np.linalg.norm(middle), 1e-12), np.float32)
        nearest = first[int((means @ middle[0]).argmax())]
        view = View(f"mean of {len(studies)} studies", nearest.pixels, patients=patients)
        return _study(searcher, [view], Encoded(middle, searcher.encoder.head.classify(middle)), (), previews=True)

    return make


def cases_of_study(name: str) -> Callable[[Searcher], list[Case]]:
    """Gives the indexed radiographs of the study of a case. Raises Refused with 404."""

    def find(searcher: Searcher) -> list[Case]:
        cases = searcher.index.find("study", [require_case(searcher, name).study])
        if not cases:
            raise no_case()
        return cases

    return find


def similarities_to(study: Study, cases: Sequence[str]) -> Callable[[Searcher], NDArray[np.float32]]:
    """Gives the cosines (V, C) of the views of a remembered study and indexed cases. Raises Refused."""

    def compare(searcher: Searcher) -> NDArray[np.float32]:
        return study.encoded.embeddings @ np.stack([case_embedding(searcher, study, case) for case in cases], 1)

    return compare


def case_embedding(searcher: Searcher, study: Study, case: str) -> NDArray[np.float32]:
    """An indexed case's embedding (D,), to be compared with a study. Raises Refused."""
    study.require_model(searcher)
    embedding = searcher.index.embedding(case)
    if embedding is None:
        raise no_case()
    return embedding


def require_case(searcher: Searcher, name: str) -> Case:
    """The record of a case. Raises Refused with 404."""
    cases = searcher.index.find("case", [name])
    if not cases:
        raise no_case()
    return cases[0]


def no_case() -> Refused:
    """The refusal, with 404, of a case that is not indexed."""
    return Refused(404, "the index has no such case, or no longer has it")


def _study(
    searcher: Searcher, views: Sequence[View], encoded: Encoded, notices: tuple[Notice, ...], *, previews: bool
) -> Study:
    model = searcher.encoder.bundle.sha256
    return Study(tuple(views), encoded, notices, None, model, 0.0, previews=previews)
