"""Reading grids: what they stand for, and what is said of a faulty one."""

import csv
import re
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.experiments.grid import INCLUDED, VALUES, grid_named, read_grid
from training.recipe import Recipe

GOOD = """
title = "One"
folds = 3
part = "hand"
baseline = "a-64-false"

[recipe]
epochs = 2
weights = ""

[[run]]
name = "a-{size}-{clahe}"
size = [64, 96]
clahe = [false, true]

[[run]]
name = "b"
margin = 1

[[table]]
title = "Kappa"
rows = ["64", "96"]
columns = [{ title = "no CLAHE", run = "a-{row}-false", value = "valid.kappa", published = [0.5, nan] }]

[[figure]]
title = "Maps"
runs = ["a-64-true", "b"]
"""


def grid_of(folder: Path, text: str) -> Path:
    file = folder / "grid.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_lists_stand_for_all_combinations(tmp_path: Path) -> None:
    grid = read_grid(grid_of(tmp_path, GOOD))
    assert [run.name for run in grid.runs] == ["a-64-false", "a-64-true", "a-96-false", "a-96-true", "b"]
    assert grid.runs[1].recipe == Recipe(epochs=2, weights="", size=64, clahe=True)
    assert grid.runs[4].recipe == Recipe(epochs=2, weights="", margin=1.0)
    assert (grid.folds, grid.part, grid.baseline) == (3, "hand", "a-64-false")
    (column,) = grid.tables[0].columns
    assert [column.run_in(row) for row in grid.tables[0].rows] == ["a-64-false", "a-96-false"]
    assert [column.published_in(number) for number in (0, 1)] == [0.5, None]
    assert grid.figures[0].runs == ("a-64-true", "b")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('title = "One"', ""),  # replaced by nothing: title is missing
        ("folds = 3", "folds = 1"),
        ("folds = 3", 'folds = "three"'),
        ("folds = 3", "fold = 3"),
        ("epochs = 2", "epoch = 2"),
        ("epochs = 2", "epochs = 2.5"),
        ("epochs = 2", "dimension = 64"),
        ("size = [64, 96]", "size = []"),
        ('name = "b"', 'name = "A-64-TRUE"'),
        ('name = "b"', 'name = "../b"'),
        ('name = "b"', 'name = "{nothing}"'),
        ('value = "valid.kappa"', 'value = "valid.beauty"'),
        ("[0.5, nan]", "[0.5]"),
        ('"a-64-true", "b"', '"a-64-true", "c"'),
        ('baseline = "a-64-false"', 'baseline = "z"'),
        ("[[figure]]", "[[figure]"),
    ],
)
def test_faults_are_told_with_the_file(tmp_path: Path, change: str, told: str) -> None:
    assert change in GOOD
    file = grid_of(tmp_path, GOOD.replace(change, told, 1))
    with pytest.raises(TrainingError, match=re.escape(str(file))):
        read_grid(file)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'title = "\xe9"')
    for place in (tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(TrainingError, match=re.escape(str(place))):
            read_grid(place)
    with pytest.raises(TrainingError, match=r"there is no grid nothing; give a TOML file or one of: .*report"):
        grid_named("nothing")


@pytest.mark.parametrize("file", sorted(INCLUDED.glob("*.toml")), ids=lambda file: file.stem)
def test_included_grids_read(file: Path) -> None:
    grid = read_grid(grid_named(file.stem))
    assert grid.runs
    assert all(column.value in VALUES for table in grid.tables for column in table.columns)


PUBLISHED = """
5.1,0.206,0.201,0.0777,0.2072,0.1937,0.1858,0.0750,0.1911
5.2,0.635,0.496,0.929,0.722,0.678,0.668,0.946,0.744
5.3,0.364,0.503,0.069,0.277,0.362,0.331,0.053,0.255
5.4,0.053,0.082,0.851,0.449,0.093,0.333,0.887,0.491
5.5,0.0777,0.207,0.087,0.208,0.0750,0.1911,0.066,0.188
5.6,0.929,0.722,0.9375,0.780,0.946,0.744,0.9508,0.752
5.7,0.069,0.277,0.062,0.249,0.053,0.255,0.048,0.264
5.8,0.851,0.449,0.868,0.504,0.887,0.491,0.896,0.476
5.9,0.0777,0.207,0.020,0.0401,0.0750,0.1911,0.024,0.0402
5.10,0.929,0.722,0.746,0.679,0.946,0.744,0.719,0.692
5.11,0.069,0.277,0.264,0.321,0.053,0.255,0.274,0.3210
5.12,0.851,0.449,0.403,0.374,0.887,0.491,0.408,0.374
"""


@pytest.mark.parametrize("name", ["report", "report-reduced"])
def test_the_reports_grid_has_its_tables_and_figures(name: str) -> None:
    """The published numbers, typed from the report a second time."""
    grid = read_grid(grid_named(name))
    for line, table in zip(csv.reader(PUBLISHED.strip().splitlines()), grid.tables, strict=True):
        assert table.title.startswith(f"Table {line[0]}:")
        assert table.rows == ("256", "128")
        found = [column.published_in(row) for row in (0, 1) for column in table.columns]
        assert found == [float(number) for number in line[1:]]
    assert [figure.title.split(":")[0] for figure in grid.figures] == ["Figure 5.1", "Figure 5.2"]
    assert len(grid.runs) == 8
