import hashlib

import numpy as np
import pytest
import torch

from index.case import Case
from training.data.crops import crop_rows, windows
from training.data.dataset import TrainingSet
from training.data.loader import Feed
from training.errors import TrainingError
from training.recipe import Recipe

SIZE, CROP = 256, 64


def radiographs(count: int = 24, known: bool = True) -> TrainingSet:
    """A grey limb down the middle; every third radiograph has a white lesion of 8 x 8 on it."""
    rng = np.random.default_rng(0)
    pictures = np.zeros((count, SIZE, SIZE, 1), np.uint8)
    pictures[:, :, 96:160] = 100
    coverage = np.zeros((count, SIZE // 4, SIZE // 4), np.uint8)
    cases = []
    for i in range(count):
        label = int(i % 3 == 0)
        if label:
            row, column = 4 * int(rng.integers(0, 62)), 4 * int(rng.integers(24, 38))
            pictures[i, row : row + 8, column : column + 8] = 255
            coverage[i, row // 4 : row // 4 + 2, column // 4 : column // 4 + 2] = 255
        digest = hashlib.sha256(str(i).encode()).hexdigest()
        cases.append(Case(str(i), f"s{i}", f"p{i}", label, "hand", digest=digest))
    whose = np.array([known or case.label == 0 for case in cases])
    return TrainingSet.of_arrays(tuple(cases), pictures, coverage, whose)


def test_the_first_half_of_a_batch_has_lesions() -> None:
    data = radiographs()
    drawn = crop_rows(data, 16, 5, np.random.default_rng(1))
    assert len(drawn) == 5
    for rows in drawn:
        labels = [data.cases[i].label for i in rows]
        assert labels == [1] * 8 + [0] * 6 + [1] * 2
        assert len(set(rows[:8])) == 8  # eight abnormal ones are there, so none comes twice


def test_crops_need_lesions_whose_place_is_known() -> None:
    with pytest.raises(TrainingError, match="crop_epochs = 0"):
        crop_rows(radiographs(known=False), 16, 1, np.random.default_rng(0))


def test_a_lesion_lies_within_the_crop_and_coverage_with_it() -> None:
    data = radiographs()
    rows = crop_rows(data, 16, 1, np.random.default_rng(1))[0]
    for seed in range(20):
        cut, covered = windows(*data.take(rows), CROP, np.random.default_rng(seed))
        assert cut.shape == (16, 96, 96, 1)
        assert covered.shape == (16, 24, 24)
        middle = covered[:, 4:-4, 4:-4]  # the crop within its window
        assert (middle[:8].reshape(8, -1).max(1) == 255).all()
        for picture, lesion in zip(cut, covered, strict=True):
            assert np.array_equal(np.kron(lesion, np.ones((4, 4))) == 255, picture[:, :, 0] == 255)


def test_other_crops_lie_on_the_limb_and_what_is_outside_is_empty() -> None:
    data = radiographs()
    normal = [i for i, case in enumerate(data.cases) if case.label == 0][:8]
    cut, _ = windows(*data.take([*normal, *normal]), CROP, np.random.default_rng(3))
    assert (cut[:, 48, 48, 0] == 100).mean() > 0.9
    assert {int(level) for level in np.unique(cut)} == {0, 100}


def test_the_feed_gives_crops_the_same_for_the_same_seed() -> None:
    data = radiographs()
    rows = crop_rows(data, 16, 2, np.random.default_rng(1))
    feed = Feed(data, Recipe(size=SIZE, crop=CROP, crop_epochs=1), torch.device("cpu"), CROP)
    first, again = (list(feed.batches(rows, [5, 6])) for _ in range(2))
    assert [tuple(batch.pictures.shape) for batch in first] == [(16, 3, CROP, CROP)] * 2
    assert tuple(first[0].coverage.shape) == (16, 1, CROP // 4, CROP // 4)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.pictures, other.pictures)
        assert torch.equal(one.coverage, other.coverage)
    # A turned and scaled window still shows most of its lesions in the crop, and few where none was sought.
    inside = torch.cat([batch.coverage.flatten(1).amax(1) > 0.5 for batch in first]).reshape(2, 16)
    assert inside[:, :8].float().mean() > 0.8
    assert not inside[:, 8:14].any()
    whole = Feed(data, Recipe(size=SIZE), torch.device("cpu"))
    assert next(iter(whole.batches(rows, [5, 6]))).pictures.shape == (16, 3, SIZE, SIZE)
