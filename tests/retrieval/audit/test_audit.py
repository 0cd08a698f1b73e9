import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from index.case import Case
from retrieval.audit.audit import Count, Difference, Duplicate, audit
from retrieval.datasets.collection import Collection, read_collection
from tests.pictures import grey_square


def write(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), grey_square(grey + 30, 8))


def finger(split: str, patient: int, study: str, image: int = 1) -> str:
    return f"{split}/XR_FINGER/patient{patient:05}/{study}/image{image}.png"


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Patient 1 in both splits, patient 2's picture a copy of one of patient 1's, a text file, a cut JPEG."""
    for number, path in enumerate(
        [
            finger("train", 1, "study1_positive", 1),
            finger("train", 1, "study1_positive", 2),
            finger("train", 2, "study1_negative"),
            finger("train", 2, "study2_negative"),
            finger("valid", 1, "study2_negative"),
        ]
    ):
        write(tmp_path / path, 10 * number)
    shutil.copy(tmp_path / finger("train", 1, "study1_positive", 2), tmp_path / finger("train", 2, "study1_negative"))
    shutil.copy(tmp_path / finger("train", 1, "study1_positive", 2), tmp_path / finger("valid", 1, "study2_negative"))
    (tmp_path / finger("train", 2, "study2_negative")).write_text("a text")
    whole = cv2.imencode(".jpg", grey_square(77, 8))[1].tobytes()
    cut = tmp_path / finger("valid", 4, "study1_positive").replace(".png", ".jpg")
    cut.parent.mkdir(parents=True)
    cut.write_bytes(whole[:-2])
    return tmp_path


def test_what_is_found(faulty: Path) -> None:
    steps: list[tuple[int, int]] = []
    found = audit(read_collection(faulty), lambda done, total: steps.append((done, total)), workers=2)
    assert steps == [(done, 6) for done in range(1, 7)]
    assert (found.images, found.studies, found.patients) == (6, 5, 3)
    assert found.counts == (
        Count("train", "finger", "normal", images=2, studies=2, patients=1),
        Count("train", "finger", "abnormal", images=2, studies=1, patients=1),
        Count("valid", "finger", "normal", images=1, studies=1, patients=1),
        Count("valid", "finger", "abnormal", images=1, studies=1, patients=1),
    )
    assert [case for case, _ in found.unreadable] == [finger("train", 2, "study2_negative")]
    assert "is not an image that can be read" in found.unreadable[0][1]
    cut = finger("valid", 4, "study1_positive").replace(".png", ".jpg")
    assert found.warned == ((cut, "ends early: its last rows or finest detail may be missing"),)
    same = (
        finger("train", 1, "study1_positive", 2),
        finger("train", 2, "study1_negative"),
        finger("valid", 1, "study2_negative"),
    )
    assert found.duplicates == (Duplicate(same, across_splits=True, across_patients=True, across_labels=True),)
    assert found.patients_in_two_splits == ("patient00001",)


def test_two_views_alike_are_duplicates_within(tmp_path: Path) -> None:
    for image in (1, 2):
        write(tmp_path / finger("train", 1, "study1_positive", image), 50)
    (duplicate,) = audit(read_collection(tmp_path)).duplicates
    assert (duplicate.across_splits, duplicate.across_patients, duplicate.across_labels) == (False, False, False)


def test_as_json(faulty: Path) -> None:
    found = json.loads(json.dumps(audit(read_collection(faulty)).to_dict()))
    assert found["schema"] == "mura-search/audit/1"
    assert found["root"] == str(faulty)
    assert found["unreadable"][0]["case"] == finger("train", 2, "study2_negative")
    assert found["counts"][0] == {
        "split": "train", "part": "finger", "label": "normal", "images": 2, "studies": 2, "patients": 1
    }  # fmt: skip
    assert found["different"][0] == {
        "split": "train", "part": "finger", "label": "normal", "what": "studies", "here": 2, "published": 1280
    }  # fmt: skip


# Against the published counts


def published_studies() -> Iterable[tuple[str, str, int, int]]:
    """(split, part, label, studies) as the reference page's table has them."""
    page = Path(__file__).parents[3] / "../shared/reference/MURA.md"
    if not page.is_file():
        pytest.skip("the reference page is not beside this checkout")
    rows = re.findall(r"^\| (\w+) \| ([\d,]+) / ([\d,]+) \| ([\d,]+) / ([\d,]+) \|$", page.read_text(), re.MULTILINE)
    assert len(rows) == 7
    for part, *numbers in rows:
        counts = [int(number.replace(",", "")) for number in numbers]
        yield from zip(("train", "train", "valid", "valid"), (part,) * 4, (0, 1, 0, 1), counts, strict=True)


