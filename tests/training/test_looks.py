"""The looks' share of an embedding, against its equation and scikit-learn's principal components."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from retrieval.encoder import Encoder
from training.data import TrainingSet
from training.errors import TrainingError
from training.looks import pooled_features, share_with_looks
from training.model import SiameseHead
from training.recipe import Recipe
from training.run import divide, train

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
def features() -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    return (rng.normal(size=(N, 2 * C)) * np.linspace(3, 0.1, 2 * C) + 1).astype(np.float32)


def projected(head: SiameseHead, features: NDArray[np.float32]) -> NDArray[np.float64]:
    with torch.no_grad():
        return np.asarray(head.double().projection(torch.from_numpy(features.astype(np.float64))), np.float64)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_equation(head: SiameseHead, features: NDArray[np.float32], share: float) -> None:
    label = projected(head, features)
    share_with_looks(head, features, share)
    found = projected(head, features)
    first, second = found[:, : D // 2], found[:, D // 2 :]
    assert (first**2).sum(1).mean() == pytest.approx(1 - share, rel=1e-4)
    assert (second**2).sum(1).mean() == pytest.approx(share, rel=1e-4)
    # Of three directions and a constant nothing is lost: inner products are as before, but for the scale.
    before, after = label @ label.T, first @ first.T
    assert after == pytest.approx(before * (1 - share) / (label**2).sum(1).mean(), abs=1e-4)
    pca = PCA(D // 2, svd_solver="full").fit(features.astype(np.float64))
    half = pca.transform(features) / pca.explained_variance_**0.25
    half *= np.sqrt(share / (half**2).sum(1).mean())
    assert second @ second.T == pytest.approx(half @ half.T, abs=1e-4)


def test_no_share_changes_no_similarity(head: SiameseHead, features: NDArray[np.float32]) -> None:
    def cosines() -> NDArray[np.float64]:
        v = projected(head, features)
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        return v @ v.T

    before = cosines()
    share_with_looks(head, features, 0.0)
    assert cosines() == pytest.approx(before, abs=1e-5)


def test_few_radiographs_or_none_that_differ_leave_the_rest_zero(
    head: SiameseHead, features: NDArray[np.float32]
) -> None:
    share_with_looks(head, features[:5], 0.5)
    found = projected(head, features)
    assert np.count_nonzero(found[:, D // 2 :].any(0)) == 4  # five points span four directions
    head.float()
    share_with_looks(head, np.repeat(features[:1], 5, 0), 0.5)
    found = projected(head, features)
    assert np.isfinite(found).all()
    assert not found[:, D // 2 :].any()


def test_a_run_with_looks(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    """The classifier is trained on the embeddings that the bundle gives, whose looks are the features' components."""
    runs = {}
    for share in (0.0, 0.5):
        trained = train(blobs, replace(recipe, epochs=1, looks=share), tmp_path / str(share), appearance=False)
        assert trained is not None
        assert trained.export_difference < 1e-4
        encoder = Encoder.open(trained.model)
        runs[share] = encoder, pooled_features(encoder, divide(blobs, recipe)[0], 0)
    (plain, z), (shared, same) = runs[0.0], runs[0.5]
    assert same == pytest.approx(z, abs=1e-5)  # the network is the same
    assert plain.head.projection_weight != pytest.approx(shared.head.projection_weight, abs=1e-3)
    v = z @ shared.head.projection_weight.T + shared.head.projection_bias
    assert (v[:, : D // 2] ** 2).sum(1).mean() == pytest.approx(0.5, rel=1e-3)
    assert (v[:, D // 2 :] ** 2).sum(1).mean() == pytest.approx(0.5, rel=1e-3)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(TrainingError, match="share of the embedding, from 0 to below 1, not 1"):
        Recipe(looks=1.0)
    with pytest.raises(TrainingError, match="nothing would train the classifier"):
        Recipe(looks=0.5, second_stage=False, classification=1.0)
