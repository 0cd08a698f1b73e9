"""`mura-search phantom`."""

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from retrieval.datasets.collection import read_collection

Run = Callable[..., Result]


def test_it_says_what_it_drew(run: Run, tmp_path: Path) -> None:
    options = ["--patients", "5", "--seed", "3", "--abnormal", "0.5", "--valid", "0.2"]
    told = json.loads(run("phantom", tmp_path / "drawn", *options, "--json").stdout)
    drawn = read_collection(tmp_path / "drawn")
    assert drawn.synthetic
    assert told["patients"] == len({case.patient for case in drawn.cases}) == 5
    assert told["radiographs"] == len(drawn.cases)
    assert told["studies"] == len({case.study for case in drawn.cases})
    assert told["abnormal_studies"] == len({case.study for case in drawn.cases if case.label == 1})
    assert {case.split for case in drawn.cases} == {"train", "valid"}


def test_as_text(run: Run, tmp_path: Path) -> None:
    result = run("phantom", tmp_path / "drawn", "--patients", "1", "--valid", "0")
    assert result.exit_code == 0
    assert "synthetic" in result.stdout


def test_a_folder_that_holds_something_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    result = run("phantom", tmp_path, "--patients", "1")
    assert result.exit_code == 1
    assert "already holds something" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
