"""Copies of MURA under the names that people and programs give: read as MURA, or named as passed over."""

from pathlib import Path

import pytest

from retrieval.datasets.collection import Collection, read_collection
from retrieval.notices import Code, Detail


def put(root: Path, *studies: str) -> Path:
    for study in studies:
        (root / study).mkdir(parents=True, exist_ok=True)
        (root / study / "image1.png").touch()
    return root


def details(collection: Collection) -> dict[str, dict[str, Detail]]:
    return {notice.code: dict(notice.detail) for notice in collection.notices}


@pytest.mark.parametrize("name", ["val", "validation", "Valid", "dev", "VALIDATION"])
def test_a_split_under_another_name(tmp_path: Path, name: str) -> None:
    root = put(tmp_path, "train/XR_HAND/patient00001/study1_positive", f"{name}/XR_HAND/patient00002/study1_negative")
    (root / "valid_image_paths.csv").write_text("MURA-v1.1/valid/XR_HAND/patient00002/study1_negative/image1.png\n")
    collection = read_collection(root)
    assert [(case.split, case.case.split("/")[0]) for case in collection.cases] == [("train", "train"), ("valid", name)]
    assert collection.notices == ()
    assert len(collection.select(split="val").cases) == 1
    assert [case.split for case in read_collection(root / name).cases] == ["valid"]


def test_a_train_folder_in_another_case(tmp_path: Path) -> None:
    root = put(tmp_path, "Train/XR_HAND/patient00001/study1_positive", "valid/XR_HAND/patient00002/study1_negative")
    assert [case.split for case in read_collection(root).cases] == ["train", "valid"]


def test_a_part_that_lost_its_prefix(tmp_path: Path) -> None:
    root = put(tmp_path, "train/XR_HAND/patient00001/study1_positive", "train/Wrist/patient00002/study1_negative")
    (root / "train_image_paths.csv").write_text(
        "MURA-v1.1/train/XR_HAND/patient00001/study1_positive/image1.png\n"
        "MURA-v1.1/train/XR_WRIST/patient00002/study1_negative/image1.png\n"
    )
    collection = read_collection(root)
    assert [(case.part, case.study) for case in collection.cases] == [
        ("wrist", "XR_WRIST/patient00002/study1"),
        ("hand", "XR_HAND/patient00001/study1"),
    ]
    assert collection.notices == ()


@pytest.mark.parametrize(
    ("folder", "patient", "study", "label"),
    [
        ("patient00002/study1_positive (1)", "patient00002", "patient00002/study1 (1)", 1),
        ("patient00002/study1_positive - Copy (2)", "patient00002", "patient00002/study1 - Copy (2)", 1),
        ("patient00003/study1-negative", "patient00003", "patient00003/study1", 0),
        ("patient00003/Study 1 Negative", "patient00003", "patient00003/study1", 0),
        ("patient00003/study1_normal", "patient00003", "patient00003/study1", 0),
        ("patient00006/study_1_abnormal", "patient00006", "patient00006/study1", 1),
        ("patient00004 - Copy/study1_negative", "patient00004", "patient00004 - Copy/study1", 0),
        ("patient00004_copy/study1_negative", "patient00004", "patient00004_copy/study1", 0),
        ("patient00004 (2)/study1_negative", "patient00004", "patient00004 (2)/study1", 0),
        ("00005/study1_negative", "patient00005", "patient00005/study1", 0),
        ("Patient_00007/study1_negative", "patient00007", "patient00007/study1", 0),
        ("patient-00007/STUDY1_POSITIVE", "patient00007", "patient00007/study1", 1),
    ],
)
def test_folders_off_the_pattern(tmp_path: Path, folder: str, patient: str, study: str, label: int) -> None:
    root = put(tmp_path, "train/XR_HAND/patient00001/study1_positive", f"train/XR_HAND/{folder}")
    own = [case for case in read_collection(root).cases if folder in case.case]
    assert [(case.patient, case.study, case.label) for case in own] == [(patient, f"XR_HAND/{study}", label)]


def test_a_copied_study_is_a_study_beside_it(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        *(f"train/XR_HAND/{name}" for name in ("patient00001/study1_positive", "patient00001/study1_positive (1)")),
        "train/XR_HAND/patient00001 - Copy/study1_positive",
    )
    cases = read_collection(root).cases
    assert (len({case.study for case in cases}), {case.patient for case in cases}) == (3, {"patient00001"})


