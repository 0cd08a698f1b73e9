from dataclasses import replace

import numpy as np
import pytest
import torch

from index.case import Case
from training.data.dataset import TrainingSet
from training.data.loader import Batch
from training.loop.checkpoint import Stage
from training.loop.objective import Objective
from training.model.siamese import Output
from training.recipe import Recipe

WHOLE, CROPS = Stage(0, 1, 1e-3, 0), Stage(64, 1, 1e-3, 0)


def radiographs(known: list[bool]) -> TrainingSet:
    """Two normal ones, two abnormal ones with a lesion in the first quarter."""
    cases = tuple(Case(str(i), f"s{i}", f"p{i}", int(i > 1), "hand") for i in range(4))
    coverage = np.zeros((4, 16, 16), np.uint8)
    coverage[2:, :8, :8] = 255
    return TrainingSet.of_arrays(cases, np.zeros((4, 64, 64, 1), np.uint8), coverage, np.array(known))


def terms(data: TrainingSet, suspicion: torch.Tensor) -> dict[str, float]:
    recipe = replace(Recipe(size=64), identities=2, images=2)
    objective = Objective(data, recipe, WHOLE, torch.device("cpu"))
    output = Output(torch.nn.functional.normalize(torch.eye(4)), torch.zeros(4), suspicion)
    _, coverage = data.take(range(4))
    batch = Batch(torch.zeros(4, 3, 64, 64), torch.from_numpy(coverage)[:, None] / 255, range(4))
    return {name: float(value) for name, value in objective(output, batch).items()}


def test_regions_are_judged_where_lesions_are_known() -> None:
    everywhere = torch.full((4, 2, 2), 3.0)
    right = torch.full((4, 2, 2), -3.0)
    right[2:, 0, 0] = 3
    data = radiographs([True] * 4)
    assert terms(data, right)["regions"] == pytest.approx(2 * np.log1p(np.exp(-3)))
    assert terms(data, everywhere)["regions"] > 1
    only_one = radiographs([True, True, True, False])
    right[3] = 9  # not known, so it may say what it wants
    assert terms(only_one, right)["regions"] == pytest.approx(2 * np.log1p(np.exp(-3)))


def test_normal_radiographs_alone_teach_no_regions() -> None:
    """Where no lesion is known, all that could be said is "nothing here"."""
    assert terms(radiographs([True, True, False, False]), torch.full((4, 2, 2), 3.0))["regions"] == 0


def test_crops_are_classified_even_where_whole_pictures_are_not() -> None:
    data, cpu = radiographs([True] * 4), torch.device("cpu")
    two_stage = Recipe(size=64, identities=2, images=2, classification=0.0, regions=0.5, crop_epochs=1, crop=64)
    assert Objective(data, two_stage, WHOLE, cpu).factors == {"triplet": 1, "classification": 0, "regions": 0.5}
    assert Objective(data, two_stage, CROPS, cpu).factors == {"triplet": 1, "classification": 1, "regions": 0.5}
    jointly = replace(two_stage, classification=0.3)
    assert Objective(data, jointly, CROPS, cpu).factors["classification"] == 0.3
