"""Heatmaps against torch autograd, and against pytorch-grad-cam and torchcam where these define the same thing."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retrieval.encoding.bundle import BUNDLED, Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.explain.smooth_grad_cam import (
    Smoothing,
    _noisy,
    explain_class,
    explain_similarity,
    undo_letterbox,
    weigh,
)
from retrieval.images.preprocessing import Letterbox, Picture, Preprocessing, normalise
from retrieval.synthetic.dataset import draw_study
from training.model.backbone import load_backbone
from training.model.siamese import SiameseHead

NETWORKS = [pytest.param("densenet169", marks=pytest.mark.slow), "resnet50", "bundled"]
Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]


class Network(nn.Module):
    """A backbone and a head, scored in (B, 1): the logit, or the cosine to another embedding, times `scale`."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.other: Tensor | None = None
        self.scale = 1.0

    def score(self, maps: Tensor) -> Tensor:
        output = self.head(maps)
        score: Tensor = output.logits if self.other is None else output.embeddings @ self.other
        return self.scale * score

    def forward(self, pictures: Tensor) -> Tensor:
        return self.score(self.backbone(pictures))[:, None]


class Onnx(nn.Module):
    """The bundled backbone, which is at hand in ONNX alone; gradients go down to its feature map and no further."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pictures: Tensor) -> Tensor:
        session = self.encoder._session
        (maps,) = session.run(None, {session.get_inputs()[0].name: pictures.detach().numpy()})
        return torch.from_numpy(maps).requires_grad_(True)


class TorchEncoder(Encoder):
    """An encoder whose backbone runs in torch, to spare the export."""

    def __init__(self, network: Network, head: SiameseHead) -> None:
        self.bundle = replace(Bundle.open(BUNDLED), preprocessing=Preprocessing(size=128))
        self.head = head.export()
        self.harmonisation = None
        self.network = network

    def maps(self, pictures: Any) -> Array:
        return np.asarray(run(self, self.network, list(pictures)).detach().numpy(), np.float32)


def run(encoder: Encoder, network: Network, pictures: list[Picture]) -> Tensor:
    maps: Tensor = network.backbone(torch.from_numpy(normalise(pictures, encoder.bundle.preprocessing)))
    return maps


@cache
def pair(name: str) -> tuple[Network, Encoder]:
    """A network in torch, and the encoder that it is a twin of: random weights, or the bundled ones."""
    torch.manual_seed(0)
    if name == "bundled":
        encoder = Encoder.open(BUNDLED)
        own = encoder.head
        head = SiameseHead(own.features, own.dimension, own.hidden_bias.size)
        state = head.state_dict()
        for key, value in state.items():
            value.copy_(torch.from_numpy(getattr(own, key.replace(".", "_")).copy()).reshape(value.shape))
        return Network(Onnx(encoder), head).eval(), encoder
    backbone, channels = load_backbone(name, "")
    head = SiameseHead(channels, 128, 16)
    nn.init.normal_(head.attention.weight, std=0.5)  # it starts at 0, where attention is plain mean pooling
    nn.init.normal_(head.projection.bias, std=0.5)
    network = Network(backbone, head).eval()
    return network, TorchEncoder(network, head)


def finger(study: int) -> Pixels:
    return draw_study(7, study, abnormal=True)[0].pixels


def smooth(A: Tensor, copies: Tensor, score: Callable[[Tensor], Tensor]) -> Array:
    """The formula of `retrieval.explain.smooth_grad_cam`, in double precision, with dY/dA by autograd."""
    leaf = copies.detach().clone().requires_grad_(True)
    S = score(leaf)
    (gradients,) = torch.autograd.grad(S.sum(), leaf)
    Y, g = S.detach().double().sub(S.detach().max()).exp()[:, None, None, None], gradients.double()
    D1, D2, D3 = ((Y * g**power).mean(0) for power in (1, 2, 3))
    sums = A[0].detach().double().sum((1, 2), keepdim=True)
    alpha = D2 / (2 * D2 + (sums * D3).clamp(min=0))
    w = (alpha.nan_to_num() * D1.relu()).sum((1, 2))
    return np.asarray((w[:, None, None] * A[0].detach()).sum(0).relu().float().numpy(), np.float32)


@pytest.mark.parametrize("score", ["abnormal", "normal", "similarity"])
@pytest.mark.parametrize("name", NETWORKS)
def test_heatmaps_are_those_of_autograd(name: str, score: str) -> None:
    network, encoder = pair(name)
    pixels, how = finger(3), Smoothing(samples=3, noise=0.2, seed=5)
    picture = encoder.prepare(pixels)
    copies = _noisy(picture, Letterbox.fit(pixels.shape[0], pixels.shape[1], len(picture)), how)
    other = encoder.encode([finger(4)]).embeddings[0]
    network.other = torch.from_numpy(other) if score == "similarity" else None
    network.scale = -1.0 if score == "normal" else 1.0
    if score == "similarity":
        found = explain_similarity(encoder, pixels, other, how)
    else:
        found = explain_class(encoder, pixels, how, target=score)
    expected = smooth(run(encoder, network, [picture]), run(encoder, network, list(copies)), network.score)
    assert expected.max() > 0
    H, W = pixels.shape
    np.testing.assert_allclose(found.values, undo_letterbox(expected, H, W, len(picture)), atol=1e-3)


def test_a_mirrored_similarity_is_that_of_the_average_embedding() -> None:
    network, plain = pair("bundled")
    encoder = Encoder(replace(plain.bundle, test_time="mirror"))
    pixels = finger(3)
    other = torch.from_numpy(encoder.encode([finger(4)]).embeddings[0])
    picture = encoder.prepare(pixels)
    both = [run(plain, network, [one]).detach().requires_grad_(True) for one in (picture, picture[:, ::-1])]
    total = sum(network.head(maps).embeddings for maps in both)
    cosine = (nn.functional.normalize(total, dim=1) @ other).sum()
    assert float(cosine.detach()) == pytest.approx(
        float(encoder.encode([pixels]).embeddings[0] @ other.numpy()), abs=1e-5
    )
    gradients = torch.autograd.grad(cosine, both)
    heats = [
        weigh(maps.detach().numpy()[0], gradient.numpy(), np.zeros(1, np.float32))
        for maps, gradient in zip(both, gradients, strict=True)
    ]
    H, W = pixels.shape
    expected = undo_letterbox(heats[0] + heats[1][:, ::-1], H, W, len(picture))
    found = explain_similarity(encoder, pixels, other.numpy(), Smoothing(noise=0))
    np.testing.assert_allclose(found.values, expected, atol=1e-3)


def test_derivatives_of_every_order_are_those_of_exp() -> None:
    # Where S is linear in A nothing is neglected: alpha from second and third derivatives by autograd, place by place.
    generator = torch.Generator().manual_seed(0)
    A = torch.rand(2, 2, 3, generator=generator, dtype=torch.float64)
    G = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64).abs()
    derivatives = torch.zeros(3, *A.shape, dtype=torch.float64)
    for place in np.ndindex(*A.shape):
        a = A[place].clone().requires_grad_(True)
        Y = torch.exp((G * A).sum() + G[place] * (a - A[place]))
        for order in range(3):
            (Y,) = torch.autograd.grad(Y, a, create_graph=True)
            derivatives[order][place] = Y.detach()
    D1, D2, D3 = derivatives
    alpha = D2 / (2 * D2 + A.sum((1, 2), keepdim=True) * D3)
    expected = ((alpha * D1.relu()).sum((1, 2), keepdim=True) * A).sum(0).relu()
    found = weigh(A.float().numpy(), G.float().numpy()[None], np.zeros(1, np.float32))
    np.testing.assert_allclose(found / found.max(), (expected / expected.max()).numpy(), rtol=1e-5)


def steepened(network: Network, encoder: Encoder, picture: Pixels) -> tuple[Array, Array, Array]:
    """A (C, h, w), dS/dA and S, of the logit times so much that what others add to alpha's denominator is nothing."""
    network.other, network.scale = None, 1.0
    A = run(encoder, network, [picture]).detach().numpy()
    gradient = encoder.head.logit_gradient(A)
    network.scale = 1e3 / float(np.abs(gradient).max())
    scale = np.float32(network.scale)
    return A[0], scale * gradient, scale * encoder.head.apply(A).logits


