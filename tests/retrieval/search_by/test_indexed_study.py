"""An indexed study as the query: its stored embeddings give the answer that its files give."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.errors import IndexFailure
from index.writer import IndexWriter
from retrieval.datasets.collection import Collection
from retrieval.errors import HeatmapError
from retrieval.indexing.build import build_index
from retrieval.notices import Code
from retrieval.search_by.indexed_study import indexed_study, pictures_of, search_indexed
from retrieval.searcher import Searcher

STUDIES = [
    ("ann", "s1", 0, [20, 25]),
    ("ann", "s5", 0, [22]),
    ("bob", "s2", 0, [40]),
    ("cid", "s3", 1, [215]),
    ("dee", "s4", 1, [235, 230]),
]


@pytest.fixture
def place(squares: Callable[..., Collection], model: Path, tmp_path: Path) -> Path:
    build_index(squares(STUDIES), tmp_path / "index", model=model)
    return tmp_path / "index"


@pytest.mark.parametrize("name", ["s1", "s1-1.png", "s1-2.png"])
def test_it_answers_as_for_the_files(searcher: Searcher, tmp_path: Path, name: str) -> None:
    by_name, _ = search_indexed(searcher, name)
    by_file = searcher.search([tmp_path / "data" / "s1-1.png", tmp_path / "data" / "s1-2.png"])
    assert by_name.query.files == ("s1-1.png", "s1-2.png")
    assert (by_name.classifier, by_name.knn, by_name.cases) == (by_file.classifier, by_file.knn, by_file.cases)
    assert {case.patient for case in by_name.cases} == {"bob", "cid", "dee"}
    assert by_name.query.excluded_patients == ("ann",)


def test_it_says_which_study_is_asked_about_and_its_label(searcher: Searcher) -> None:
    answer, _ = search_indexed(searcher, "s3")
    assert [(notice.code, dict(notice.detail)) for notice in answer.notices] == [
        (Code.INDEXED_STUDY, {"study": "s3", "label": "abnormal", "patient": "cid"})
    ]
    assert answer.warnings == ("the query is the indexed study s3, labelled abnormal; patient cid is left out",)


def test_no_file_is_needed_but_for_a_heatmap(place: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "data")
    with Searcher.open(place) as searcher:
        answer, study = search_indexed(searcher, "s4", k=2)
        assert [case.study for case in answer.cases] == ["s3", "s2"]
        assert [picture.shape for picture in pictures_of(study)] == [(32, 32)] * 2
        with pytest.raises(HeatmapError, match=r"the heatmap of s4-1\.png cannot be drawn: "):
            search_indexed(searcher, "s4", heatmap=tmp_path / "heat.png")


def test_a_heatmap_is_drawn_of_the_file(searcher: Searcher, tmp_path: Path) -> None:
    answer, _ = search_indexed(searcher, "s3", heatmap=tmp_path / "heat.png")
    assert answer.views[0].heatmap == str(tmp_path / "heat.png")
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")


def test_filters_and_another_patient_to_leave_out(searcher: Searcher) -> None:
    answer, _ = search_indexed(searcher, "s3", where={"label": ["normal"]}, patient="bob")
    assert {case.study for case in answer.cases} == {"s1", "s5"}
    assert answer.query.excluded_patients == ("bob", "cid")


def test_the_same_patient_of_a_merged_index_is_left_out_too(
    place: Path, model: Path, squares: Callable[..., Collection], tmp_path: Path
) -> None:
    build_index(squares([("cid", "t1", 1, [214])], "other"), tmp_path / "other-index", model=model)
    with Searcher.open(tmp_path / "other-index") as other, IndexWriter.open(place) as writer:
        writer.merge(other.index, "north/")
    with Searcher.open(place) as searcher:
        for name in ("north/t1", "s3"):
            answer, _ = search_indexed(searcher, name)
            assert answer.query.excluded_patients == ("cid", "north/cid")


def test_an_unknown_name(searcher: Searcher) -> None:
    with pytest.raises(IndexFailure, match="the index holds no study and no radiograph s9; mura-search index list"):
        search_indexed(searcher, "s9")


def test_what_the_index_stores(searcher: Searcher) -> None:
    study = indexed_study(searcher.index, "s1")
    every = dict(zip([case.case for case in searcher.index.cases()], searcher.index.logits(), strict=True))
    assert study.encoded.logits.tolist() == [every["s1-1.png"], every["s1-2.png"]]
    stored = searcher.index.embedding("s1-2.png")
    assert stored is not None
    assert np.array_equal(study.encoded.embeddings[1], stored)
