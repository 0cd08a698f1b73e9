"""Losses on cases solved by hand, against finite differences and against pytorch-metric-learning."""

import math

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners
from torch.nn.functional import normalize

from training.losses import LOSSES, batch_hard_triplet, pairwise_distances, region_loss, triplet


def on_circle(*degrees: float) -> torch.Tensor:
    radians = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack((radians.cos(), radians.sin()), 1)


def chord(degrees: float) -> float:
    return 2 * math.sin(math.radians(degrees) / 2)


def test_batch_hard_by_hand() -> None:
    # Two of each identity on a circle: A at 0 and 40, B at 60 and 180 degrees.
    e, y = on_circle(0, 40, 60, 180), torch.tensor([0, 0, 1, 1])
    m = 0.3
    expected = [
        chord(40) - chord(60) + m,  # anchor 0: hardest negative at 60
        chord(40) - chord(20) + m,
        chord(120) - chord(20) + m,
        max(0.0, chord(120) - chord(140) + m),
    ]
    assert float(batch_hard_triplet(e, y, m)) == pytest.approx(sum(max(0, t) for t in expected) / 4)


def test_batch_hard_is_that_of_pytorch_metric_learning() -> None:
    torch.manual_seed(0)
    e, y = normalize(torch.randn(24, 16, dtype=torch.float64)), torch.arange(24) % 4
    distance = distances.LpDistance(normalize_embeddings=False)
    from pytorch_metric_learning.reducers import MeanReducer

    oracle = losses.TripletMarginLoss(margin=0.3, distance=distance, reducer=MeanReducer())
    expected = oracle(e, y, miners.BatchHardMiner(distance=distance)(e, y))
    assert float(batch_hard_triplet(e, y, 0.3)) == pytest.approx(float(expected), abs=1e-7)


def test_all_triplets_by_hand() -> None:
    # Identity A at 0 and 40 degrees, B at 60: two triplets, anchors 0 and 40.
    e, y = on_circle(0, 40, 60), torch.tensor([0, 0, 1])
    first, second = chord(40) - chord(60) + 0.3, chord(40) - chord(20) + 0.3
    assert first < 0 < second  # the first keeps the margin and does not count
    assert float(triplet(e, y, 0.3)) == pytest.approx(second)


def test_all_triplets_are_those_of_pytorch_metric_learning() -> None:
    torch.manual_seed(0)
    e, y = normalize(torch.randn(24, 16, dtype=torch.float64)), torch.arange(24) % 4
    oracle = losses.TripletMarginLoss(margin=0.3, distance=distances.LpDistance(normalize_embeddings=False))
    assert float(triplet(e, y, 0.3)) == pytest.approx(float(oracle(e, y)), abs=1e-7)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    torch.manual_seed(3)
    raw, y = torch.randn(8, 5, dtype=torch.float64, requires_grad=True), torch.tensor([0, 0, 1, 1, 2, 2, 2, 1])
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](normalize(x), y, 0.5), (raw,))


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("identities", [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 1, 1]])
def test_degenerate_batches_give_a_number_and_a_finite_gradient(identities: list[int], name: str) -> None:
    same = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    loss = LOSSES[name](normalize(same), torch.tensor(identities), 0.3)
    loss.backward()  # type: ignore[no-untyped-call]
    assert same.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(same.grad).all()
    assert loss.item() == pytest.approx(0.3 if identities == [0, 0, 1, 1] else 0.0)


def test_distances_are_those_of_cdist() -> None:
    e = normalize(torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(pairwise_distances(e), torch.cdist(e, e), atol=1e-7, rtol=0)


def test_region_loss_by_hand() -> None:
    suspicion = torch.zeros(3, 1, 2)
    suspicion[0] = torch.tensor([[2.0, -1.0]])
    coverage = torch.zeros(3, 1, 2)
    coverage[0, 0, 0] = 1
    suspicion[2] = 100  # not known: must not count
    known = torch.tensor([True, True, False])
    lesion = math.log(1 + math.exp(-2))
    background = (math.log(1 + math.exp(-1)) + 2 * math.log(2)) / 3
    assert float(region_loss(suspicion, coverage, known)) == pytest.approx(lesion + background)
    assert float(region_loss(suspicion, coverage, torch.zeros(3, dtype=torch.bool))) == 0
