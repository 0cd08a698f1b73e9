from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from training.errors import TrainingError
from training.loop.checkpoint import Stage, State, read_tensors, stages_of, write_tensors
from training.model.siamese import Siamese
from training.recipe import Recipe


def state() -> State:
    torch.manual_seed(0)
    model = Siamese(torch.nn.Conv2d(3, 4, 3), 4, 128, 8)
    recipe = Recipe(learning_rate=0.1, head_learning_rate=0.2, averaging=0.5, epochs=5, patience=2)
    return State(model, recipe, 0, steps=4)


def step(of: State) -> None:
    output = of.model(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(len(of.epochs) * 10 + of.step)))
    of.advance(output.logits.pow(2).sum() + output.embeddings[:, 0].sum())


def test_rates_warm_up_and_fall_along_a_cosine() -> None:
    training = state()
    rates = []
    for _ in range(20):
        rates.append([group["lr"] for group in training.optimiser.param_groups])
        step(training)
    backbone, head = zip(*rates, strict=True)
    assert head == pytest.approx([2 * rate for rate in backbone])
    assert backbone[:3] == pytest.approx([0.05, 0.1, 0.1])  # two steps of warm-up, a tenth of twenty
    assert backbone[11] == pytest.approx(0.05)  # half of the 18 that are left
    assert all(earlier >= later for earlier, later in pairwise(backbone[1:]))


def test_the_average_follows_its_equation() -> None:
    training = state()
    name = "head.output.weight"
    expected = None
    for n in range(6):
        step(training)
        weight = training.model.state_dict()[name].clone()
        # d = min(0.5, (1 + n) / (10 + n)), and the first step starts it
        d = min(0.5, (1 + n) / (10 + n))
        expected = weight if expected is None else d * expected + (1 - d) * weight
        torch.testing.assert_close(training.averaged.state_dict()[name], expected)


def test_the_best_epoch_is_the_first_with_the_highest_figure() -> None:
    training = state()
    weights = []
    for kappa in (0.2, 0.6, 0.5, 0.6):
        step(training)
        weights.append(training.averaged.state_dict()["head.output.weight"].clone())
        training.close_epoch({"epoch": 1.0}, kappa)
    assert training.best is not None
    assert training.best["epoch"] == 2
    assert torch.equal(training.kept["head.output.weight"], weights[1])
    assert training.step == 0
    assert training.finished  # two epochs without a better one


def test_without_patience_the_last_average_is_kept_and_every_epoch_run() -> None:
    training = state()
    training.stage = replace(training.stage, patience=0)
    for kappa in (0.9, 0.1, 0.1, 0.1, 0.1):
        assert not training.finished
        step(training)
        training.close_epoch({"epoch": 1.0}, kappa)
    assert training.finished
    assert torch.equal(training.kept["head.output.weight"], training.averaged.state_dict()["head.output.weight"])


def test_crops_come_first_with_a_rate_and_a_schedule_of_their_own() -> None:
    recipe = Recipe(crop_epochs=3, crop=96, crop_learning_rate=0.5, learning_rate=0.1, epochs=2, patience=4)
    assert stages_of(recipe) == [Stage(96, 3, 0.5, 0), Stage(0, 2, 0.1, 4)]
    crops = State(state().model, recipe, 0, steps=4)
    before = [{"epoch": 1.0}, {"epoch": 2.0}, {"epoch": 3.0}]
    pictures = State(state().model, recipe, 1, steps=4, before=before)
    assert (crops.last, pictures.last) == (3, 5)
    assert crops.optimiser.param_groups[0]["initial_lr"] == 0.5
    assert pictures.optimiser.param_groups[0]["initial_lr"] == 0.1


def test_what_is_saved_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    one = state()
    for _ in range(3):
        step(one)
    one.sums = {"triplet": torch.tensor(1.5)}
    one.close_epoch({"epoch": 1.0}, 0.4)
    step(one)
    one.save(tmp_path / "checkpoint.pt")
    saved = read_tensors(tmp_path / "checkpoint.pt")
    assert (saved["number"], saved["seed"]) == (0, Recipe().seed)
    other = state()
    other.load(saved)
    assert (other.epochs, other.step, other.sums) == (one.epochs, 1, {})
    for of in (one, other):
        step(of)
        step(of)
    for (name, a), b in zip(one.average.state_dict().items(), other.average.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    write_tensors({"weights": torch.arange(1000)}, file)
    whole = file.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"not a checkpoint"):
        file.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged; remove it"):
            read_tensors(file)


def test_a_stage_that_is_gone_on_with_has_the_epochs_of_those_before_it(tmp_path: Path) -> None:
    recipe = Recipe(crop_epochs=3, crop=96, epochs=2)
    before = [{"epoch": float(epoch)} for epoch in (1, 2, 3)]
    State(state().model, recipe, 1, steps=4, before=before).save(tmp_path / "checkpoint.pt")
    again = State(state().model, recipe, 1, steps=4)  # the stages before it are not gone through anew
    again.load(read_tensors(tmp_path / "checkpoint.pt"))
    assert (len(again.epochs), again.finished) == (3, False)
