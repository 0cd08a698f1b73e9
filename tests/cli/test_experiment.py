"""`mura-search experiment`: what it passes on and prints; runs themselves are tested elsewhere."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import training.experiments.experiment
from index.errors import MuraSearchError

Run = Callable[..., Result]
ESTIMATE = {"value": 0.5, "low": 0.25, "high": 0.75}
DONE = {
    "name": "tiny-triplet",
    "study": {"classifier": {"kappa": ESTIMATE}, "knn": {"kappa": {"value": None, "low": None, "high": None}}},
    "retrieval": {"precision_at_5": {"value": 0.8, "low": None, "high": None}},
}
FAILED = {"name": "tiny-focal", "error": "no room"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: dict[str, Any] = {"results": [DONE, FAILED]}

    def run_experiment(
        grid: object, judged: object, others: Sequence[object], out: Path, **options: Any
    ) -> list[Mapping[str, Any]]:
        seen.update(grid=grid, judged=judged, others=others, out=out, **options)
        options["tell"]("run 1 of 2, tiny-triplet: begun")
        if isinstance(seen["results"], MuraSearchError):
            raise seen["results"]
        results: list[Mapping[str, Any]] = seen["results"]
        return results

    monkeypatch.setattr(training.experiments.experiment, "run_experiment", run_experiment)
    return seen


def test_runs_as_a_table(run: Run, table: Path, tmp_path: Path, asked: Mapping[str, Any]) -> None:
    result = run("experiment", "smoke", table, table, "--out", tmp_path / "out", "--cache", tmp_path / "c")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert lines["tiny-triplet"].split() == ["tiny-triplet", "0.500", "(0.250", "to", "0.750)", "undefined", "0.800"]
    assert "failed: no room" in lines["tiny-focal"]
    assert str(tmp_path / "out" / "report.html") in result.stdout.replace("\n", "")
    assert "run 1 of 2, tiny-triplet: begun\n" in result.stderr
    assert (asked["out"], asked["cache"], asked["grid"].title) == (tmp_path / "out", tmp_path / "c", "Smoke test")
    assert len(asked["others"]) == 1


def test_as_json(run: Run, table: Path, tmp_path: Path, asked: Mapping[str, Any]) -> None:
    told = json.loads(run("experiment", "smoke", table, "--out", tmp_path, "--json").stdout)
    assert told["runs"] == [DONE, FAILED]


def test_it_fails_where_every_run_has(run: Run, table: Path, tmp_path: Path, asked: dict[str, Any]) -> None:
    asked["results"] = [FAILED]
    assert run("experiment", "smoke", table, "--out", tmp_path).exit_code == 1


def test_an_unknown_grid_names_the_included_ones(run: Run, table: Path, tmp_path: Path) -> None:
    result = run("experiment", "grand", table, "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: there is no grid grand; give a TOML file or one of: ")
    assert "smoke" in result.stderr
