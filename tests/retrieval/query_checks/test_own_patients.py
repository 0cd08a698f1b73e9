"""The query's own patient neither votes nor is shown."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher


def test_the_own_patient_is_left_out_by_name(searcher: Searcher, square: Callable[..., Path]) -> None:
    answer = searcher.search(square("query.png", 160), patient="patient00003")
    assert answer.query.excluded_patients == ("patient00003",)
    assert "patient00003" not in {case.patient for case in answer.cases}
    assert searcher.search(square("query.png", 160)).cases[0].patient == "patient00003"
    unknown = searcher.search(square("query.png", 160), patient="nobody")
    assert unknown.query.excluded_patients == ()
    assert unknown.warnings == ("the index holds no patient nobody",)


def test_the_own_patient_is_left_out_by_mura_folder(searcher: Searcher, square: Callable[..., Path]) -> None:
    answer = searcher.search(square("XR_FINGER/patient00003/study1_positive/image1.png", 160))
    assert answer.query.excluded_patients == ("patient00003",)
    assert "patient00003" not in {case.patient for case in answer.cases}
    # A patient who is not indexed need not be left out, and what merely looks like one is none.
    assert searcher.search(square("XR_FINGER/patient00099/image1.png", 160)).query.excluded_patients == ()
    assert searcher.search(square("patient003/image1.png", 160)).query.excluded_patients == ()


def test_the_own_patient_is_left_out_by_the_same_bytes(searcher: Searcher, tmp_path: Path) -> None:
    copy = tmp_path / "renamed.png"
    shutil.copy(tmp_path / "data" / "dark-1.png", copy)
    answer = searcher.search(copy)
    assert answer.query.excluded_patients == ("patient00001",)
    assert {case.study for case in answer.cases}.isdisjoint({"dark", "dim"})
    assert any("is itself in the index, as dark-1.png" in warning for warning in answer.warnings)


def test_a_patient_that_is_no_text_is_nobody(searcher: Searcher, square: Callable[..., Path]) -> None:
    name = os.fsdecode(b"\xff")
    answer = searcher.search(square("query.png", 90), patient=name)
    assert answer.query.excluded_patients == ()
    assert f"the index holds no patient {name}" in answer.warnings


@pytest.mark.parametrize("name", ["patient00001", "patient7", "Patient_x"])
def test_whatever_muras_reader_takes_for_a_patient_is_one(
    squares: Callable[..., Collection], model: Path, square: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    build_index(squares([(name, "own", 0, [60]), ("other", "far", 1, [220])]), tmp_path / "mine", model=model)
    with Searcher.open(tmp_path / "mine") as searcher:
        answer = searcher.search(square(f"MURA/XR_FINGER/{name}/study2/image1.png", 61))
    assert answer.query.excluded_patients == (name,)
    assert [case.study for case in answer.cases] == ["far"]
