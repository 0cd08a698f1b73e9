"""Pairs by hand and against plain loops; semi-hard triplets against pytorch-metric-learning."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import distances, miners
from torch.nn.functional import normalize

from training.model.mining import furthest, nearest, semi_hard, valid_pairs

FINGER, BROKEN_FINGER, WRIST, BROKEN_WRIST = range(4)


def columns(mask: torch.Tensor) -> list[set[int]]:
    return [set(row.nonzero().flatten().tolist()) for row in mask]


def test_a_patients_own_views_are_positives_only_where_nobody_else_is() -> None:
    identities = torch.tensor([FINGER, FINGER, FINGER, BROKEN_FINGER, BROKEN_FINGER, WRIST])
    patients = torch.tensor([7, 7, 8, 9, 9, 7])
    pairs = valid_pairs(identities, patients)
    assert columns(pairs.positive) == [{2}, {2}, {0, 1}, {4}, {3}, set()]
    assert columns(pairs.negative) == [{3, 4, 5}] * 3 + [{0, 1, 2, 5}] * 2 + [{0, 1, 2, 3, 4}]


def test_hard_negatives_are_of_the_same_part_where_it_has_the_other_label() -> None:
    identities = torch.tensor([FINGER, BROKEN_FINGER, BROKEN_WRIST, BROKEN_WRIST])
    pairs = valid_pairs(identities, torch.arange(4))
    assert columns(pairs.hard_negative) == [{1}, {0}, {0, 1}, {0, 1}]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=12))
def test_pairs_are_those_of_plain_loops(batch: list[tuple[int, int]]) -> None:
    pairs = valid_pairs(*(torch.tensor(column) for column in zip(*batch, strict=True)))
    for a, (identity, patient) in enumerate(batch):
        alike = [i for i, (other, _) in enumerate(batch) if other == identity and i != a]
        strangers = [i for i in alike if batch[i][1] != patient]
        unlike = [i for i, (other, _) in enumerate(batch) if other != identity]
        nearby = [i for i in unlike if batch[i][0] // 2 == identity // 2]
        assert columns(pairs.positive)[a] == set(strangers or alike)
        assert columns(pairs.negative)[a] == set(unlike)
        assert columns(pairs.hard_negative)[a] == set(nearby or unlike)


def test_furthest_and_nearest_by_hand() -> None:
    table = torch.tensor([[5.0, 1.0, 3.0], [4.0, 2.0, 2.0], [9.0, 9.0, 9.0]], requires_grad=True)
    among = torch.tensor([[False, True, True], [True, True, True], [False, False, False]])
    assert furthest(table, among).tolist() == [3, 4, 0]
    assert nearest(table, among).tolist() == [1, 2, 0]
    (gradient,) = torch.autograd.grad(nearest(table, among).sum(), table)
    assert gradient.tolist() == [[0, 1, 0], [0, 0.5, 0.5], [0, 0, 0]]  # a tie is shared; where none is, none


@pytest.mark.parametrize("margin", [0.05, 0.3, 2.0])
def test_semi_hard_triplets_are_those_of_pytorch_metric_learning(margin: float) -> None:
    torch.manual_seed(0)
    e, y = normalize(torch.randn(20, 8, dtype=torch.float64)), torch.arange(20) % 4
    distance = distances.LpDistance(normalize_embeddings=False)
    oracle = miners.TripletMarginMiner(margin=margin, type_of_triplets="semihard", distance=distance)
    expected = {tuple(int(i) for i in triplet) for triplet in zip(*oracle(e, y), strict=True)}
    found = semi_hard(torch.cdist(e, e), valid_pairs(y, torch.arange(20)), margin)
    assert {tuple(triplet) for triplet in found.nonzero().tolist()} == expected
    assert expected
