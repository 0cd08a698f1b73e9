"""`mura-search train`: which recipe and radiographs its options choose; training itself is tested elsewhere."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import training.data.dataset
import training.loop.run
from cli.train import duration, training_collection
from index.case import Case
from retrieval.datasets.collection import Collection
from retrieval.decision.rules import DEFAULTS
from training.loop.cost_estimate import Plan
from training.recipe import Recipe

Run = Callable[..., Result]
PLAN = Plan(
    device="2 CPU threads",
    precision="float32",
    parameters=14_000_000,
    trained_parameters=12_500_000,
    step_seconds=2.0,
    memory_bytes=3 << 30,
    learning=800,
    holdout=200,
    steps=25,
    epochs=20,
    crop_steps=30,
    crop_epochs=4,
    soup=1,
    processes=1,
    seconds=1100.0,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `train` was called with, in place of training."""
    seen: dict[str, Any] = {}

    def load(
        collections: list[Collection], how: object, progress: object, *, cache: Path | None, processing: float
    ) -> tuple[str, list[tuple[str, str]]]:
        seen.update(collections=collections, how=how, cache=cache)
        return "the data", [("bad.png", "empty")]

    def train(data: object, recipe: object, out: Path, options: Any, report: Any) -> training.loop.run.Trained:
        seen.update(data=data, recipe=recipe, out=out, **{name: getattr(options, name) for name in options.__slots__})
        report("plan", 0, 0, {"seconds": 3600.0, "memory_bytes": 3 * 2**30, "step_seconds": 1.25})
        report("epoch", 1, 2, {"epoch": 1, "valid_auroc": 0.75})
        return training.loop.run.Trained(
            out / "model", ({"epoch": 1.0, "valid_auroc": float("nan")},), 1e-6, DEFAULTS, 60.0
        )

    monkeypatch.setattr(training.data.dataset, "load_training_set", load)

    def plan_run(cases: list[Case], recipe: Recipe, *, offline: bool) -> tuple[Plan, str]:
        seen.update(listed=[case.case for case in cases], offline=offline)
        return PLAN, "planned with random weights" if offline else ""

    monkeypatch.setattr(training.loop.run, "train", train)
    monkeypatch.setattr(training.loop.run, "plan_run", plan_run)
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
    # What is to come is told once, before anything is read.
    assert result.stderr.count("at most") == 1
    first, second, *_ = result.stderr.splitlines()
    assert first.startswith("learning from 1 normal and 1 abnormal radiographs of 2 patients; held out for validation")
    assert second == "about 18 min at most, 3.0 GiB (2.00 s a step)"
    assert asked["trial"] is PLAN
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


@pytest.mark.parametrize(
    ("head", "classification", "second_stage"), [("two-stage", 0, True), ("joint", 1, False), ("both", 1, True)]
)
def test_the_head_the_loss_and_the_rest_by_name(
    run: Run,
    table: Path,
    tmp_path: Path,
    asked: Mapping[str, Any],
    head: str,
    classification: float,
    second_stage: bool,
) -> None:
    words = ["--head", head, "--loss", "focal", "--no-clahe", "--patience", "0", "--test-time", "mirror"]
    assert run("train", table, "--out", tmp_path / "run", "--cache", tmp_path / "c", *words).exit_code == 0
    recipe = asked["recipe"]
    assert (recipe.classification, recipe.second_stage) == (classification, second_stage)
    assert (recipe.loss, recipe.clahe, recipe.patience, recipe.test_time) == ("focal", False, 0, "mirror")
    assert asked["cache"] == tmp_path / "c"
    assert asked["resume"] is False


def test_unknown_names_are_refused(run: Run, table: Path, tmp_path: Path, asked: Mapping[str, Any]) -> None:
    assert run("train", table, "--out", tmp_path / "run", "--head", "three").exit_code == 2
    result = run("train", table, "--out", tmp_path / "run", "--loss", "quadruplet")
    assert result.exit_code == 1
    names = "'batch-hard', 'focal', 'neighbourhood', 'selective', 'semi-hard' or 'triplet'"
    assert f"loss must be {names}, not 'quadruplet'" in result.stderr
    assert not asked


