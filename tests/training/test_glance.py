"""A glance beside the trained network, against its equations and scikit-learn's logistic regression."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from retrieval.encoding.encoder import Encoder
from retrieval.images.preprocessing import normalise
from training.data.dataset import TrainingSet
from training.errors import TrainingError
from training.export.probes import AS_IS, Shown
from training.glance import PENALTY, TwoScales, glances, heed_glance, share_with_glance, with_glance
from training.loop.run import divide, train
from training.model.backbone import load_backbone
from training.model.siamese import Siamese, SiameseHead
from training.recipe import Recipe

C, D, N = 12, 128, 200


@pytest.fixture
def pretrained(recipe: Recipe, tmp_path: Path) -> Recipe:
    torch.manual_seed(5)
    network, _ = load_backbone(recipe.backbone, "")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return replace(recipe, weights=str(tmp_path / "weights.pth"), epochs=1)


@pytest.fixture
def shown() -> Shown:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(N, 5, 4 * C)) * np.linspace(2, 0.2, 4 * C) + 1
    return Shown(z.astype(np.float32), ("arm",) * N)


@pytest.fixture
def labels(shown: Shown) -> list[int]:
    """Of what is seen at half the size, and of chance."""
    noise = np.random.default_rng(2).normal(size=N)
    return [int(label) for label in shown.features[:, AS_IS, C : 2 * C].sum(1) + 2 * noise > C + 2]


@pytest.fixture
def head() -> SiameseHead:
    torch.manual_seed(0)
    made = SiameseHead(2 * C, D, 8)
    with torch.no_grad():
        made.projection.weight.copy_(torch.randn(D, 20) @ torch.randn(20, 4 * C))
        made.projection.bias.normal_()
    return made


def projected(head: SiameseHead, features: NDArray[np.float32]) -> NDArray[np.float64]:
    with torch.no_grad():
        return np.asarray(head.projection(torch.from_numpy(features)), np.float64)


def test_maps_of_both_scales() -> None:
    """Of two networks that tell the mean of 32 x 32 pixels."""
    near, far = torch.nn.AvgPool2d(32), torch.nn.AvgPool2d(32)
    pictures = torch.rand(2, 3, 128, 192)
    maps = TwoScales(near, far)(pictures)
    assert maps.shape == (2, 6, 4, 6)
    assert torch.equal(maps[:, :3], near(pictures))
    blocks = torch.nn.functional.avg_pool2d(pictures, 64)
    for row in (0, 1):
        for column in (0, 1):
            assert torch.allclose(maps[:, 3:, row::2, column::2], blocks)


def test_at_first_the_head_does_not_heed_it() -> None:
    torch.manual_seed(0)
    network, channels = load_backbone("timm:test_efficientnet", "")
    model = Siamese(network, channels, D, 8)
    torch.nn.init.normal_(model.head.attention.weight)
    both = with_glance(model, load_backbone("timm:test_efficientnet", "")[0])
    pictures = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        before, after = model.eval()(pictures), both(pictures)
    for own, other in zip(before, after, strict=True):
        assert torch.allclose(own, other, atol=1e-5)


def test_the_equation(head: SiameseHead, shown: Shown, labels: list[int]) -> None:
    z = shown.features[:, AS_IS]
    before = projected(head, z)
    slope = share_with_glance(head, shown, z[:, C : 2 * C], labels, 0.3)
    after = projected(head, z)
    assert (after[:, :-1] ** 2).sum(1).mean() == pytest.approx(0.7, rel=1e-4)
    assert (after[:, -1] ** 2).mean() == pytest.approx(0.3, rel=1e-4)
    # Of 21 directions nothing is lost: inner products are as before, but for the scale.
    scale = 0.7 / (before**2).sum(1).mean()
    assert after[:, :-1] @ after[:, :-1].T == pytest.approx(scale * before @ before.T, abs=1e-4)
    x = StandardScaler().fit_transform(z[:, C : 2 * C].astype(np.float64))
    regression = LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=10_000).fit(x, labels)
    share = np.mean(labels)
    wanted = regression.decision_function(x) - np.log(share / (1 - share))
    assert slope * after[:, -1] == pytest.approx(wanted, abs=1e-3)


def test_the_classifier_becomes_a_mean(head: SiameseHead) -> None:
    e = torch.nn.functional.normalize(torch.randn(50, D), dim=1)
    without = e.clone()
    without[:, -1] = 0
    with torch.no_grad():
        before = head.classify(without)
        heed_glance(head, 3.0)
        after = head.classify(e)
    assert torch.allclose(after, (before + 3 * e[:, -1]) / 2, atol=1e-6)
    assert head.export().classify(e.numpy()) == pytest.approx(after.numpy(), abs=1e-5)


def test_a_run_with_a_glance(blobs: TrainingSet, pretrained: Recipe, tmp_path: Path) -> None:
    found = {}
    for share in (0.0, 0.3):
        trained = train(blobs, replace(pretrained, glance=share), tmp_path / f"{share}", appearance=False)
        assert trained is not None
        assert trained.export_difference < 1e-4
        found[share] = trained.model
    plain, glancing = (Encoder.open(found[share]) for share in (0.0, 0.3))
    pictures = list(np.broadcast_to(blobs.take(range(8))[0], (8, 64, 64, 3)))
    channels = plain.maps(pictures).shape[1]
    maps = glancing.maps(pictures)
    assert maps.shape[1] == 2 * channels
    # Weights are stored in half precision, with 11 binary digits.
    scale = float(np.abs(plain.maps(pictures)).max())
    assert maps[:, :channels] == pytest.approx(plain.maps(pictures), abs=0.02 * scale)
    assert len(glancing.bundle.files["encoder.onnx"]) < 1.5 * len(plain.bundle.files["encoder.onnx"])
    start, _ = load_backbone(pretrained.backbone, pretrained.weights)
    how = replace(glancing.bundle.preprocessing, size=32)
    half = [cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32) for picture in pictures]
    with torch.inference_mode():
        small = start.eval()(torch.from_numpy(normalise(half, how))).mean((2, 3)).numpy()
    seen = glances(glancing, blobs.rows(np.arange(8)))
    assert seen == pytest.approx(small, abs=0.02 * float(np.abs(small).max()))
    assert np.abs(small - small[0]).max() > 0.1 * np.abs(small).max()
    # The regression on the training radiographs is the embedding's last number, and half of the logit.
    learning, _ = divide(blobs, pretrained)
    assert glancing.bundle.seen() == plain.bundle.seen()
    x = glances(glancing, learning)
    labels = [case.label for case in learning.cases]
    numbers = glancing.encode_prepared(
        list(np.broadcast_to(learning.take(range(len(labels)))[0], (len(labels), 64, 64, 3)))
    )
    regression = LogisticRegression(C=1 / PENALTY, max_iter=10_000).fit(StandardScaler().fit_transform(x), labels)
    log_odds = regression.decision_function(StandardScaler().fit_transform(x))
    assert np.corrcoef(numbers.embeddings[:, -1], log_odds)[0, 1] > 0.9
    assert np.corrcoef(numbers.logits, numbers.embeddings[:, -1])[0, 1] > 0.3
    assert glancing.head.hidden_weight[-2:, -1].tolist() == [1, -1]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(TrainingError, match="a glance is a share of the embedding, from 0 to below 1, not 1"):
        Recipe(glance=1.0)
    with pytest.raises(TrainingError, match="pretrained weights and a size that is a multiple of 64"):
        Recipe(glance=0.2, size=352)
    with pytest.raises(TrainingError, match="pretrained weights and a size"):
        Recipe(glance=0.2, weights="")
    with pytest.raises(TrainingError, match="nothing would train the classifier"):
        Recipe(glance=0.2, second_stage=False, classification=1.0)
