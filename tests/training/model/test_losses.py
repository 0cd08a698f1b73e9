"""Losses on cases solved by hand, against finite differences, pytorch-metric-learning and plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import distances, losses, miners, reducers
from torch.nn.functional import normalize

from retrieval.decision.vote import vote_weights
from training.model.losses import LOSSES, pairwise_distances, region_loss
from training.model.mining import Pairs, valid_pairs
from training.recipe import LOSS_NAMES, Recipe

# Identities: 2 * part + label, so 0 and 1 are of one part, and 0, 2, 4, 6 of four.


def on_circle(*degrees: float) -> torch.Tensor:
    radians = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack((radians.cos(), radians.sin()), 1)


def chord(degrees: float) -> float:
    return 2 * math.sin(math.radians(degrees) / 2)


def cosine(degrees: float) -> float:
    return math.cos(math.radians(degrees))


def strangers(*identities: int) -> Pairs:
    """The pairs of a batch in which every image is of another patient."""
    return valid_pairs(torch.tensor(identities), torch.arange(len(identities)))


def random_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings (24, 16) and four identities, each of its own part."""
    torch.manual_seed(seed)
    return normalize(torch.randn(24, 16, dtype=torch.float64)), torch.arange(24) % 4 * 2


def test_the_losses_are_those_a_recipe_can_name() -> None:
    assert tuple(sorted(LOSSES)) == LOSS_NAMES


# By hand


def test_all_triplets_by_hand() -> None:
    # Identity A at 0 and 40 degrees, B at 60: two triplets, anchors 0 and 40.
    first, second = chord(40) - chord(60) + 0.3, chord(40) - chord(20) + 0.3
    assert first < 0 < second  # the first keeps the margin and does not count
    value = LOSSES["triplet"](on_circle(0, 40, 60), strangers(0, 0, 1), Recipe(margin=0.3))
    assert float(value) == pytest.approx(second)


def test_batch_hard_by_hand() -> None:
    # Two of each identity on a circle: A at 0 and 40, B at 60 and 180 degrees.
    m = 0.3
    expected = [
        chord(40) - chord(60) + m,  # anchor 0: hardest negative at 60
        chord(40) - chord(20) + m,
        chord(120) - chord(20) + m,
        max(0.0, chord(120) - chord(140) + m),
    ]
    value = LOSSES["batch-hard"](on_circle(0, 40, 60, 180), strangers(0, 0, 1, 1), Recipe(margin=m))
    assert float(value) == pytest.approx(sum(max(0, t) for t in expected) / 4)


def test_focal_by_hand() -> None:
    m, sigma = 0.4, 0.5
    expected = [math.exp(chord(a) / sigma) - math.exp(chord(n) / sigma) + m for a, n in ((40, 60), (40, 20), (120, 20))]
    assert expected[0] < 0
    assert math.exp(chord(120) / sigma) - math.exp(chord(140) / sigma) + m < 0
    value = LOSSES["focal"](on_circle(0, 40, 60, 180), strangers(0, 0, 1, 1), Recipe(margin=m, sigma=sigma))
    assert float(value) == pytest.approx(sum(max(0, t) for t in expected) / 4)


def test_semi_hard_by_hand() -> None:
    # A at 0 and 40, B at 60 and 170 degrees, margin 0.5.
    m = 0.5
    expected = [
        chord(40) - chord(60) + m,  # anchor 0: the B at 60; the one at 170 keeps the margin
        # Anchor 40: the B at 60 is nearer than the positive, the one at 170 keeps the margin.
        # Anchor 60: both A are nearer than the positive.
        chord(110) - chord(130) + m,  # anchor 170: both A are semi-hard, the one at 40 is nearer
    ]
    value = LOSSES["semi-hard"](on_circle(0, 40, 60, 170), strangers(0, 0, 1, 1), Recipe(margin=m))
    assert float(value) == pytest.approx(sum(expected) / 2)


def test_selective_by_hand() -> None:
    # A at 0, 40 and 100, B at 60 degrees, which has no positive and is no anchor.
    expected = [
        -math.log(math.exp(cosine(40)) / (math.exp(cosine(40)) + math.exp(cosine(60)))),  # the positive is nearer
        2 * cosine(20),
        2 * cosine(40),  # anchor 100: its easiest positive is 60 degrees away
    ]
    value = LOSSES["selective"](on_circle(0, 40, 100, 60), strangers(0, 0, 0, 1), Recipe(negative_weight=2.0))
    assert float(value) == pytest.approx(sum(expected) / 3)


def test_neighbourhood_by_hand() -> None:
    # A at 0 and 40, B at 60 degrees, which has no positive and is no anchor.
    weight = {degrees: math.exp(cosine(degrees) / 0.5) for degrees in (20, 40, 60)}
    expected = [-math.log(weight[40] / (weight[40] + weight[60])), -math.log(weight[40] / (weight[40] + weight[20]))]
    value = LOSSES["neighbourhood"](on_circle(0, 40, 60), strangers(0, 0, 1), Recipe(temperature=0.5))
    assert float(value) == pytest.approx(sum(expected) / 2)