def test_images_one_folder_deeper(tmp_path: Path) -> None:
    put(tmp_path, "train/XR_HAND/patient00001/study1_positive/images", "train/XR_HAND/patient00001/study1_positive")
    cases = read_collection(tmp_path).cases
    assert [case.case.removeprefix("train/XR_HAND/patient00001/study1_positive/") for case in cases] == [
        "image1.png",
        "images/image1.png",
    ]
    assert {case.study for case in cases} == {"XR_HAND/patient00001/study1"}


def test_folders_that_are_passed_over_are_counted_and_named(tmp_path: Path) -> None:
    root = put(tmp_path, "train/XR_HAND/patient00001/study1_positive")
    put(root, *(f"train/XR_HAND/someone{number}/study1_positive" for number in range(6)), "train/xray/a", ".hidden/b")
    put(root, "masks/train/XR_HAND/patient00001/study1_positive")  # of lesions, as `phantom` writes them
    collection = read_collection(root)
    assert len(collection.cases) == 1
    passed = details(collection)[Code.PASSED_OVER]
    assert (passed["count"], passed["folders"]) == (7, 7)
    assert str(passed["names"]).startswith("train/XR_HAND/someone0/study1_positive, ")
    assert str(passed["names"]).endswith(" and 2 more")


@pytest.mark.parametrize("folder", ["thumbnails", "Masks", "@eaDir/image1.png", "preview"])
def test_pictures_made_of_radiographs_are_passed_over_and_named(tmp_path: Path, folder: str) -> None:
    study = "train/XR_HAND/patient00001/study1_positive"
    collection = read_collection(put(tmp_path, study, f"{study}/{folder}"))
    assert [case.case for case in collection.cases] == [f"{study}/image1.png"]
    assert details(collection)[Code.PASSED_OVER] == {"count": 1, "folders": 1, "names": f"{study}/{folder}"}


def test_dicom_among_images_is_counted(tmp_path: Path) -> None:
    root = put(tmp_path, "train/XR_HAND/patient00001/study1_positive")
    (root / "train/XR_HAND/patient00001/study1_positive/IM1").write_bytes(bytes(128) + b"DICM")
    (root / "train/XR_HAND/patient00001/study1_positive/Thumbs.db").write_bytes(b"no DICOM")
    assert details(read_collection(root)) == {Code.DICOM_LEFT_OUT: {"count": 1}}


def test_a_split_that_is_a_link_to_another_is_named(tmp_path: Path) -> None:
    root = put(tmp_path, "train/XR_HAND/patient00001/study1_positive")
    (root / "valid").symlink_to(root / "train")
    collection = read_collection(root)
    assert [case.split for case in collection.cases] == ["train"]
    assert details(collection) == {Code.READ_ONCE: {"count": 1, "names": "valid"}}


def test_patients_whose_numbers_differ_in_zeros_are_named(tmp_path: Path) -> None:
    root = put(tmp_path, "train/XR_HAND/patient00001/study1_positive", "valid/XR_HAND/patient1/study1_positive")
    assert details(read_collection(root)) == {
        Code.ALIKE_IDENTIFIERS: {"count": 1, "names": "patient00001 and patient1"}
    }


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "patient00002/study1_negative")
    root = put(tmp_path / "copy", "train/XR_HAND/patient00001/study1_positive")
    (root / "train/XR_HAND/patient00002").symlink_to(tmp_path / "elsewhere/patient00002")
    (root / "train/XR_HAND/patient00001/study1_positive/loop").symlink_to(root)
    (root / "train/up").symlink_to(tmp_path)
    collection = read_collection(root)
    assert [case.patient for case in collection.cases] == ["patient00001", "patient00002"]
    assert not collection.notices


@pytest.mark.parametrize("part", ["XR_HAND", "xr_hand", "XR-Hand", "hand", "Hand"])
def test_a_part_has_one_name(tmp_path: Path, part: str) -> None:
    root = put(tmp_path / "MURA (1)" / "MURA-v1.1", f"train/{part}/patient00001/study1_positive")
    (case,) = read_collection(tmp_path).cases  # an archive unpacked into a folder of its own
    assert (case.part, case.study) == ("hand", "XR_HAND/patient00001/study1")
    assert case.path.startswith(str(root))


def test_a_folder_that_is_only_called_like_a_split_is_the_root(tmp_path: Path) -> None:
    put(tmp_path / "dev", "XR_HAND/patient00001/study1_positive")
    collection = read_collection(tmp_path / "dev")
    assert (collection.root, [case.split for case in collection.cases]) == (tmp_path / "dev", [""])
