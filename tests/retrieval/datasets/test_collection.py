"""Every layout gives the same table of cases. No file is opened to read a collection, so the files here are empty."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.case import Case
from retrieval.datasets.collection import Collection, read_collection
from retrieval.errors import CollectionError
from retrieval.notices import Code

# split, part, patient, study, label, number of images
Study = tuple[str, str, int, int, int, int]
STUDIES: list[Study] = [
    ("train", "FINGER", 1, 1, 1, 2),
    ("train", "FINGER", 1, 2, 0, 1),
    ("train", "FINGER", 12, 1, 0, 11),
    ("train", "WRIST", 1, 1, 0, 1),
    ("valid", "FINGER", 3, 1, 1, 3),
]


def folder_of(study: Study) -> str:
    split, part, patient, number, label, _ = study
    return f"{split}/XR_{part}/patient{patient:05}/study{number}_{('negative', 'positive')[label]}"


def images_of(study: Study) -> list[str]:
    return [f"{folder_of(study)}/image{number}.png" for number in range(1, study[-1] + 1)]


def write_mura(root: Path, studies: Iterable[Study], lists: bool = True) -> Path:
    """A MURA copy as Stanford's: its CSV files call the root MURA-v1.1, whatever it is called here."""
    studies = list(studies)
    for image in (image for study in studies for image in images_of(study)):
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).touch()
    for split in {study[0] for study in studies} if lists else ():
        own = [study for study in studies if study[0] == split]
        images = "".join(f"MURA-v1.1/{image}\n" for study in own for image in images_of(study))
        (root / f"{split}_image_paths.csv").write_text(images)
        labels = "".join(f"MURA-v1.1/{folder_of(study)}/,{study[4]}\n" for study in own)
        (root / f"{split}_labeled_studies.csv").write_text(labels)
    return root


def expected(root: Path, studies: Iterable[Study]) -> list[Case]:
    return [
        Case(
            case=image,
            study=f"XR_{part}/patient{patient:05}/study{number}",
            patient=f"patient{patient:05}",
            label=label,
            part=part.lower(),
            split=split,
            path=f"{root}/{image}",
        )
        for study in sorted(studies)
        for split, part, patient, number, label, _ in [study]
        for image in images_of(study)
    ]


def refusal(data: Path, **options: Any) -> str:
    with pytest.raises(CollectionError) as caught:
        read_collection(data, **options)
    message = str(caught.value)
    assert message.isprintable()
    return message


# MURA


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["train", "valid"]),
            st.sampled_from(["ELBOW", "FINGER"]),
            st.integers(0, 99_999),
            st.integers(1, 12),
            st.integers(0, 1),
            st.integers(1, 12),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda study: study[1:4],
    ),
    st.booleans(),
)
def test_a_mura_folder_gives_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, studies: list[Study], lists: bool
) -> None:
    root = write_mura(tmp_path_factory.mktemp("any name"), studies, lists)
    found = read_collection(root)
    assert list(found.cases) == expected(root, studies)
    assert (found.root, found.layout, found.notes, found.synthetic) == (root, "mura", (), False)
    shutil.rmtree(root)


def with_stray_files(root: Path) -> None:
    for folder in [path for path in root.rglob("*") if path.is_dir()]:
        (folder / ".DS_Store").touch()
        (folder / "Thumbs.db").touch()
        if folder.name.startswith("study"):
            (folder / "._image1.png").write_bytes(bytes(4096))
            (folder / "notes.txt").touch()
    (root / "._train").touch()
    (root / "train/XR_FINGER/._patient00001").touch()
    (root / "masks/train").mkdir(parents=True)


def without_lists(root: Path) -> None:
    for table in root.glob("*.csv"):
        table.unlink()


def without_labels_in_names(root: Path) -> None:
    """Some copies have the labels in the CSV files alone."""
    for table in root.glob("*.csv"):
        table.write_text(table.read_text().replace("_positive", "").replace("_negative", ""))
    for folder in list(root.glob("*/*/*/study*")):
        folder.rename(folder.with_name(folder.name.split("_")[0]))


