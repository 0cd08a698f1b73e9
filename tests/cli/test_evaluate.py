"""`mura-search evaluate`."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import Result

from retrieval.datasets.collection import Collection

Run = Callable[..., Result]


@pytest.fixture
def others(squares: Callable[..., Collection]) -> Path:
    """Patients that are not indexed; the classifier and the vote take one normal study for abnormal."""
    collection = squares([("eve", "t1", 0, [30]), ("fay", "t2", 0, [225]), ("gus", "t3", 1, [210, 240])], "others")
    file = collection.root / "cases.csv"
    rows = [f"{case.case},{case.label_name},{case.patient},{case.study}" for case in collection.cases]
    file.write_text("\n".join(["path,label,patient,study", *rows]), encoding="utf-8")
    return file


def test_by_hand(run: Run, place: Path, others: Path) -> None:
    result = json.loads(run("evaluate", others, "--index", place, "--rounds", "50", "--json").stdout)
    assert (result["studies"], result["images"]) == (3, 4)
    for level, accuracy in (("study", 2 / 3), ("image", 3 / 4)):
        assert result[level]["classifier"]["accuracy"]["value"] == pytest.approx(accuracy)
        assert result[level]["classifier"]["sensitivity"]["value"] == 1
        assert result[level]["classifier"]["specificity"]["value"] == 0.5


def test_as_text(run: Run, place: Path, others: Path) -> None:
    result = run("evaluate", others, "--index", place, "--rounds", "50")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    heading = next(i for i, line in enumerate(lines) if line.startswith("by study: 3, 1 of them abnormal"))
    assert lines[heading + 1].split() == ["classifier", "vote", "mean", "of", "both"]
    accuracy = next(line for line in lines[heading:] if line.startswith("accuracy"))
    assert accuracy.split()[1] == "0.667"
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40  # one screen
    # Index of two normal and two abnormal studies: a random nearest one has the label with chance 1/2.
    assert next(line for line in lines if line.startswith("precision at 1 ")).endswith("by chance 0.500")
    assert "Classifier and vote agree on 3 of 3 studies, and are right on 66.7% of those." in lines


def test_near_duplicates_in_the_index_are_told(
    run: Run, texture: Callable[..., np.ndarray], model: Path, tmp_path: Path
) -> None:
    rows = []
    for name, label, seed in (
        ("a", 0, 1),
        ("b", 1, 2),
        ("c", 0, 3),
        ("d", 1, 4),
        ("e", 0, 3),
        ("f", 1, 5),
        ("g", 0, 6),
    ):
        assert cv2.imwrite(
            str(tmp_path / f"{name}.jpg"), texture(seed, 100 + 60 * label), (1, 95 if name < "e" else 80)
        )
        rows.append(f"{name}.jpg,{'abnormal' if label else 'normal'},{name},{name}")
    for table, of in (("indexed.csv", rows[:4]), ("asked.csv", rows[4:])):
        (tmp_path / table).write_text("\n".join(["path,label,patient,study", *of]), encoding="utf-8")
    place = tmp_path / "index"
    assert run("index", "build", tmp_path / "indexed.csv", "--index", place, "--model", model).exit_code == 0
    result = run("evaluate", tmp_path / "asked.csv", "--index", place, "--rounds", "5")
    lines = result.stdout.splitlines()
    at = lines.index("Studies with a near duplicate in the index: 1 of 3; --csv names them.")
    assert [line.split("  ")[0] for line in lines[at + 2 : at + 6]] == [
        "kappa, all", "kappa, 2 without", "AUROC, all", "AUROC, 2 without"
    ]  # fmt: skip
    assert max(map(len, lines)) <= 80
    copies = json.loads(run("evaluate", tmp_path / "asked.csv", "--index", place, "--json").stdout)["copies"]
    assert [(pair["case"], pair["indexed_case"]) for pair in copies["pairs"]] == [("e.jpg", "c.jpg")]
    assert copies["without"]["studies"] == 2


def test_parts_are_told_apart(run: Run, place: Path, others: Path) -> None:
    rows = others.read_text(encoding="utf-8").splitlines()
    parts = ["part", "hand", "wrist", "wrist", "wrist"]
    others.write_text("\n".join(f"{row},{part}" for row, part in zip(rows, parts, strict=True)), encoding="utf-8")
    result = json.loads(run("evaluate", others, "--index", place, "--rounds", "50", "--json").stdout)
    assert {part: (of["studies"], of["abnormal"]) for part, of in result["parts"].items()} == {
        "hand": (1, 0), "wrist": (2, 1)
    }  # fmt: skip
    assert result["parts"]["wrist"]["classifier"]["kappa"]["value"] == 0
    assert result["parts"]["hand"]["knn"]["kappa"]["value"] is None
    lines = run("evaluate", others, "--index", place, "--rounds", "50").stdout.splitlines()
    heading = lines.index("by part: kappa by study")
    assert lines[heading + 1].split() == ["part", "studies", "classifier", "vote"]
    assert next(line for line in lines[heading:] if line.startswith("wrist")).split()[1:3] == ["2", "(1)"]
    assert max(map(len, lines)) <= 80


def test_it_stops_where_patients_are_indexed(run: Run, place: Path, table: Path) -> None:
    result = run("evaluate", table, "--index", place)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: 4 of 4 patients are in the index")


def test_tables_are_written_whole_beside_what_is_printed(run: Run, place: Path, others: Path, tmp_path: Path) -> None:
    names = ("studies.csv", "figures.csv", "predictions.csv", "report.html")
    studies, figures, predicted, html = (tmp_path / name for name in names)
    given = ("--csv", studies, "--figures", figures, "--predictions", predicted, "--reader", "vote", "--html", html)
    result = run("evaluate", others, "--index", place, "--rounds", "20", "--json", *given)
    told = json.loads(result.stdout)
    assert result.stderr.splitlines() == [f"Wrote {file}" for file in (studies, figures, predicted, html)]
    rows = list(csv.DictReader(studies.read_text(encoding="utf-8").splitlines()))
    right = [row["vote_call"] == row["label"] for row in rows]
    assert sum(right) / len(rows) == pytest.approx(told["study"]["knn"]["accuracy"]["value"])
    assert predicted.read_text(encoding="utf-8") == "t1,0\nt2,1\nt3,1\n"
    assert f"<b>{told['study']['knn']['kappa']['value']:.3f}</b>" in html.read_text(encoding="utf-8")
    lines = [line.split(",") for line in figures.read_text(encoding="utf-8").splitlines()]
    kappa = next(line for line in lines if line[:4] == ["study", "", "mean", "kappa"])
    assert float(kappa[4]) == pytest.approx(told["study"]["mean"]["kappa"]["value"], abs=1e-6)


def test_a_study_without_a_prediction_is_said(run: Run, place: Path, others: Path, tmp_path: Path) -> None:
    (others.parent / "t2-1.png").write_bytes(b"none")
    predicted = tmp_path / "predictions.csv"
    result = run("evaluate", others, "--index", place, "--rounds", "5", "--predictions", predicted)
    assert predicted.read_text(encoding="utf-8") == "t1,0\nt3,1\n"
    assert f"studies that could not be read and have no line in {predicted}: 1" in result.stderr.splitlines()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--csv", "nowhere/x.csv"), "there is no folder nowhere"),
        (("--predictions", "folder"), "folder is a folder; name a file in it"),
        (("--csv", "x.csv", "--figures", "folder/../x.csv"), "the same file"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    run: Run, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    result = run("evaluate", "no-such-data", "--index", place, *given)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".csv"] == []
