import copy
from dataclasses import replace
from typing import Literal

import pytest
import torch

from index.case import Case
from training.errors import TrainingError
from training.loop.cost_estimate import Trial, make_plan, try_step
from training.loop.run import plan_run
from training.model.siamese import Siamese
from training.recipe import Recipe


class Toy(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, 32), torch.nn.BatchNorm2d(6))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.layers(pictures)
        return maps


CPU = torch.device("cpu")
TRIAL = Trial(
    device="x", precision="float32", parameters=9, trained_parameters=8, step_seconds=0.5, memory_bytes=1 << 30
)


def toy() -> Siamese:
    return Siamese(Toy(), 6, 128, 8)


@pytest.mark.parametrize(("precision", "expected"), [("bf16", {"bf16"}), ("auto", {"bf16", "float32"})])
def test_a_step_is_tried_and_leaves_the_model_alone(precision: Literal["auto", "bf16"], expected: set[str]) -> None:
    model, recipe = toy(), Recipe(size=64, epochs=3, identities=2, images=4, precision=precision)
    model.freeze_until("layers.1")
    before = copy.deepcopy(model.state_dict())
    trial = try_step(model, recipe, CPU)
    assert trial.precision in expected
    assert trial.parameters == sum(p.numel() for p in model.parameters())
    assert trial.trained_parameters == trial.parameters - 3 * 6 * 9 - 6  # all but the frozen convolution
    assert trial.step_seconds > 0
    assert trial.memory_bytes > 1 << 20
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())


def test_a_trial_holds_the_optimisers_moments_as_training_will(monkeypatch: pytest.MonkeyPatch) -> None:
    moments: list[int] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW) -> None:
        step(self)
        moments.append(sum(v.numel() for of in self.state.values() for k, v in of.items() if k.startswith("exp_avg")))

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    trial = try_step(toy(), Recipe(size=64, identities=2, images=2, precision="float32"), CPU)
    assert moments[-1] == 2 * trial.trained_parameters


def test_a_plan_counts() -> None:
    recipe = Recipe(size=64, epochs=3, identities=2, images=4)
    plan = make_plan(TRIAL, recipe, learning=100, holdout=20)
    assert (plan.learning, plan.holdout, plan.steps, plan.epochs) == (100, 20, 12, 3)
    assert (plan.step_seconds, plan.memory_bytes, plan.precision) == (0.5, 1 << 30, "float32")
    assert plan.seconds == pytest.approx(0.5 * 3 * (12 + 20 / 8 / 3))


def test_crops_have_steps_of_their_own() -> None:
    recipe = Recipe(size=64, epochs=3, crop_epochs=2, crop=64, identities=2, images=4)
    plan = make_plan(TRIAL, recipe, learning=40, holdout=8, crops=96)
    assert (plan.steps, plan.crop_steps) == (5, 12)
    assert [plan.steps_before(epoch) for epoch in range(6)] == [0, 12, 24, 29, 34, 39]
    assert plan.all_steps == 39


def test_a_precision_chosen_before_is_kept() -> None:
    recipe = Recipe(size=64, identities=2, images=2)
    assert try_step(toy(), recipe, CPU, "bf16").precision == "bf16"
    assert try_step(toy(), replace(recipe, precision="float32"), CPU).precision == "float32"


def test_processes_share_the_steps_and_each_has_one() -> None:
    recipe = Recipe(size=64, identities=2, images=2)
    plan = make_plan(TRIAL, recipe, learning=64, holdout=8, processes=4)
    assert (plan.steps, plan.processes) == (4, 4)
    assert make_plan(TRIAL, recipe, learning=16, holdout=1, processes=4).steps == 1
    with pytest.raises(TrainingError, match="15 radiographs to learn from are 3 batches of 4, too few for 4 processes"):
        make_plan(TRIAL, recipe, learning=15, holdout=1, processes=4)
    assert make_plan(TRIAL, recipe, learning=1, holdout=1).steps == 1


def test_a_plan_downloads_nothing_if_it_must_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights take the place of those that the run would download."""

    def refuse(*rest: object, **options: object) -> None:
        raise AssertionError("a plan asks a server")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    cases = [Case(f"{p}", f"s{p}", f"p{p}", p % 2) for p in range(8)]
    recipe = Recipe(backbone="resnet50", size=64, identities=2, images=2, precision="float32")
    plan, note = plan_run(cases, recipe, offline=True)
    assert plan.learning + plan.holdout == 8
    assert "random weights of the same shape" in note