@pytest.mark.parametrize("change", [with_stray_files, without_lists, without_labels_in_names])
def test_all_copies_give_the_same_table(tmp_path: Path, change: Callable[[Path], None]) -> None:
    plain, changed = (write_mura(tmp_path / name, STUDIES) for name in ("MURA-v1.1", "copy"))
    change(changed)
    want, found = read_collection(plain), read_collection(changed)
    assert [record(case) for case in found.cases] == [record(case) for case in want.cases]
    assert found.notes == want.notes == ()


def record(case: Case) -> tuple[object, ...]:
    return (case.study, case.patient, case.label, case.part, case.split, Path(case.case).name)


def test_images_and_patients_are_in_reading_order(tmp_path: Path) -> None:
    cases = read_collection(write_mura(tmp_path, STUDIES)).cases
    finger = [case.case.split("/")[-1] for case in cases if case.patient == "patient00012"]
    assert finger == [f"image{number}.png" for number in range(1, 12)]


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ("..", STUDIES),  # the folder that the copy alone lies in
        ("train", STUDIES[:4]),
        ("train/XR_FINGER", STUDIES[:3]),
        ("valid", STUDIES[4:]),
    ],
)
def test_a_part_of_the_copy_can_be_named(tmp_path: Path, place: str, kept: list[Study]) -> None:
    root = write_mura(tmp_path / "MURA-v1.1", STUDIES)
    found = read_collection(root / place)
    assert list(found.cases) == expected(root, kept)
    assert (found.root, found.notes) == (root, ())


def test_parts_alone_have_no_split(tmp_path: Path) -> None:
    write_mura(tmp_path / "copy", STUDIES[:4])
    parts = (tmp_path / "copy/train").rename(tmp_path / "my fingers")
    cases = read_collection(parts).cases
    assert {case.split for case in cases} == {""}
    assert cases[0].case == "XR_FINGER/patient00001/study1_positive/image1.png"
    assert read_collection(parts / "XR_FINGER").cases == cases[:14]


def test_a_relative_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_mura(tmp_path, STUDIES)
    monkeypatch.chdir(root / "train")
    assert list(read_collection(Path()).cases) == expected(root, STUDIES[:4])


def test_lists_and_folders_that_disagree_are_noted(tmp_path: Path) -> None:
    root = write_mura(tmp_path, STUDIES)
    folder = root / folder_of(STUDIES[0])
    (folder / "image2.png").rename(folder / "image7.png")
    assert read_collection(root).notes == (
        f"images that image_paths.csv lists and that are missing: 1 ({folder_of(STUDIES[0])}/image2.png)",
        f"images that are read and that image_paths.csv does not list: 1 ({folder_of(STUDIES[0])}/image7.png)",
    )


def test_a_copy_of_one_part_misses_nothing_of_the_others(tmp_path: Path) -> None:
    root = write_mura(tmp_path, STUDIES)
    shutil.rmtree(root / "train/XR_WRIST")
    assert read_collection(root).notes == ()


def test_a_label_that_folder_and_list_disagree_on(tmp_path: Path) -> None:
    root = write_mura(tmp_path, STUDIES)
    table = root / "train_labeled_studies.csv"
    table.write_text(table.read_text().replace("study1_positive/,1", "study1_positive/,0"))
    assert f"different labels to 1 studies: {folder_of(STUDIES[0])};" in refusal(root)


def test_a_study_without_a_label(tmp_path: Path) -> None:
    root = write_mura(tmp_path, STUDIES, lists=False)
    without_labels_in_names(root)
    assert "5 studies have no label: train/XR_FINGER/patient00001/study1, " in refusal(root)


@pytest.mark.parametrize("line", ["MURA-v1.1/train/XR_FINGER/patient00001/study1_positive/", "a/b/c/d/,2"])
def test_a_list_of_labels_that_is_none(tmp_path: Path, line: str) -> None:
    root = write_mura(tmp_path, STUDIES)
    (root / "train_labeled_studies.csv").write_text(line)
    assert "train_labeled_studies.csv has a line that is not a study's folder and 0 or 1" in refusal(root)


def test_a_study_of_two_labels(tmp_path: Path) -> None:
    root = write_mura(tmp_path, [("train", "HAND", 7, 1, 1, 1), ("train", "HAND", 7, 1, 0, 1)], lists=False)
    assert "study XR_HAND/patient00007/study1 has two labels" in refusal(root)


