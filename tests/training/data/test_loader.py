from dataclasses import replace

import numpy as np
import pytest
import torch

from training.data.dataset import TrainingSet
from training.data.loader import Feed
from training.errors import TrainingError
from training.recipe import Recipe


@pytest.fixture
def as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.loader.augment", lambda pictures, coverage, seed, strength: (pictures, coverage))


def one_batch(data: TrainingSet, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures back on the scale [0, 1], and their coverage."""
    (batch,) = Feed(data, recipe, torch.device("cpu")).batches([[0, 1, 2]], [0])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (recipe.preprocessing.mean, recipe.preprocessing.std))
    return batch.pictures * std + mean, batch.coverage


def shrinking(count: int, size: int) -> torch.Tensor:
    """(count, size): each new pixel is the mean of those under a triangle as wide as two new pixels, by definition."""
    centres = (np.arange(count) + 0.5) * size / count
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) * count / size
    weights = np.maximum(0, 1 - distance)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()


@pytest.mark.usefixtures("as_they_are")
def test_pictures_are_shown_smaller_without_aliasing_and_lesions_stay(blobs: TrainingSet, recipe: Recipe) -> None:
    pictures, coverage = one_batch(blobs, replace(recipe, shown=40))
    taken, lesions = blobs.take([0, 1, 2])
    shrink = shrinking(40, 64)
    expected = shrink @ (torch.from_numpy(taken[:, :, :, 0]) / 255) @ shrink.T
    assert torch.allclose(pictures[:, 0], expected, atol=1e-5)
    assert torch.allclose(coverage[:, 0], torch.from_numpy(lesions) / 255)  # the objective pools it to the map's size


@pytest.mark.usefixtures("as_they_are")
@pytest.mark.parametrize("shown", [0, 64])
def test_pictures_are_shown_as_they_are_where_nothing_else_is_said(
    blobs: TrainingSet, recipe: Recipe, shown: int
) -> None:
    pictures, _ = one_batch(blobs, replace(recipe, shown=shown))
    taken, _ = blobs.take([0, 1, 2])
    assert torch.allclose(pictures[:, 0], torch.from_numpy(taken[:, :, :, 0]) / 255, atol=1e-5)


@pytest.mark.parametrize("shown", [16, 65, -1])
def test_no_picture_is_shown_larger_than_it_is_or_tiny(recipe: Recipe, shown: int) -> None:
    with pytest.raises(TrainingError, match="shown must be 0, or from 32 to size"):
        replace(recipe, shown=shown)