@pytest.mark.parametrize("name", ["batch-hard", "focal", "selective"])
def test_hardest_negatives_are_sought_in_the_anchors_part(name: str) -> None:
    # Fingers at 0 and 40 degrees are the anchors; the broken finger is at 100, and a wrist at 10 is nearer.
    def loss(degrees: list[float], *identities: int) -> float:
        return float(LOSSES[name](on_circle(*degrees), strangers(*identities), Recipe(margin=2.0)))

    beside_finger, beside_wrist = loss([0, 40, 100], 0, 0, 1), loss([0, 40, 10], 0, 0, 2)
    assert beside_finger != pytest.approx(beside_wrist)
    assert loss([0, 40, 100, 10], 0, 0, 1, 2) == pytest.approx(beside_finger)
    assert loss([0, 40, 100, 10], 0, 0, 4, 2) == pytest.approx(beside_wrist)  # two other parts: the nearest of any


def test_a_patients_own_view_is_no_positive_beside_anothers() -> None:
    # Patient 1 at 0 and 90 degrees, patient 2 at 10, the negative at 180; the hardest positive of 0 would be at 90.
    e, patients = on_circle(0, 90, 10, 180), torch.tensor([1, 1, 2, 3])
    value = LOSSES["batch-hard"](e, valid_pairs(torch.tensor([0, 0, 0, 1]), patients), Recipe(margin=2.0))
    terms = (chord(10) - chord(180), chord(80) - chord(90), chord(80) - chord(170))
    assert float(value) == pytest.approx(sum(terms) / 3 + 2)


# Oracles

EUCLIDEAN = distances.LpDistance(normalize_embeddings=False)


def test_all_triplets_are_those_of_pytorch_metric_learning() -> None:
    e, y = random_batch()
    oracle = losses.TripletMarginLoss(margin=0.3, distance=EUCLIDEAN)
    value = LOSSES["triplet"](e, strangers(*y.tolist()), Recipe(margin=0.3))
    assert float(value) == pytest.approx(float(oracle(e, y)), abs=1e-7)


def test_batch_hard_is_that_of_pytorch_metric_learning() -> None:
    e, y = random_batch()
    oracle = losses.TripletMarginLoss(margin=0.3, distance=EUCLIDEAN, reducer=reducers.MeanReducer())
    expected = oracle(e, y, miners.BatchHardMiner(distance=EUCLIDEAN)(e, y))
    value = LOSSES["batch-hard"](e, strangers(*y.tolist()), Recipe(margin=0.3))
    assert float(value) == pytest.approx(float(expected), abs=1e-7)


def test_semi_hard_is_that_of_pytorch_metric_learning() -> None:
    e, y = random_batch()
    miner = miners.TripletMarginMiner(margin=0.3, type_of_triplets="semihard", distance=EUCLIDEAN)
    closest: dict[tuple[int, int], tuple[float, int]] = {}
    for a, p, n in zip(*(column.tolist() for column in miner(e, y)), strict=True):
        closest[a, p] = min(closest.get((a, p), (math.inf, -1)), (float((e[a] - e[n]).norm()), n))
    triplets = torch.tensor([(a, p, n) for (a, p), (_, n) in closest.items()]).T
    expected = losses.TripletMarginLoss(margin=0.3, distance=EUCLIDEAN)(e, y, tuple(triplets))
    value = LOSSES["semi-hard"](e, strangers(*y.tolist()), Recipe(margin=0.3))
    assert len(closest) > 20
    assert float(value) == pytest.approx(float(expected), abs=1e-7)


def test_neighbourhood_is_that_of_pytorch_metric_learning() -> None:
    e, y = random_batch()
    oracle = losses.NCALoss(softmax_scale=1 / 0.2, distance=distances.CosineSimilarity())
    value = LOSSES["neighbourhood"](e, strangers(*y.tolist()), Recipe(temperature=0.2))
    assert float(value) == pytest.approx(float(oracle(e, y)), abs=1e-7)


def test_neighbourhood_is_the_likelihood_of_the_vote() -> None:
    e, _ = random_batch()
    y = torch.arange(24) % 2
    abnormal = [
        (vote_weights((e[a] @ e.T).masked_fill(torch.arange(24) == a, -torch.inf).numpy(), 0.1) * y.numpy()).sum()
        for a in range(24)
    ]
    right = [share if label else 1 - share for share, label in zip(abnormal, y.tolist(), strict=True)]
    value = LOSSES["neighbourhood"](e, strangers(*y.tolist()), Recipe(temperature=0.1))
    assert float(value) == pytest.approx(-sum(map(math.log, right)) / 24)