def test_a_patient_in_two_splits_keeps_two_studies(tmp_path: Path) -> None:
    """A fault of the copy that an audit has to find, and so must live to see."""
    root = write_mura(tmp_path, [("train", "HAND", 7, 1, 1, 1), ("valid", "HAND", 7, 1, 0, 1)])
    studies = {case.study: (case.split, case.label, case.patient) for case in read_collection(root).cases}
    assert studies == {
        "train/XR_HAND/patient00007/study1": ("train", 1, "patient00007"),
        "valid/XR_HAND/patient00007/study1": ("valid", 0, "patient00007"),
    }


def test_synthetic_collections_say_so(tmp_path: Path) -> None:
    root = write_mura(tmp_path, STUDIES)
    (root / "SYNTHETIC.txt").write_text("Drawn by a computer.")
    assert read_collection(root).synthetic
    assert read_collection(root / "train").synthetic


# FracAtlas


def write_fracatlas(root: Path, rows: Sequence[str]) -> Path:
    """Rows as number, hand leg hip shoulder mixed, multiscan, fractured, frontal lateral oblique."""
    table = ["image_id,hand,leg,hip,shoulder,mixed,hardware,multiscan,fractured,fracture_count,frontal,lateral,oblique"]
    for folder in ("Fractured", "Non_fractured"):
        (root / "images" / folder).mkdir(parents=True)
    for row in rows:
        number, parts, scans, fractured, views = row.split()
        name = f"IMG{int(number):07}.jpg"
        values = [name, *parts, "0", scans, fractured, fractured, *views]
        table.append(",".join(values))
        (root / "images" / ("Non_fractured", "Fractured")[int(fractured)] / name).touch()
    (root / "dataset.csv").write_text("\n".join(table))
    return root


def test_fracatlas(tmp_path: Path) -> None:
    """Runs by hand: 3 4 5 are one part and consecutive, with two labels; 6 is another part, 8 follows a gap."""
    rows = [
        "8 01000 0 0 001",
        "3 10000 0 0 100",
        "4 10000 0 1 010",
        "5 10000 1 1 100",
        "6 01000 0 1 011",
        "9 11001 0 0 000",
    ]
    found = read_collection(write_fracatlas(tmp_path, rows))
    assert found.layout == "fracatlas"
    assert [(case.study, case.patient, case.label, case.part, case.view) for case in found.cases] == [
        ("run0000003-s1", "run0000003", 0, "hand", "frontal"),
        ("run0000003-s2", "run0000003", 1, "hand", "lateral"),
        ("run0000003-s2", "run0000003", 1, "hand", "multiple"),
        ("run0000006-s1", "run0000006", 1, "leg", "lateral"),
        ("run0000008-s1", "run0000008", 0, "leg", "oblique"),
        ("run0000009-s1", "run0000009", 0, "mixed", ""),
    ]
    assert found.cases[1].case == "images/Fractured/IMG0000004.jpg"
    assert found.cases[1].path == f"{tmp_path}/images/Fractured/IMG0000004.jpg"
    assert "inferred" in found.notes[0]


def test_fracatlas_with_images_missing_unlisted_or_in_the_other_folder(tmp_path: Path) -> None:
    root = write_fracatlas(tmp_path, [f"{number} 10000 0 0 100" for number in range(1, 9)])
    images = root / "images"
    (images / "Fractured/IMG0000099.jpg").touch()
    assert read_collection(root).notes[1] == "left out, images that dataset.csv does not list: 1"
    (images / "Non_fractured/IMG0000003.jpg").rename(images / "Fractured/IMG0000003.jpg")
    assert "different labels to 1 images: IMG0000003.jpg" in refusal(root)
    (images / "Fractured/IMG0000003.jpg").unlink()
    for number in range(2, 9):
        (images / f"Non_fractured/IMG000000{number}.jpg").unlink(missing_ok=True)
    (missing,) = (notice for notice in read_collection(root).notices if notice.code == Code.MISSING_FILES)
    assert (missing.detail["count"], missing.detail["total"]) == (7, 8)
    assert str(missing.detail["names"]).endswith("IMG0000006.jpg and 2 more")
    (images / "Non_fractured/IMG0000001.jpg").unlink()
    assert "none of the 8 images" in refusal(root)