def as_published(images: dict[tuple[str, str, int], int], spare: dict[str, tuple[str, int]]) -> list[Case]:
    """One case for each published study, and further ones in a study of each group up to the published images."""
    cases: list[Case] = []
    for split, part, label, studies in published_studies():
        group = [
            Case(f"{split} {part} {label} {number}", f"{split} {part} {label} {number}", "p", label, part, split=split)
            for number in range(studies)
        ]
        more = images.get((split, part, label), studies) - studies
        cases += group + [replace(group[0], case=f"{group[0].case} view {number}") for number in range(more)]
    for split, (part, total) in spare.items():
        first = next(case for case in cases if (case.split, case.part) == (split, part))
        missing = total - sum(case.split == split for case in cases)
        cases += [replace(first, case=f"{first.case} more {number}") for number in range(missing)]
    return cases


FINGER_IMAGES = {
    ("train", "finger", 0): 3138,
    ("train", "finger", 1): 1968,
    ("valid", "finger", 0): 214,
    ("valid", "finger", 1): 247,
}


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Collection:
    """MURA as published, but for the pictures."""
    monkeypatch.setattr("retrieval.audit.audit._look", lambda case: (case.case, ()))
    cases = as_published(FINGER_IMAGES, {"train": ("elbow", 36_808), "valid": ("elbow", 3_197)})
    return Collection(tmp_path, "mura", tuple(cases))


def test_a_whole_copy_is_as_published(whole: Collection) -> None:
    found = audit(whole)
    assert found.published
    assert found.different == ()
    assert found.studies == 14_863 - 207  # all that the paper counts, less the test set


def test_one_part_of_one_split_is_compared_alone(whole: Collection) -> None:
    assert audit(whole.select(part="finger", split="valid")).different == ()


def test_missing_studies_are_counted(whole: Collection) -> None:
    gone = {"valid wrist 1 0", "valid wrist 1 1", "train finger 0 7"}
    cases = tuple(case for case in whole.cases if case.study not in gone)
    assert audit(replace(whole, cases=cases)).different == (
        Difference("train", "finger", "normal", "studies", 1279, 1280),
        Difference("valid", "wrist", "abnormal", "studies", 95, 97),
        Difference("train", "finger", "normal", "images", 3137, 3138),
        Difference("train", "", "", "images", 36_807, 36_808),
        Difference("valid", "", "", "images", 3_195, 3_197),
    )


def test_only_a_real_mura_copy_is_compared(whole: Collection) -> None:
    for other in (replace(whole, synthetic=True), replace(whole, layout="csv")):
        found = audit(replace(other, cases=whole.cases[:5]))
        assert not found.published
        assert found.different == ()


def test_what_is_of_no_split_is_in_no_other_one(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.png" for name in ("one", "two")]
    for path in paths:
        write(path, 40)
    cases = tuple(
        Case(path.name, f"s{n}", "p", 0, "finger", split=split, path=str(path))
        for n, (path, split) in enumerate(zip(paths, ("train", ""), strict=True))
    )
    found = audit(Collection(tmp_path, "csv", cases))
    assert found.patients_in_two_splits == ()
    assert [twice.across_splits for twice in found.duplicates] == [False]
