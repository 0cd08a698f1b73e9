"""The looks' share of an embedding, against its equation and scikit-learn's principal components."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from retrieval.encoding.encoder import Encoder
from training.data.dataset import TrainingSet
from training.errors import TrainingError
from training.export.appearance_subspace import LAYERS, share_with_looks
from training.export.probes import AS_IS, INVERTED, LEFT, RIGHT, SPOILT, Shown, fit_appearance, show
from training.loop.run import Division, RunOptions, train
from training.model.siamese import SiameseHead
from training.recipe import Recipe

C, D, N = 96, 128, 300


@pytest.fixture
def head() -> SiameseHead:
    """One whose projection knows three directions only, as after training on labels alone."""
    torch.manual_seed(0)
    made = SiameseHead(C, D, 8)
    with torch.no_grad():
        made.projection.weight.copy_(torch.randn(D, 3) @ torch.randn(3, 2 * C))
        made.projection.bias.normal_()
    return made


@pytest.fixture
def shown() -> Shown:
    """Of two body parts, three changes of their looks along axes of their own."""
    rng = np.random.default_rng(1)
    z = np.repeat((rng.normal(size=(N, 1, 2 * C)) * np.linspace(3, 0.1, 2 * C) + 1), 5, 1)
    parts = rng.integers(0, 2, N)
    z[:, :, 50:64] *= 0.1
    z[:, :, 50] += 2 * parts[:, None]
    for number, ways in enumerate(([INVERTED], [LEFT, RIGHT], [SPOILT])):
        z[:, ways, 60 + number] += 3
    return Shown(z.astype(np.float32), tuple(("leg", "arm")[part] for part in parts))


def projected(head: SiameseHead, features: NDArray[np.float32]) -> NDArray[np.float64]:
    with torch.no_grad():
        return np.asarray(head.double().projection(torch.from_numpy(features.astype(np.float64))), np.float64)


def mean_square(rows: NDArray[np.floating]) -> float:
    return float((rows**2).sum(-1).mean())


LABEL, COMPONENTS, LAST = slice(0, D // 2), slice(D // 2, D - 5), slice(D - 5, D)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_equation(head: SiameseHead, shown: Shown, share: float) -> None:
    z = shown.features[:, AS_IS]
    label = projected(head, z)
    share_with_looks(head, shown, share)
    found = projected(head, z)
    assert mean_square(found[:, LABEL]) == pytest.approx(1 - share, rel=1e-4)
    assert mean_square(found[:, COMPONENTS]) == pytest.approx((1 - LAYERS) * share, rel=1e-4)
    assert mean_square(found[:, LAST]) == pytest.approx(LAYERS * share, rel=1e-4)
    # Of three directions and a constant nothing is lost: inner products are as before, but for the scale.
    before, after = label @ label.T, found[:, LABEL] @ found[:, LABEL].T
    assert after == pytest.approx(before * (1 - share) / mean_square(label), abs=1e-4)
    pca = PCA(D // 2 - 5, svd_solver="full").fit(z.astype(np.float64))
    half = pca.transform(z) / pca.explained_variance_**0.25
    half *= np.sqrt((1 - LAYERS) * share / mean_square(half))
    second = found[:, COMPONENTS]
    assert second @ second.T == pytest.approx(half @ half.T, abs=1e-4)


def test_the_layers_tell_part_and_changes_apart(head: SiameseHead, shown: Shown) -> None:
    """The last numbers are log-odds: turn's, then arm's, leg's and none's, which sum to 0, and inversion's before."""
    share_with_looks(head, shown, 0.2)
    last = projected(head, shown.features)[:, :, LAST]
    inverted, turned, arm, leg, none = np.moveaxis(last, 2, 0)
    assert ((inverted > 0) == [False, True, False, False, False]).mean() > 0.95
    assert ((turned > 0)[:, [AS_IS, LEFT, RIGHT]] == [False, True, True]).mean() > 0.95
    assert ((arm > leg)[:, AS_IS] == [part == "arm" for part in shown.parts]).mean() > 0.95
    assert ((none > np.maximum(arm, leg)) == [False, False, False, False, True])[:, [AS_IS, LEFT, SPOILT]].mean() > 0.95
    assert arm + leg + none == pytest.approx(0, abs=1e-5)


