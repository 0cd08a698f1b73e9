"""`mura-search evaluate`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from retrieval.collection import Collection

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
    assert "They agree on 3 of 3 studies, and are right on 66.7% of those." in lines


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
