"""A grid of the tiny network on synthetic radiographs, from end to end."""

import csv
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.reader import IndexReader
from retrieval.datasets.collection import Collection, read_collection
from retrieval.synthetic.dataset import write_collection
from training.errors import TrainingError
from training.experiments.experiment import run_experiment
from training.experiments.grid import Grid, grid_named, read_grid


def table(place: Path, radiographs: Path, *, other: str = "") -> Collection:
    """A case table at PLACE of the phantoms in RADIOGRAPHS, named relative to it, but for files called `other`."""
    listed = read_collection(radiographs)
    place.mkdir(parents=True)
    with (place / "cases.csv").open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(["path", "label", "patient", "study", "part", "view", "split"])
        for case in listed.cases:
            path = os.path.relpath(case.path, place) if Path(case.path).name != other else case.path
            rows.writerow([path, case.label_name, case.patient, case.study, case.part, case.view, case.split])
    return read_collection(place / "cases.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("experiment")


@pytest.fixture(scope="module")
def phantoms(folder: Path) -> Collection:
    """A case table of synthetic radiographs in another folder."""
    write_collection(folder / "here" / "phantoms", patients=36, seed=1, abnormal=0.5, valid=0.3)
    return table(folder / "tables", folder / "here" / "phantoms")


@pytest.fixture(scope="module")
def grid() -> Grid:
    return read_grid(grid_named("smoke"))


@pytest.fixture(scope="module")
def finished(grid: Grid, phantoms: Collection, folder: Path) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The results of the whole grid, in `folder / "out"`, and what was reported meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MURA_SEARCH_CACHE", str(folder / "cache"))
        sentences: list[str] = []
        return run_experiment(grid, phantoms, [], folder / "out", tell=sentences.append), sentences


@pytest.fixture
def out(finished: object, folder: Path, tmp_path: Path) -> Path:
    """A copy of the finished grid."""
    return shutil.copytree(folder / "out", tmp_path / "out")


def files(folder: Path) -> Mapping[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_a_grid_ends_in_a_report_and_is_not_run_twice(
    grid: Grid, phantoms: Collection, finished: tuple[list[Mapping[str, Any]], list[str]], out: Path
) -> None:
    results, told = finished
    names = [run.name for run in grid.runs]
    assert [result["name"] for result in results] == names
    assert [text.split(", ")[1] for text in told] == [f"{name}: begun" for name in names]
    valid = phantoms.select(split="valid")
    for result in results:
        assert (result["studies"], result["images"]) == (len({c.study for c in valid.cases}), len(valid.cases))
        assert result["valid"]["accuracy"] + result["valid"]["error"] == pytest.approx(1)
        # The figure by image that the report tabulates is the one that `evaluate` would give.
        assert result["valid"]["kappa"] == pytest.approx(result["image"]["classifier"]["kappa"]["value"])
        stored = np.load(out / "runs" / result["name"] / "embeddings.npz")
        assert sorted(stored) == ["embeddings", "labels"]
        assert np.bincount(stored["labels"]).tolist() == np.bincount([case.label for case in valid.cases]).tolist()
        assert stored["embeddings"].shape == (len(valid.cases), 128)
    for file in ("report.md", "report.html", "results.csv"):
        assert (out / file).stat().st_size > 500
    with (out / "results.csv").open(encoding="utf-8") as lines:
        assert len(list(csv.DictReader(lines))) == len(names)

    before = files(out / "runs")
    told = []
    again = run_experiment(grid, phantoms, [], out, tell=told.append)
    assert again == json.loads(json.dumps(results))
    assert all(text.endswith("done already") for text in told)
    assert files(out / "runs") == before
    run = replace(grid.runs[0], recipe=replace(grid.runs[0].recipe, seed=9))
    changed = replace(grid, runs=(run,), tables=(), figures=())
    with pytest.raises(TrainingError, match="another recipe or other data"):
        run_experiment(changed, phantoms, [], out)


def test_folds_judge_every_study_once_by_a_model_that_has_not_met_its_patient(
    grid: Grid, phantoms: Collection, tmp_path: Path
) -> None:
    run = replace(grid.runs[0], recipe=replace(grid.runs[0].recipe, holdout=0.5))
    small = replace(grid, folds=2, runs=(run,), tables=(), figures=())
    (result,) = run_experiment(small, phantoms, [], tmp_path)
    assert "error" not in result
    assert result["studies"] == len({case.study for case in phantoms.cases})
    assert result["images"] == len(phantoms.cases)
    indexed: list[set[str]] = []
    for number in (1, 2):
        with IndexReader.open(tmp_path / "runs" / small.runs[0].name / f"fold-{number}" / "index") as index:
            indexed.append({case.patient for case in index.cases()})
    everybody = {case.patient for case in phantoms.cases}
    assert indexed[0] | indexed[1] == everybody
    assert not indexed[0] & indexed[1]  # of two folds each indexes the other


@pytest.mark.slow
def test_an_interrupted_grid_goes_on(grid: Grid, phantoms: Collection, tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "epoch" and len(list(tmp_path.glob("runs/*/result.json"))) == 1:
            raise KeyboardInterrupt

    two = replace(grid, runs=grid.runs[:2], tables=(), figures=())
    with pytest.raises(KeyboardInterrupt):
        run_experiment(two, phantoms, [], tmp_path, report=interrupt)
    told: list[str] = []
    results = run_experiment(two, phantoms, [], tmp_path, tell=told.append)
    assert told[0].endswith("done already")
    assert [text.split(": ")[1] for text in told[1:]] == ["begun"]
    assert all("error" not in result for result in results)


def test_other_data_is_another_grid(
    grid: Grid, phantoms: Collection, finished: tuple[list[Mapping[str, Any]], list[str]], out: Path
) -> None:
    only = replace(grid, runs=grid.runs[:1], tables=(), figures=())
    done = finished[0][0]
    assert (done["folds"], done["part"]) == (0, "")
    (part,) = {case.part for case in phantoms.cases}
    with pytest.raises(TrainingError, match="another recipe or other data"):
        run_experiment(replace(only, part=part), phantoms, [], out)
    first, *rest = phantoms.cases
    moved = replace(phantoms, cases=(replace(first, part="elsewhere"), *rest))
    with pytest.raises(TrainingError, match="another recipe or other data"):
        run_experiment(only, moved, [], out)


def test_the_same_data_elsewhere_is_the_same_grid(
    grid: Grid,
    phantoms: Collection,
    finished: tuple[list[Mapping[str, Any]], list[str]],
    folder: Path,
    out: Path,
    tmp_path: Path,
) -> None:
    only = replace(grid, runs=grid.runs[:1], tables=(), figures=())
    shutil.copytree(folder / "here" / "phantoms", tmp_path / "far" / "away" / "copied")
    name = Path(phantoms.cases[0].path).name
    second = table(tmp_path / "other" / "tables" / "deep", tmp_path / "far" / "away" / "copied", other=name)
    assert second.cases[0].case == second.cases[0].path != phantoms.cases[0].case
    assert run_experiment(only, second, [], out) == [json.loads(json.dumps(finished[0][0]))]
    first, *rest = second.cases
    renamed = replace(second, cases=(replace(first, case=f"{first.case}.png"), *rest))
    with pytest.raises(TrainingError, match="another recipe or other data"):
        run_experiment(only, renamed, [], out)
    with pytest.raises(TrainingError, match="another recipe or other data"):
        run_experiment(only, second, [phantoms], out)


def test_a_run_that_fails_is_told_and_the_others_go_on(grid: Grid, phantoms: Collection, tmp_path: Path) -> None:
    bad = replace(grid.runs[0], recipe=replace(grid.runs[0].recipe, frozen_until="no such layer"))
    told: list[str] = []
    results: list[Mapping[str, Any]] = run_experiment(
        replace(grid, runs=(bad, grid.runs[2]), tables=(), figures=()), phantoms, [], tmp_path, tell=told.append
    )
    assert "no such layer" in results[0]["error"]
    assert "kappa" in results[1]["valid"]
    assert any("failed" in text for text in told)
    assert "no such layer" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert not (tmp_path / "runs" / bad.name / "result.json").exists()


@pytest.mark.slow
def test_too_many_folds_and_other_parts(grid: Grid, phantoms: Collection, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="too few patients for 50 folds"):
        run_experiment(replace(grid, folds=50), phantoms, [], tmp_path)
    half = tuple(replace(case, part="hand") if int(case.patient[-1]) % 2 else case for case in phantoms.cases)
    mixed = replace(phantoms, cases=half)
    only = replace(grid, part="hand", runs=grid.runs[:1], tables=(), figures=())
    (result,) = run_experiment(only, mixed, [], tmp_path)
    assert list(result["parts"]) == ["hand"]
    with IndexReader.open(tmp_path / "runs" / only.runs[0].name / "fold-1" / "index") as index:
        assert {case.part for case in index.cases()} == {"hand"}
    record = json.loads((tmp_path / "runs" / only.runs[0].name / "fold-1" / "recipe.json").read_text())
    assert record["images"] == len([case for case in half if case.split == "train"])