def test_a_run_is_gone_on_with_by_its_own_recipe(
    run: Run, table: Path, tmp_path: Path, asked: Mapping[str, Any]
) -> None:
    (tmp_path / "run").mkdir()
    made = Recipe(margin=0.4, size=96, epochs=3)
    (tmp_path / "run" / "recipe.json").write_text(json.dumps({"recipe": made.to_dict()}), encoding="utf-8")
    assert run("train", table, "--out", tmp_path / "run", "--resume").exit_code == 0
    assert asked["recipe"] == made
    assert (asked["resume"], asked["trial"]) == (True, None)
    result = run("train", table, "--out", tmp_path / "other", "--resume")
    assert result.exit_code == 1
    assert "no run to continue" in result.stderr


def test_a_dry_run_shows_the_plan_and_trains_nothing(
    run: Run, table: Path, tmp_path: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = PLAN
    result = run("train", table, "--out", tmp_path / "run", "--dry-run")
    assert result.exit_code == 0
    assert "planned with random weights" in result.stderr
    assert "4 epochs of 30 steps on crops, then 20 epochs of 25 steps" in result.stdout.replace("\n", " ")
    assert "1 x 2 CPU threads, float32: about 18 min, 3.0 GiB" in result.stdout
    told = json.loads(run("train", table, "--out", tmp_path / "run", "--dry-run", "--json").stdout)
    assert (told["step_seconds"], told["recipe"]["loss"]) == (2.0, "triplet")
    monkeypatch.setattr(training.loop.run, "plan_run", lambda *_, **__: (replace(plan, soup=3, crop_epochs=0), ""))
    result = run("train", table, "--out", tmp_path / "run", "--dry-run")
    assert "3 runs of 20 epochs of 25 steps" in result.stdout.replace("\n", " ")
    assert set(asked) == {"listed", "offline"}  # nothing was read
    assert not (tmp_path / "run").exists()


def test_times_are_told_no_more_exactly_than_they_are_known() -> None:
    assert [duration(seconds) for seconds in (7, 89, 90, 3600, 9000)] == ["7 s", "89 s", "2 min", "60 min", "2.5 h"]


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
    run: Run, tmp_path: Path, asked: Mapping[str, Any], options: list[str], splits: set[str]
) -> None:
    rows = [f"{p}.png,{p % 2},p{p},{'train' if p < 4 else 'valid'}" for p in range(8)]
    for p in range(8):
        (tmp_path / f"{p}.png").touch()
    (tmp_path / "cases.csv").write_text("\n".join(["path,label,patient,split", *rows]), encoding="utf-8")
    assert run("train", tmp_path / "cases.csv", "--out", tmp_path / "run", *options).exit_code == 0
    assert {case.split for case in asked["collections"][0].cases} == splits


@pytest.mark.parametrize("option", ["--resume", "--dry-run", "--json"])
def test_what_labels_alone_decide_is_said_before_anything_is_read(
    run: Run, tmp_path: Path, asked: Mapping[str, Any], option: str
) -> None:
    rows = [f"{p}.png,{int(p == 0)},p{p}" for p in range(8)]
    for p in range(8):
        (tmp_path / f"{p}.png").touch()
    (tmp_path / "cases.csv").write_text("\n".join(["path,label,patient", *rows]), encoding="utf-8")
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": Recipe().to_dict()}), encoding="utf-8")
    result = run("train", tmp_path / "cases.csv", "--out", tmp_path, option)
    assert result.exit_code == 1
    assert "error: no abnormal radiograph" in result.stderr
    assert not asked


def test_without_torch_it_names_the_extra(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "training.loop.run")
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("train", table, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr == 'error: torch is not installed; run: pip install "mura-search[train]"\n'


def test_two_ways_to_start_exclude_each_other(run: Run, table: Path, tmp_path: Path) -> None:
    result = run("train", table, "--out", tmp_path / "run", "--from-scratch", "--weights", table)
    assert result.exit_code == 2


def test_what_labels_mean_and_what_is_missing_is_said(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["path,label", *(f"{number}.png,{('fracture', 'no')[number % 2]}" for number in range(8))]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for number in range(7):
        (tmp_path / f"{number}.png").touch()
    words = ("train", tmp_path / "t.csv", "--out", tmp_path / "run", "--dry-run")
    assert "say what they mean with --labels-are" in run(*words).stderr
    assert run(*words, "--labels-are", "fracture").exit_code == 2
    assert len(training_collection(tmp_path / "t.csv", None, None, None, "fracture=1,no=0").cases) == 8
    assert "files that are missing: 1 of 8 (7.png)" in capsys.readouterr().err