def ranged(heat: Array) -> Array:
    shifted = heat - heat.min()
    return np.asarray(shifted / shifted.max(), np.float32)


@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("name", NETWORKS)
def test_without_noise_it_is_pytorch_grad_cams_grad_cam_plus_plus(name: str) -> None:
    library = pytest.importorskip("pytorch_grad_cam", reason="needs grad-cam")
    network, encoder = pair(name)
    picture = encoder.prepare(finger(3))
    ours = weigh(*steepened(network, encoder, picture))
    with library.GradCAMPlusPlus(network, [network.backbone]) as cam:
        inputs = torch.from_numpy(normalise([picture], encoder.bundle.preprocessing))
        theirs = cam(inputs, targets=[lambda output: output[0]])[0]
    resized = cv2.resize(ranged(ours), (len(picture), len(picture)), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(ranged(np.asarray(resized, np.float32)), theirs, atol=2e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS[:2])
def test_it_is_torchcams_where_gradients_are_the_same_everywhere(name: str) -> None:
    # torchcam sums A D3 over the places instead of A alone, and takes D1 and A from the last copy. With mean pooling, a
    # linear classifier and hardly any noise that is no difference, so the rest must be alike.
    methods = pytest.importorskip("torchcam.methods", reason="needs torchcam")
    network, encoder = pair(name)
    channels = encoder.head.features
    torch.manual_seed(1)
    linear = nn.Linear(channels, 2)
    nn.init.normal_(linear.weight)
    model = nn.Sequential(network.backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).eval()
    picture = encoder.prepare(finger(3))
    inputs = torch.from_numpy(normalise([picture], encoder.bundle.preprocessing))
    A = run(encoder, network, [picture]).detach().numpy()[0]
    weight = linear.weight.detach().numpy()[1] / (A.shape[1] * A.shape[2])
    gradients = np.broadcast_to(weight[:, None, None], (4, *A.shape)).astype(np.float32)
    scores = np.array([0.3, -1, 2, 0.1], np.float32)
    with methods.SmoothGradCAMpp(model, "0", num_samples=4, std=1e-5) as extractor:
        (theirs,) = extractor(class_idx=1, scores=model(inputs))
    np.testing.assert_allclose(ranged(weigh(A, gradients, scores)), theirs[0].detach().numpy(), atol=2e-3)
