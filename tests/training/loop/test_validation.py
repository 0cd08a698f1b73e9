"""Figures of an epoch, on a network whose answers are known."""

import numpy as np
import pytest
import torch

from index.case import Case
from training.data.dataset import TrainingSet
from training.loop.objective import label_weights
from training.loop.validation import embedding_loss, validate
from training.model.losses import LOSSES
from training.model.mining import valid_pairs
from training.model.siamese import Output
from training.recipe import Recipe


class Bright(torch.nn.Module):
    """Calls bright pictures abnormal: the embedding's angle, the logit and the suspicion all grow with brightness."""

    def forward(self, pictures: torch.Tensor) -> Output:
        light = pictures.mean((1, 2, 3))
        embeddings = torch.nn.functional.normalize(torch.stack((torch.cos(light), torch.sin(light)), 1))
        return Output(embeddings, light, light[:, None, None].expand(-1, 2, 2))


def pictures(levels: list[int], labels: list[int]) -> TrainingSet:
    cases = tuple(Case(str(i), f"study{i // 2}", f"patient{i // 2}", label, "hand") for i, label in enumerate(labels))
    made = np.stack([np.full((64, 64, 1), level, np.uint8) for level in levels])
    return TrainingSet.of_arrays(cases, made, np.zeros((len(cases), 16, 16), np.uint8), np.ones(len(cases), bool))


@pytest.mark.parametrize("classification", [0.0, 1.0])
def test_a_perfect_reader_and_one_mistake(classification: float) -> None:
    recipe = Recipe(size=64, identities=2, images=2, classification=classification)
    labels = [0] * 12 + [1] * 12
    good = validate(Bright(), pictures(list(range(10, 34)), labels), recipe, torch.device("cpu"))  # type: ignore[arg-type]
    assert good["valid_auroc"] == good["valid_suspicion_auroc"] == 1
    # The vote errs in one of twelve studies, at the border between the labels: (11/12 - 1/2) / (1 - 1/2).
    assert good["valid_kappa"] == pytest.approx(1 if classification else 5 / 6)
    # The brightest two, one study, are normal: of 6 x 6 pairs of studies, and 12 x 12 of images, a sixth is wrong.
    levels = [*range(10, 32), 2, 3]
    bad = validate(Bright(), pictures(levels, labels), recipe, torch.device("cpu"))  # type: ignore[arg-type]
    assert bad["valid_auroc"] == pytest.approx(1 - 2 / 12)


def test_kappa_is_of_studies_not_of_images() -> None:
    # Every study has a bright view and a dark one. Means over views tell the labels apart; no threshold on views does.
    recipe = Recipe(size=64, identities=2, images=2)
    labels = [0] * 8 + [1] * 8
    levels = [10, 60, 11, 61, 12, 62, 13, 63, 35, 86, 36, 87, 37, 88, 38, 89]
    found = validate(Bright(), pictures(levels, labels), recipe, torch.device("cpu"))  # type: ignore[arg-type]
    assert found["valid_kappa"] == 1
    assert found["valid_auroc"] == 0.75  # of images


def test_the_vote_leaves_the_own_patient_out() -> None:
    # Two patients whose views are like each other and unlike anybody else's of their label.
    recipe = Recipe(size=64, identities=2, images=2)
    labels = [0, 0, 1, 1] * 8
    levels = [20, 20, 21, 21] * 8
    found = validate(Bright(), pictures(levels, labels), recipe, torch.device("cpu"))  # type: ignore[arg-type]
    assert found["valid_vote_auroc"] == 1
    assert found["valid_kappa"] == 1
    alone = pictures([10, 10, 250, 250], [0, 0, 1, 1])
    assert validate(Bright(), alone, recipe, torch.device("cpu"))["valid_vote_auroc"] == 0  # type: ignore[arg-type]


def test_the_loss_of_embeddings_is_that_of_batches() -> None:
    recipe = Recipe(identities=2, images=2, loss="triplet")
    cases = [Case(str(i), f"s{i}", f"p{i}", i % 2, "hand") for i in range(4)]
    e = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0].astype(np.float32)
    identities, patients = torch.tensor([0, 1, 0, 1]), torch.arange(4)
    expected = LOSSES["triplet"](torch.from_numpy(e), valid_pairs(identities, patients), recipe)
    assert embedding_loss(e, cases, recipe) == pytest.approx(float(expected))
    assert np.isnan(embedding_loss(e[::2], cases[::2], recipe))


def test_the_labels_of_a_part_weigh_the_same() -> None:
    cases = tuple(Case(str(i), str(i), str(i), int(i < 2), "hand") for i in range(8))
    cases += tuple(Case(f"w{i}", f"w{i}", f"w{i}", int(i < 3), "wrist") for i in range(4))
    weights = label_weights(cases)
    assert weights[:8].tolist() == [1.5] * 2 + [0.5] * 6  # MURA: 6 of 8 and 2 of 8, times 2
    assert weights[8:].tolist() == [0.5] * 3 + [1.5]
    assert weights[:2].sum() == weights[2:8].sum()
