from pathlib import Path

import pytest

from retrieval.datasets.collection import read_collection
from retrieval.errors import CollectionError
from retrieval.notices import Code


def put(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def test_folders_named_by_labels(tmp_path: Path) -> None:
    root = put(tmp_path, "normal/1.png", "Abnormal/1.jpg", "other/2.png", "normal/readme.txt")
    collection = read_collection(root)
    assert collection.layout == "folders"
    assert [(case.case, case.label, case.study, case.patient) for case in collection.cases] == [
        ("Abnormal/1.jpg", 1, "Abnormal/1.jpg", "Abnormal/1.jpg"),
        ("normal/1.png", 0, "normal/1.png", "normal/1.png"),
    ]
    details = {notice.code: dict(notice.detail) for notice in collection.notices}
    assert details == {
        Code.WITHOUT_STUDY: {"count": 2, "total": 2},
        Code.WITHOUT_PATIENT: {"count": 2, "total": 2},
        Code.PASSED_OVER: {"count": 1, "folders": 1, "names": "other"},
    }


def test_a_patient_who_is_linked_into_both_labels_is_named(tmp_path: Path) -> None:
    root = put(tmp_path, "abnormal/p1/a.png", "normal/p2/b.png", "normal/Thumbs/b.jpg")
    (root / "normal/p1").symlink_to(root / "abnormal/p1")
    collection = read_collection(root)
    assert [(case.case, case.label) for case in collection.cases] == [("abnormal/p1/a.png", 1), ("normal/p2/b.png", 0)]
    assert {notice.code: dict(notice.detail) for notice in collection.notices} == {
        Code.PASSED_OVER: {"count": 1, "folders": 1, "names": "normal/Thumbs"},
        Code.READ_ONCE: {"count": 1, "names": "normal/p1"},
    }


def test_folders_of_splits_patients_and_studies(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        "train/positive/p1/s1/a.png",
        "train/positive/p1/s1/b.png",
        "val/negative/p1/a.png",
        "val/positive/x.png",
    )
    found = {case.case: (case.split, case.label, case.study, case.patient) for case in read_collection(root).cases}
    assert found == {
        "train/positive/p1/s1/a.png": ("train", 1, "train/positive/p1/s1", "p1"),
        "train/positive/p1/s1/b.png": ("train", 1, "train/positive/p1/s1", "p1"),
        "val/negative/p1/a.png": ("valid", 0, "val/negative/p1", "p1"),
        "val/positive/x.png": ("valid", 1, "val/positive/x.png", "val/positive/x.png"),
    }


def test_folders_of_splits_in_those_of_labels(tmp_path: Path) -> None:
    root = put(tmp_path, "normal/train/a.png", "normal/Validation/p2/b.png", "abnormal/train/c.png")
    found = {case.case: (case.split, case.label, case.study, case.patient) for case in read_collection(root).cases}
    assert found == {
        "normal/train/a.png": ("train", 0, "normal/train/a.png", "normal/train/a.png"),
        "normal/Validation/p2/b.png": ("valid", 0, "normal/Validation/p2", "p2"),
        "abnormal/train/c.png": ("train", 1, "abnormal/train/c.png", "abnormal/train/c.png"),
    }


def test_folders_with_other_names_need_their_meaning(tmp_path: Path) -> None:
    root = put(tmp_path, "fracture/1.png", "no/1.png")
    with pytest.raises(CollectionError, match="folders needs folders named normal and abnormal"):
        read_collection(root)
    assert [case.label for case in read_collection(root, labels_are={"fracture": 1, "no": 0}).cases] == [1, 0]


def test_numbered_folders_are_no_labels(tmp_path: Path) -> None:
    root = put(tmp_path, "0/1.png", "1/1.png")
    with pytest.raises(CollectionError, match="is not a collection"):
        read_collection(root)
    assert [case.label for case in read_collection(root, "folders").cases] == [0, 1]
