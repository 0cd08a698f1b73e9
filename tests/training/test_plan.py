import copy
from dataclasses import replace

import pytest
import torch

from training.model import Siamese
from training.plan import make_plan
from training.recipe import Recipe


class Toy(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, 32), torch.nn.BatchNorm2d(6))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.layers(pictures)
        return maps


def toy() -> Siamese:
    return Siamese(Toy(), 6, 128, 8)


@pytest.mark.parametrize(("precision", "expected"), [("bf16", {"bf16"}), ("auto", {"bf16", "float32"})])
def test_a_plan_counts_and_leaves_the_model_alone(precision: str, expected: set[str]) -> None:
    model, recipe = toy(), Recipe(size=64, epochs=3, identities=2, images=4, precision=precision)
    model.freeze_until("layers.1")
    before = copy.deepcopy(model.state_dict())
    plan = make_plan(model, recipe, torch.device("cpu"), learning=100, holdout=20)
    assert (plan.learning, plan.holdout, plan.steps, plan.epochs) == (100, 20, 12, 3)
    assert plan.precision in expected
    assert plan.parameters == sum(p.numel() for p in model.parameters())
    assert plan.trained_parameters == plan.parameters - 3 * 6 * 9 - 6  # all but the frozen convolution
    assert 0 < plan.step_seconds < plan.seconds
    assert plan.memory_bytes > 1 << 20
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())


def test_crops_have_steps_of_their_own() -> None:
    recipe = Recipe(size=64, epochs=3, crop_epochs=2, crop=64, identities=2, images=4)
    plan = make_plan(toy(), recipe, torch.device("cpu"), learning=40, holdout=8, crops=96)
    assert (plan.steps, plan.crop_steps) == (5, 12)
    assert [plan.steps_before(epoch) for epoch in range(6)] == [0, 12, 24, 29, 34, 39]
    assert plan.all_steps == 39


def test_training_once_more_on_everybody_has_steps_of_its_own() -> None:
    recipe = Recipe(size=64, epochs=3, crop_epochs=2, crop=64, identities=2, images=4, patience=0)
    cpu = torch.device("cpu")
    plain, plan = (
        make_plan(toy(), each, cpu, learning=40, holdout=8, crops=96, everybody=(56, 120), precision="float32")
        for each in (recipe, replace(recipe, refit=True))
    )
    assert (plan.steps, plan.crop_steps, plan.refit.steps, plan.refit.crop_steps) == (5, 12, 7, 15)
    assert (plan.refit.all_steps, plain.refit_steps, plain.refit_crop_steps) == (51, 0, 0)
    steps = plain.seconds / plain.step_seconds, plan.seconds / plan.step_seconds
    assert steps[1] - steps[0] == pytest.approx(51)


def test_a_precision_chosen_before_is_kept_and_processes_share_the_steps() -> None:
    recipe = Recipe(size=64, identities=2, images=2)
    plan = make_plan(toy(), recipe, torch.device("cpu"), learning=64, holdout=8, processes=4, precision="bf16")
    assert (plan.precision, plan.steps, plan.processes) == ("bf16", 4, 4)
    assert make_plan(toy(), replace(recipe, precision="float32"), torch.device("cpu"), learning=1, holdout=1).steps == 1
