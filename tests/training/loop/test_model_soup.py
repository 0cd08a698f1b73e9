import copy
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.data.dataset import TrainingSet
from training.distributed import joined
from training.errors import TrainingError
from training.loop.cost_estimate import make_plan, try_step
from training.loop.model_soup import fit_soup, mean_weights
from training.loop.run import Division, RunOptions, Trained, train
from training.loop.trainer import Trainer
from training.model.backbone import load_backbone
from training.model.siamese import Siamese
from training.recipe import Recipe


@pytest.fixture(scope="module")
def pretrained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Two runs of one epoch, from weights in a file."""
    torch.manual_seed(5)
    network, _ = load_backbone(recipe.backbone, "")
    weights = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(network.state_dict(), weights)
    return replace(recipe, weights=str(weights), epochs=1, soup=2)


@pytest.fixture(scope="module")
def whole(blobs: TrainingSet, pretrained: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A soup that nothing interrupted; its checkpoints are removed."""
    folder = tmp_path_factory.mktemp("soup")
    trained = train(blobs, pretrained, folder / "whole")
    assert trained is not None
    assert not list(folder.glob("*/*.pt"))
    return trained


def quiet(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    pass


def test_the_mean_of_weights_is_by_number_and_counters_stay() -> None:
    one = {"w": torch.tensor([1.0, 4.0]), "steps": torch.tensor(3)}
    two = {"w": torch.tensor([2.0, -4.0]), "steps": torch.tensor(9)}
    three = {"w": torch.tensor([6.0, 6.0]), "steps": torch.tensor(9)}
    mean = mean_weights([one, two, three])
    assert mean["w"].tolist() == [3.0, 2.0]
    assert (mean["w"].dtype, mean["steps"].item()) == (torch.float32, 3)


def test_a_soup_is_the_mean_of_runs_from_one_start(blobs: TrainingSet, pretrained: Recipe, tmp_path: Path) -> None:
    division = Division.of_cases(blobs.cases, pretrained)
    learning, holdout = blobs.rows(np.array(division.learning)), blobs.rows(np.array(division.holdout))
    backbone, channels = load_backbone(pretrained.backbone, pretrained.weights)
    start = Siamese(backbone, channels, pretrained.dimension, pretrained.hidden)
    before = copy.deepcopy(start.state_dict())
    trial = try_step(start, pretrained, torch.device("cpu"))
    plan = make_plan(trial, pretrained, learning=len(learning.cases), holdout=len(holdout.cases))
    told: list[tuple[int, int]] = []

    def report(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "epoch":
            told.append((done, total))

    with joined() as world:
        trainer = Trainer(
            learning=learning, holdout=holdout, recipe=pretrained, plan=plan, checkpoint=tmp_path / "checkpoint.pt",
            world=world, report=report,
        )  # fmt: skip
        epochs, soup = fit_soup(start, trainer)
        alone = []
        for number in range(2):
            recipe = replace(pretrained, seed=pretrained.seed + number)
            own = replace(trainer, recipe=recipe, checkpoint=tmp_path / f"alone-{number}.pt", report=quiet)
            alone.append(own.fit(copy.deepcopy(start)))
    first, second = (model.state_dict() for _, model in alone)
    name = "head.projection.weight"
    assert not torch.equal(first[name], second[name])  # they drew other batches
    for name, value in soup.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (first[name] + second[name]) / 2, msg=name)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert [epoch["triplet"] for epoch in epochs] == [figures[0]["triplet"] for figures, _ in alone]
    assert told == [(1, 2), (2, 2)]
    for name, value in start.state_dict().items():
        assert torch.equal(value, before[name]), name


# In the first run, and in the second.
@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 6])
def test_an_interrupted_soup_goes_on_to_the_same_result(
    blobs: TrainingSet, pretrained: Recipe, whole: Trained, tmp_path: Path, step: int
) -> None:
    def interrupt(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "train" and done == step:
            assert total == 10
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train(blobs, pretrained, tmp_path / "parts", report=interrupt)
    left = {file.name for file in (tmp_path / "parts").glob("*.pt")}
    assert left == ({"checkpoint.pt"} if step < 5 else {"checkpoint.pt", "member-1.pt"})
    resumed = train(blobs, pretrained, tmp_path / "parts", RunOptions(resume=True))
    assert resumed is not None
    assert resumed.epochs == whole.epochs
    assert (resumed.model / "head.safetensors").read_bytes() == (whole.model / "head.safetensors").read_bytes()
    assert not list(tmp_path.glob("*/*.pt"))


def test_a_soup_killed_before_a_checkpoint_was_removed_has_no_member_twice(
    blobs: TrainingSet, pretrained: Recipe, whole: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def kill(*rest: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", kill)
        with pytest.raises(Killed):
            train(blobs, pretrained, tmp_path / "parts")
    assert {file.name for file in (tmp_path / "parts").glob("*.pt")} == {"checkpoint.pt", "member-1.pt"}
    resumed = train(blobs, pretrained, tmp_path / "parts", RunOptions(resume=True))
    assert resumed is not None
    assert resumed.epochs == whole.epochs
    assert (resumed.model / "head.safetensors").read_bytes() == (whole.model / "head.safetensors").read_bytes()


def test_networks_from_scratch_are_not_averaged(recipe: Recipe) -> None:
    with pytest.raises(TrainingError, match="needs pretrained weights"):
        replace(recipe, soup=2)
    with pytest.raises(TrainingError, match="soup must be greater than or equal to 1, not 0"):
        replace(recipe, soup=0)
