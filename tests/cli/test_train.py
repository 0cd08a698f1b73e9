"""`mura-search train`: which recipe and radiographs its options choose; training itself is tested elsewhere."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import training.data
import training.run
from retrieval.collection import Collection
from retrieval.rules import DEFAULTS
from training.recipe import Recipe

Run = Callable[..., Result]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `train` was called with, in place of training."""
    seen: dict[str, Any] = {}

    def load(collections: list[Collection], how: object, progress: object) -> tuple[str, list[tuple[str, str]]]:
        seen.update(collections=collections, how=how)
        return "the data", [("bad.png", "empty")]

    def train(data: object, recipe: object, out: Path, **options: Any) -> training.run.Trained:
        seen.update(data=data, recipe=recipe, out=out, **options)
        options["report"]("epoch", 1, 2, {"epoch": 1, "valid_auroc": 0.75})
        return training.run.Trained(out / "model", ({"epoch": 1.0, "valid_auroc": float("nan")},), 1e-6, DEFAULTS, 60.0)

    monkeypatch.setattr(training.data, "load_training_set", load)
    monkeypatch.setattr(training.run, "train", train)
    return seen


def test_options_make_the_recipe(run: Run, table: Path, tmp_path: Path, asked: Mapping[str, Any]) -> None:
    options = ["--backbone", "resnet50", "--dimension", "256", "--size", "224", "--epochs", "3", "--seed", "7"]
    result = run("train", table, "--out", tmp_path / "run", *options, "--from-scratch", "--name", "mine")
    assert result.exit_code == 0
    recipe = asked["recipe"]
    assert (recipe.backbone, recipe.dimension, recipe.size, recipe.epochs, recipe.seed) == ("resnet50", 256, 224, 3, 7)
    assert recipe.weights == ""
    assert (asked["out"], asked["name"]) == (tmp_path / "run", "mine")
    assert asked["provenance"]["synthetic"] is False
    assert f"--model {tmp_path / 'run' / 'model'}" in result.stdout
    assert "left out: bad.png: empty\n" in result.stderr
    assert "epoch 1 of 2: valid_auroc 0.750\n" in result.stderr


def test_without_options_the_recipe_is_the_default(
    run: Run, table: Path, tmp_path: Path, asked: Mapping[str, Any]
) -> None:
    result = run("train", table, "--out", tmp_path / "run", "--json")
    told = json.loads(result.stdout)
    assert told["model"] == str(tmp_path / "run" / "model")
    assert told["epochs"] == [{"epoch": 1.0, "valid_auroc": None}]
    assert asked["recipe"] == Recipe()


def test_a_recipe_of_an_earlier_run_and_options_before_it(
    run: Run, table: Path, tmp_path: Path, asked: Mapping[str, Any]
) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"recipe": {"backbone": "resnet50", "margin": 0.2}, "images": 9}), encoding="utf-8")
    assert run("train", table, "--out", tmp_path / "run", "--recipe", file, "--epochs", "2").exit_code == 0
    assert asked["recipe"] == Recipe(backbone="resnet50", margin=0.2, epochs=2)


@pytest.mark.parametrize("content", ['{"recipe": {"colour": 1}}', "[1]", "{", '{"dimension": "x"}'])
def test_a_bad_recipe_is_one_line(
    run: Run, table: Path, tmp_path: Path, asked: Mapping[str, Any], content: str
) -> None:
    (tmp_path / "recipe.json").write_text(content, encoding="utf-8")
    result = run("train", table, "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.json")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert not asked


@pytest.mark.parametrize(("options", "splits"), [([], {"train"}), (["--split", "valid"], {"valid"})])
def test_the_split_for_evaluation_is_left_alone(
    run: Run, table: Path, tmp_path: Path, asked: Mapping[str, Any], options: list[str], splits: set[str]
) -> None:
    rows = table.read_text(encoding="utf-8").splitlines()
    named = [f"{row},{'split' if i == 0 else 'valid' if 'ann' in row else 'train'}" for i, row in enumerate(rows)]
    table.write_text("\n".join(named), encoding="utf-8")
    assert run("train", table, "--out", tmp_path / "run", *options).exit_code == 0
    assert {case.split for case in asked["collections"][0].cases} == splits


def test_without_torch_it_names_the_extra(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "training.run")
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("train", table, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr == 'error: torch is not installed; run: pip install "mura-search[train]"\n'


def test_two_ways_to_start_exclude_each_other(run: Run, table: Path, tmp_path: Path) -> None:
    result = run("train", table, "--out", tmp_path / "run", "--from-scratch", "--weights", table)
    assert result.exit_code == 2