def test_layers_read_from_embeddings_are_as_good_as_from_features(head: SiameseHead, shown: Shown) -> None:
    """Labels' own directions know nothing of how a radiograph looks; with a fifth for the looks it can be told."""

    def right(vectors: NDArray[np.float32]) -> float:
        layers = fit_appearance(vectors[: N // 2], shown.parts[: N // 2])
        margins = layers.margins(vectors[N // 2 :].reshape(-1, vectors.shape[2]), ["arm"]).reshape(-1, 5, 3)
        own = np.array([part == "arm" for part in shown.parts[N // 2 :]])
        usual = [(margins[:, AS_IS, 0] > 0) == own, margins[:, SPOILT, 0] < 0, margins[:, INVERTED, 1] < 0]
        return float(np.mean([*usual, margins[:, LEFT, 2] < 0]))

    def embeddings() -> NDArray[np.float32]:
        return head.float().export().embed(shown.features.reshape(-1, 2 * C)).reshape(N, 5, D)

    before = right(embeddings())
    share_with_looks(head, shown, 0.2)
    after = right(embeddings())
    assert before < 0.8
    assert after > 0.95
    assert after > right(shown.features) - 0.03


def test_no_share_changes_no_similarity(head: SiameseHead, shown: Shown) -> None:
    def cosines() -> NDArray[np.float64]:
        v = projected(head, shown.features[:, AS_IS])
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        return v @ v.T

    before = cosines()
    share_with_looks(head, shown, 0.0)
    assert cosines() == pytest.approx(before, abs=1e-5)


def test_few_radiographs_or_none_that_differ_leave_the_rest_zero(head: SiameseHead, shown: Shown) -> None:
    share_with_looks(head, Shown(shown.features[:5], shown.parts[:5]), 0.5)
    found = projected(head, shown.features[:, AS_IS])
    assert np.count_nonzero(found[:, D // 2 : D - 5].any(0)) == 4  # five points span four directions
    head.float()
    share_with_looks(head, Shown(np.repeat(shown.features[:1, :1], 5, 0).repeat(5, 1), ("arm",) * 5), 0.5)
    found = projected(head, shown.features[:, AS_IS])
    assert np.isfinite(found).all()
    assert not found[:, D // 2 : D - 4].any()  # one part and none: four layers


def test_more_parts_than_room(head: SiameseHead, shown: Shown) -> None:
    many = Shown(shown.features, tuple(f"part {n % 60}" for n in range(N)))
    share_with_looks(head, many, 0.5)
    found = projected(head, shown.features[:, AS_IS])
    start = D - D // 4  # a quarter of the embedding is the layers'
    assert mean_square(found[:, D // 2 : start]) == pytest.approx((1 - LAYERS) * 0.5, rel=1e-4)
    assert mean_square(found[:, start:]) == pytest.approx(LAYERS * 0.5, rel=1e-4)


def test_a_run_with_looks(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    """The classifier is trained on the embeddings that the bundle gives, whose looks are the features' components."""
    runs = {}
    for share in (0.0, 0.5):
        trained = train(
            blobs, replace(recipe, epochs=1, looks=share), tmp_path / str(share), RunOptions(appearance=share > 0)
        )
        assert trained is not None
        assert trained.export_difference < 1e-4
        encoder = Encoder.open(trained.model)
        runs[share] = encoder, show(encoder, blobs.rows(np.array(Division.of_cases(blobs.cases, recipe).learning)), 0)
    (plain, seen), (shared, same) = runs[0.0], runs[0.5]
    assert same.features == pytest.approx(seen.features, abs=1e-5)  # the network is the same
    assert plain.head.projection_weight != pytest.approx(shared.head.projection_weight, abs=1e-3)
    v = seen.features[:, AS_IS] @ shared.head.projection_weight.T + shared.head.projection_bias
    assert mean_square(v[:, : D // 2]) == pytest.approx(0.5, rel=1e-3)
    assert mean_square(v[:, D // 2 :]) == pytest.approx(0.5, rel=1e-3)
    assert plain.appearance is None
    assert shared.appearance is not None
    wanted = fit_appearance(shared.head.embed(same.features), same.parts)
    assert shared.appearance.weight == pytest.approx(wanted.weight, abs=1e-3)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(TrainingError, match="looks must be less than 1, not 1"):
        Recipe(looks=1.0)
    with pytest.raises(TrainingError, match="nothing trains the classifier"):
        Recipe(looks=0.5, second_stage=False, classification=1.0)