def test_fracatlas_listing_an_image_twice(tmp_path: Path) -> None:
    root = write_fracatlas(tmp_path, ["1 10000 0 0 100", "1 10000 0 0 100"])
    assert "lists 1 images more than once: IMG0000001.jpg" in refusal(root)


@pytest.mark.data
@pytest.mark.parametrize("name", ["fracatlas-upper-limb", "fracatlas-other-parts"])
def test_the_inferred_runs_are_those_of_the_given_table(name: str) -> None:
    data = Path(__file__).parents[3] / "../shared/data" / name
    if not data.is_dir():
        pytest.skip("the real radiographs are not beside this checkout")
    inferred, given_table = read_collection(data, "fracatlas"), read_collection(data)
    assert given_table.layout == "csv"
    assert "inferred" in given_table.notes[0]
    for group in ("patient", "study"):
        assert groups(inferred, group) == groups(given_table, group)
    for field in ("label", "view", "path"):
        ours, theirs = ({case.case: getattr(case, field) for case in each.cases} for each in (inferred, given_table))
        assert ours == theirs


def groups(collection: Collection, field: str) -> set[frozenset[str]]:
    found: dict[str, set[str]] = {}
    for case in collection.cases:
        found.setdefault(getattr(case, field), set()).add(case.case)
    return {frozenset(group) for group in found.values()}


# What a folder is


def test_all_layouts_give_the_same_cases(tmp_path: Path) -> None:
    """A case table written of a MURA folder reads as the folder does."""
    root = write_mura(tmp_path, STUDIES)
    mura = read_collection(root)
    rows = [
        f"{case.case},{case.label_name},{case.patient},{case.study},{case.part},{case.split}" for case in mura.cases
    ]
    (root / "cases.csv").write_text("\n".join(["path,label,patient,study,part,split", *rows]))
    table = read_collection(root)
    assert (table.layout, table.cases, table.notes) == ("csv", mura.cases, ())
    assert read_collection(root, "mura") == mura
    assert read_collection(root, "csv") == read_collection(root / "cases.csv") == table


def test_selecting(tmp_path: Path) -> None:
    root = write_mura(tmp_path, STUDIES)
    collection = read_collection(root)
    assert list(collection.select(part="Finger", split="train").cases) == expected(root, STUDIES[:3])
    assert read_collection(root, part="wrist").cases == collection.select(part="wrist").cases
    assert refusal(root, part="knee") == f"{root} has no radiograph of part 'knee'; choose one of: finger, wrist"
    assert refusal(root, part="wrist", split="valid").endswith("split 'valid'; choose one of: train")


def test_what_is_no_collection(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nothing") == f"{tmp_path}/nothing cannot be read: No such file or directory"
    assert "is not a collection: mura needs train/XR_FINGER/" in refusal(tmp_path)
    assert "is not a collection: fracatlas needs dataset.csv" in refusal(tmp_path, layout="fracatlas")
    assert "layout 'nifti' is unknown; choose one of: mura, fracatlas, csv, folders, dicom" in refusal(
        tmp_path, layout="nifti"
    )
    (tmp_path / "q.png").touch()
    tables = "a case table (.csv, .tsv, .txt, .xlsx, .parquet)"
    assert f"q.png is a file; name a MURA, FracAtlas or DICOM folder, or {tables}" in refusal(tmp_path / "q.png")
    (tmp_path / "train/XR_FINGER/patient00001/study1_positive").mkdir(parents=True)
    assert "holds no radiographs" in refusal(tmp_path)


def test_a_folder_of_two_collections(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_mura(tmp_path / name, STUDIES)
    (tmp_path / ".hidden").mkdir()
    assert "holds 2 collections (a, b); name one of them" in refusal(tmp_path)
    write_mura(tmp_path / "a", STUDIES).rename(tmp_path / ".hidden/a")
    assert read_collection(tmp_path).root == tmp_path / "b"


def test_a_case_table_in_other_case(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "Cases.CSV").write_text("path,label,lesion\na.png,1,fracture\n", encoding="utf-8")
    collection = read_collection(tmp_path)
    assert (collection.layout, collection.lesions()) == ("csv", {"a.png": "fracture"})


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    assert "Too many levels of symbolic links" in refusal(tmp_path / "a")