@pytest.mark.parametrize("seed", range(3))
def test_focal_and_selective_are_those_of_plain_loops(seed: int) -> None:
    e, _ = random_batch(seed)
    identities, patients = torch.randint(0, 6, (24,)), torch.randint(0, 12, (24,))
    pairs = valid_pairs(identities, patients)
    recipe = Recipe(margin=0.4, sigma=0.6, negative_weight=1.5)
    focal, selective = [], []
    for a in range(24):
        positives = [e[i] for i in range(24) if pairs.positive[a, i]]
        negatives = [e[i] for i in range(24) if pairs.hard_negative[a, i]]
        if positives and negatives:
            d_ap = max(math.dist(e[a].tolist(), p.tolist()) for p in positives)
            d_an = min(math.dist(e[a].tolist(), n.tolist()) for n in negatives)
            focal.append(max(0, math.exp(d_ap / 0.6) - math.exp(d_an / 0.6) + 0.4))
            s_ap, s_an = (max(float(e[a] @ other) for other in others) for others in (positives, negatives))
            easy = -math.log(math.exp(s_ap) / (math.exp(s_ap) + math.exp(s_an)))
            selective.append(1.5 * s_an if s_an > s_ap else easy)
    assert float(LOSSES["focal"](e, pairs, recipe)) == pytest.approx(sum(focal) / len(focal))
    assert float(LOSSES["selective"](e, pairs, recipe)) == pytest.approx(sum(selective) / len(selective))


@pytest.mark.parametrize("name", LOSS_NAMES)
@pytest.mark.parametrize("seed", [3, 4])
def test_gradients_are_those_of_finite_differences(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    raw = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    pairs = valid_pairs(torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3]), torch.tensor([0, 0, 1, 2, 3, 3, 4, 4, 5]))
    recipe = Recipe(margin=0.5, negative_weight=0.7)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](normalize(x), pairs, recipe), (raw,))
    (gradient,) = torch.autograd.grad(LOSSES[name](normalize(raw), pairs, recipe), raw)
    assert gradient.norm() > 0


# Degenerate batches


def value_and_gradient(name: str, raw: torch.Tensor, pairs: Pairs) -> tuple[float, torch.Tensor]:
    raw = raw.clone().requires_grad_()
    loss = LOSSES[name](normalize(raw), pairs, Recipe())
    (gradient,) = torch.autograd.grad(loss, raw)
    return loss.item(), gradient


@pytest.mark.parametrize("name", LOSS_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("raw", "identities"),
    [
        pytest.param(torch.eye(4, 5), [0, 0, 0, 0], id="one identity"),
        pytest.param(torch.eye(4, 5), [0, 1, 2, 3], id="one image of each"),
        pytest.param(torch.eye(1, 5), [0], id="one image"),
        pytest.param(torch.ones(4, 5), [0, 0, 1, 1], id="equal embeddings"),
        pytest.param(torch.ones(4, 5), [0, 0, 2, 2], id="equal embeddings of two parts"),
    ],
)
def test_degenerate_batches_give_zero(raw: torch.Tensor, identities: list[int], name: str, dtype: torch.dtype) -> None:
    value, gradient = value_and_gradient(name, raw.to(dtype), strangers(*identities))
    assert value == 0
    assert not gradient.any()  # zeros, and no NaN


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=8))
def test_coinciding_embeddings_give_finite_gradients(batch: list[tuple[int, int, int]]) -> None:
    identities, patients, places = (torch.tensor(column) for column in zip(*batch, strict=True))
    raw = torch.eye(4)[places]  # equal places, equal embeddings
    raw[places == 3] = raw[0] + 1e-7  # and almost equal ones
    for name in LOSS_NAMES:
        value, gradient = value_and_gradient(name, raw, valid_pairs(identities, patients))
        assert math.isfinite(value)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_an_embedding_that_is_no_number_shows(name: str) -> None:
    e, y = random_batch()
    e[5, 2] = math.nan
    assert math.isnan(float(LOSSES[name](e, strangers(*y.tolist()), Recipe())))


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_autocast_costs_no_digits(name: str) -> None:
    e, y = random_batch()
    pairs = strangers(*y.tolist())
    plain = LOSSES[name](e.float(), pairs, Recipe())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LOSSES[name](e.float(), pairs, Recipe()), plain)
    assert float(plain) == pytest.approx(float(LOSSES[name](e, pairs, Recipe())), rel=1e-5)


def test_distances_are_those_of_plain_loops() -> None:
    e = normalize(torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    expected = torch.tensor([[math.dist(a, b) for b in e.tolist()] for a in e.tolist()], dtype=torch.float64)
    torch.testing.assert_close(pairwise_distances(e), expected)
    assert not pairwise_distances(e.float()).diagonal().any()  # exactly 0, also in single precision


# Lesions


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
