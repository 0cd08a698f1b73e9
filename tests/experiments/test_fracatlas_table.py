"""The benchmarks on FracAtlas: who shares a radiograph is one patient, and a study with a copy elsewhere is dropped."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from experiments.compare_folds import FIGURES, read_runs, resampled
from retrieval.datasets.collection import read_collection
from retrieval.datasets.splits import patient_folds
from retrieval.evaluation.paired_comparison import Prediction, write_predictions
from training.data.lesion_boxes import boxes_of

ROOT = Path(__file__).parents[2]
Draw = Callable[..., np.ndarray]
COLUMNS = (
    "image_id",
    "hand",
    "leg",
    "hip",
    "shoulder",
    "mixed",
    "multiscan",
    "frontal",
    "lateral",
    "oblique",
    "fractured",
)
# Image number, part, label and picture: runs 10-11, 20-21, 30-31 and 40. 20 is 11 compressed again, 31 is 20 smaller.
RADIOGRAPHS = [
    (10, "hand", 0, 1), (11, "hand", 0, 2), (20, "hand", 1, 2), (21, "hand", 0, 3),
    (30, "hip", 0, 4), (31, "hip", 0, 2), (40, "hand", 1, 5),
]  # fmt: skip


def script(name: str, *arguments: str | Path) -> str:
    """What a benchmark prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / name), *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_folder(folder: Path, radiographs: Sequence[tuple[int, str, int, int]], texture: Draw) -> None:
    rows = []
    for number, part, label, seed in radiographs:
        pixels = texture(seed)
        if number == 31:
            pixels = cv2.resize(pixels, None, fx=0.9, fy=0.95, interpolation=cv2.INTER_AREA)
        path = folder / "images" / ("Fractured" if label else "Non_fractured") / f"IMG{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), pixels, (cv2.IMWRITE_JPEG_QUALITY, 90 if number == 20 else 95))
        rows.append({"image_id": path.name, part: 1, "fractured": label})
    with (folder / "dataset.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, COLUMNS, restval=0)
        writer.writeheader()
        writer.writerows(rows)
    (folder / "fractures.csv").write_text("image,x,y,width,height\n", encoding="utf-8")


@pytest.fixture
def tables(texture: Draw, model: Path, tmp_path: Path) -> Path:
    """Hands and hips in two folders, and the case tables of both: `linked` and `unlinked`."""
    for part in ("hand", "hip"):
        write_folder(tmp_path / part, [row for row in RADIOGRAPHS if row[1] == part], texture)
    given = (tmp_path / "hand", tmp_path / "hip", "--out")
    printed = script("fracatlas_table.py", *given, tmp_path / "linked", "--model", model)
    assert "7 radiographs of 2 patients" in printed
    assert "3 pairs of copies, 3 of them of two runs (2 with both labels), which link 3 runs to 1 patients" in printed
    printed = script("fracatlas_table.py", *given, tmp_path / "unlinked", "--unlinked")
    assert "7 radiographs of 4 patients" in printed
    assert not (tmp_path / "unlinked" / "copies.csv").exists()
    return tmp_path


def owners(file: Path) -> dict[str, str]:
    return {Path(case.path).stem[-2:]: case.patient for case in read_collection(file).cases}


def test_runs_that_share_a_radiograph_are_one_patient(tables: Path) -> None:
    runs = owners(tables / "unlinked" / "cases.csv")
    assert runs == {number: f"run00000{number[0]}0" for number in ("10", "11", "20", "21", "30", "31", "40")}
    linked = owners(tables / "linked" / "cases.csv")
    assert len({linked[number] for number in ("10", "11", "20", "21", "30", "31")}) == 1
    assert linked["40"] == "run0000040"
    studies = [
        [case.study for case in read_collection(tables / name / "cases.csv").cases] for name in ("linked", "unlinked")
    ]
    assert studies[0] == studies[1]  # a study keeps its name, so that earlier calls are found
    sides = [read_collection(tables / "linked" / f"{name}.csv").cases for name in ("hand", "hip")]
    assert {Path(case.path).stem[-2:]: case.patient for side in sides for case in side} == linked
    assert not {case.path for case in sides[0]} & {case.path for case in sides[1]}
    pairs = list(csv.DictReader((tables / "linked" / "copies.csv").read_text(encoding="utf-8").splitlines()))
    assert [(pair["one"][-6:-4], pair["two"][-6:-4]) for pair in pairs] == [("11", "20"), ("11", "31"), ("20", "31")]
    script(
        "fracatlas_table.py", tables / "hand", tables / "hip", "--out", tables / "known",
        "--copies", tables / "linked" / "copies.csv", "--model", tables / "none",
    )  # fmt: skip
    for name in ("cases.csv", "hand.csv", "hip.csv", "copies.csv"):
        assert (tables / "known" / name).read_bytes() == (tables / "linked" / name).read_bytes()


@pytest.mark.data
def test_fracatlas_as_it_is_published_gives_the_tables_of_the_two_folders(texture: Draw, tmp_path: Path) -> None:
    """Put together again from the radiographs at hand, with one more that is not in the list."""
    data = ROOT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the real radiographs are not beside this checkout")
    whole, parts = tmp_path / "FracAtlas", [data / "fracatlas-upper-limb", data / "fracatlas-other-parts"]
    write_folder(whole, [(9999, "hand", 0, 1)], texture)
    (whole / "images" / "Fractured").mkdir()
    listed, boxes = [], []
    for part in parts:
        for file in part.glob("images/*/*.jpg"):
            (whole / "images" / file.parent.name / file.name).symlink_to(file)
        listed += (part / "dataset.csv").read_text(encoding="utf-8").splitlines()[1:]
        boxes += list(csv.DictReader((part / "fractures.csv").read_text(encoding="utf-8").splitlines()))
    header = (parts[0] / "dataset.csv").read_text(encoding="utf-8").splitlines()[0]
    other = "IMG0009999.jpg" + ",1" + ",0" * (header.count(",") - 1)
    (whole / "dataset.csv").write_text("\n".join([header, *listed, other, ""]), encoding="utf-8")
    (whole / "fractures.csv").unlink()
    write_annotations(whole, boxes)

    nothing = tmp_path / "copies.csv"
    nothing.write_text("one,two\n", encoding="utf-8")
    for name, folders in (("published", [whole]), ("folders", parts)):
        script("fracatlas_table.py", *folders, "--out", tmp_path / name, "--copies", nothing)
    for table in ("cases", "fracatlas-upper-limb", "fracatlas-other-parts"):
        ours, theirs = (read_collection(tmp_path / name / f"{table}.csv") for name in ("published", "folders"))
        assert [Path(case.path).name for case in ours.cases] == [Path(case.path).name for case in theirs.cases]
        for field in ("label", "patient", "part", "view"):
            assert [getattr(c, field) for c in ours.cases] == [getattr(c, field) for c in theirs.cases], field
        first = [{case.study: n for n, case in reversed(list(enumerate(of.cases)))} for of in (ours, theirs)]
        assert [first[0][case.study] for case in ours.cases] == [first[1][case.study] for case in theirs.cases]
        for one, two in zip(boxes_of(ours), boxes_of(theirs), strict=True):
            assert np.allclose(one, two)
    assert sum(map(bool, boxes_of(ours))) > 100


def write_annotations(folder: Path, boxes: Sequence[dict[str, str]]) -> None:
    """COCO's JSON, where FracAtlas has it."""
    sizes = {box["image_id"]: (int(box["image_width"]), int(box["image_height"])) for box in boxes}
    numbers = {name: number for number, name in enumerate(sizes)}
    images = [{"id": numbers[name], "file_name": name, "width": w, "height": h} for name, (w, h) in sizes.items()]
    annotations = [
        {"id": n, "image_id": numbers[box["image_id"]], "bbox": [float(box[k]) for k in ("x", "y", "width", "height")]}
        for n, box in enumerate(boxes)
    ]
    folder_of_boxes = folder / "Annotations" / "COCO JSON"
    folder_of_boxes.mkdir(parents=True)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 0, "name": "fractured"}]}
    (folder_of_boxes / "COCO_fracture_masks.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_knee_that_is_called_a_hand_is_a_leg(texture: Draw, tmp_path: Path) -> None:
    write_folder(tmp_path / "upper", [(3700, "hand", 0, 1), (3768, "hand", 0, 2)], texture)
    write_folder(tmp_path / "lower", [(3900, "leg", 1, 3)], texture)
    nothing = tmp_path / "copies.csv"
    nothing.write_text("one,two\n", encoding="utf-8")
    for name, how in (("linked", ("--copies", nothing)), ("unlinked", ("--unlinked",))):
        script("fracatlas_table.py", tmp_path / "upper", tmp_path / "lower", "--out", tmp_path / name, *how)
    parts = {
        (name, table): {Path(case.path).stem[-4:]: case.part for case in read_collection(tmp_path / name / table).cases}
        for name in ("linked", "unlinked")
        for table in ("upper.csv", "lower.csv", "cases.csv")
    }
    assert parts["linked", "upper.csv"] == {"3700": "hand"}
    assert parts["linked", "lower.csv"] == {"3768": "leg", "3900": "leg"}
    assert parts["linked", "cases.csv"] == {"3700": "hand", "3768": "leg", "3900": "leg"}
    assert parts["unlinked", "upper.csv"] == {"3700": "hand", "3768": "hand"}


def test_studies_with_a_copy_in_another_fold_are_dropped(tmp_path: Path) -> None:
    """Twelve patients of two studies, one of them abnormal, in two folds; the good run is right, the bad one wrong."""
    rows = [
        (f"{n:02}{view}.png", ("normal", "abnormal")[view], f"p{n:02}", f"s{n:02}{view}")
        for n in range(12)
        for view in (0, 1)
    ]
    table = tmp_path / "cases.csv"
    for file, *_ in rows:
        (tmp_path / file).touch()
    table.write_text(
        "\n".join(",".join(row) for row in [("path", "label", "patient", "study"), *rows]), encoding="utf-8"
    )
    cases = read_collection(table).cases
    folds = dict(zip((case.patient for case in cases), patient_folds(cases, 2), strict=True))
    left, right = (sorted(patient for patient in folds if folds[patient] == number) for number in (0, 1))
    # Two normal studies of two folds share a radiograph, and two of one fold, of whom only the first two are dropped.
    pairs = [(left[0], right[0]), (left[1], left[2])]
    copies = tmp_path / "copies.csv"
    copies.write_text(
        "\n".join(["one,two", *(f"{one[1:]}0.png,{two[1:]}0.png" for one, two in pairs)]), encoding="utf-8"
    )
    for name, said in (("bad", 0.2), ("good", 0.9)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        calls = [
            Prediction(case.study, case.patient, case.label, score, 0.5, score, 0.5)
            for case in cases
            for score in [said if case.label else 1 - said]
        ]
        write_predictions(calls, folder / "calls.csv")
    (tmp_path / "runs" / "begun").mkdir()
    written = tmp_path / "gains.csv"
    given = ("--folds", "2", "--copies", copies, "--out", written)
    lines = script("compare_folds.py", table, tmp_path / "runs", *given).splitlines()
    assert lines[:6] == [
        "2 pairs of copies; copies in another fold: 2 studies of all parts",
        "all: 24 studies, 12 abnormal, of 10 patients",
        "no copy elsewhere: 22 studies, 12 abnormal, of 10 patients",
        "nor such a patient: 20 studies, 10 abnormal, of 9 patients",
        "AUROC of the classifier by fold: `bad` 0.000, 0.000",
        "AUROC of the classifier by fold: `good` 1.000, 1.000",
    ]
    perfect, wrong = "1.000*", "-1.000*"  # no resampling differs, so there is no interval
    figures = {line.split(" | ")[0]: line.rstrip(" |").split(" | ")[1:] for line in lines if line.startswith("| `")}
    assert list(figures) == [
        f"| {run}, {studies}"
        for run in ("`bad`", "`good`", "`good` - `bad`")
        for studies in ("all", "no copy elsewhere", "nor such a patient")
    ]
    assert figures["| `good`, no copy elsewhere"] == [perfect] * 4
    assert figures["| `bad`, all"][:2] == [wrong] * 2
    # 12 normal and 12 abnormal studies less 2 normal ones, all predicted wrongly: (0 - 0.496) / (1 - 0.496).
    assert figures["| `bad`, no copy elsewhere"][0].startswith("-0.984 ")
    assert figures["| `good` - `bad`, all"][0] == "+2.000*"
    assert figures["| `good` - `bad`, all"][2] == "+1.000*"
    assert "good,bad,all,vote,kappa,2.000,," in written.read_text(encoding="utf-8").splitlines()


def test_published_predictions_give_the_published_figures() -> None:
    """experiments/predictions.csv, resampled by the patients as inferred, gives figures of experiments/results.csv."""
    runs = dict(read_runs(ROOT / "experiments" / "predictions.csv"))
    with (ROOT / "experiments" / "results.csv").open(encoding="utf-8", newline="") as lines:
        published = [row for row in csv.DictReader(lines) if row["studies"] == "all, patients as inferred"]
    for run in ("mura-baseline", "after-crops-448-soup-looks-20"):
        estimates = resampled({run: runs[run]}, frozenset(one.study for one in runs[run])).estimates()
        for reader, metric in FIGURES:
            [row] = [r for r in published if (r["run"], r["reader"], r["metric"]) == (run, reader, metric)]
            assert estimates[f"{run} {reader}"][metric].value == pytest.approx(float(row["value"]), abs=0.0006)
