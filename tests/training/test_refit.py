"""Calibrated on held-out patients, then trained once more on them, too."""

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import training.export.bundle
import training.loop.run
from index.case import Case
from retrieval.decision.rules import Rules
from retrieval.encoding.bundle import Bundle, digest_number
from training.data.dataset import TrainingSet
from training.errors import TrainingError
from training.loop.run import divide, train
from training.model.backbone import load_backbone
from training.recipe import Recipe


@pytest.fixture
def once(recipe: Recipe) -> Recipe:
    return replace(recipe, patience=0, epochs=1)


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rules as if they were learned, for which there are too few studies here; how many radiographs were barred."""
    barred: list[int] = []

    def learned(cases: list[Case], *rest: object, trained_on: set[int], **more: object) -> Rules:
        barred.append(len(trained_on))
        return Rules(k=7, classifier_threshold=0.25, source="learned on whom the model was not trained")

    monkeypatch.setattr(training.export.bundle, "learn_rules", learned)
    return barred


def test_the_network_is_that_of_everybody_and_the_rules_are_those_of_the_held_out(
    blobs: TrainingSet, once: Recipe, rules: list[int], tmp_path: Path
) -> None:
    plain = train(blobs, once, tmp_path / "plain")
    refit = train(blobs, replace(once, refit=True), tmp_path / "refit")
    assert plain is not None
    assert refit is not None
    learning, _ = divide(blobs, once)
    assert rules == [len(learning.cases)] * 2
    assert refit.rules == replace(
        plain.rules, source="learned on whom the model was not trained; it was trained on them afterwards"
    )
    bundle = Bundle.open(refit.model)
    assert bundle.rules == refit.rules.to_dict()
    assert bundle.seen() == {digest_number(case.digest) for case in blobs.cases}
    assert (refit.model / "encoder.onnx").read_bytes() != (plain.model / "encoder.onnx").read_bytes()
    first, again = refit.epochs
    assert [first] == list(plain.epochs)
    assert (again["epoch"], "valid_kappa" in first, "valid_kappa" in again) == (2, True, False)
    header, *rows = (tmp_path / "refit" / "metrics.csv").read_text().splitlines()
    assert (len(rows), rows[1].count(","), header.count(",")) == (2, header.count(","), rows[0].count(","))
    left = {file.name for file in (tmp_path / "refit").iterdir()}
    assert left == {"done.json", "metrics.csv", "metrics.svg", "model", "recipe.json"}


def test_what_everybody_taught_is_what_no_holdout_would_have(
    blobs: TrainingSet, once: Recipe, rules: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second network is the one of a run that learns from all patients from the start."""
    refit = train(blobs, replace(once, refit=True), tmp_path / "refit")
    monkeypatch.setattr(training.loop.run, "_divided", lambda cases, recipe: (list(range(len(cases))), list(range(8))))
    whole = train(blobs, once, tmp_path / "whole")
    assert refit is not None
    assert whole is not None
    names = ("triplet", "regions")
    assert [refit.epochs[1][name] for name in names] == [whole.epochs[0][name] for name in names]
    for file in ("head.safetensors", "seen.safetensors"):
        assert (refit.model / file).read_bytes() == (whole.model / file).read_bytes()


@pytest.mark.parametrize(("soup", "stage", "step"), [(1, "train", 3), (1, "refit", 3), (2, "refit", 9)])
def test_an_interrupted_run_goes_on_to_the_same_result(
    blobs: TrainingSet, once: Recipe, tmp_path: Path, soup: int, stage: str, step: int
) -> None:
    if soup > 1:
        torch.manual_seed(5)
        torch.save(load_backbone(once.backbone, "")[0].state_dict(), tmp_path / "weights.pth")
        once = replace(once, weights=str(tmp_path / "weights.pth"), soup=soup)
    recipe = replace(once, refit=True)

    def interrupt(name: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if (name, done) == (stage, step):
            signal.raise_signal(signal.SIGTERM)

    whole = train(blobs, recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(blobs, recipe, tmp_path / "parts", report=interrupt)
    assert (tmp_path / "parts" / "refit").exists() == (stage == "refit")
    resumed = train(blobs, recipe, tmp_path / "parts", resume=True)
    assert whole is not None
    assert resumed is not None
    assert resumed.epochs == whole.epochs
    assert (resumed.model / "head.safetensors").read_bytes() == (whole.model / "head.safetensors").read_bytes()


def test_who_trains_on_everybody_cannot_stop_early(recipe: Recipe) -> None:
    with pytest.raises(TrainingError, match="give patience 0"):
        replace(recipe, refit=True, patience=2)
