"""NumPy's closed forms against torch autograd on the network that is trained."""

from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval.encoding.head import Head
from retrieval.errors import BundleError
from training.model.siamese import SiameseHead

B, C, D, M = 3, 12, 8, 5


@pytest.fixture
def pair() -> tuple[SiameseHead, Head]:
    torch.manual_seed(1)
    module = SiameseHead(C, D, M)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module, module.export()


def maps() -> torch.Tensor:
    return torch.randn(B, C, 4, 3, generator=torch.Generator().manual_seed(2)).requires_grad_(True)


def test_embeddings_logits_and_suspicion_are_those_of_torch(pair: tuple[SiameseHead, Head]) -> None:
    module, head = pair
    expected, given = module(maps()), head.apply(maps().detach().numpy())
    for a, b in zip(expected, (given.embeddings, given.logits, given.suspicion), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(given.embeddings, axis=1), 1, atol=1e-6)


def test_logit_gradient_is_that_of_autograd(pair: tuple[SiameseHead, Head]) -> None:
    module, head = pair
    F = maps()
    module(F).logits.sum().backward()
    assert F.grad is not None
    assert F.grad.abs().max() > 1e-3
    np.testing.assert_allclose(F.grad.numpy(), head.logit_gradient(F.detach().numpy()), atol=1e-5)


def test_similarity_gradient_is_that_of_autograd(pair: tuple[SiameseHead, Head]) -> None:
    module, head = pair
    F, other = maps(), np.random.default_rng(3).normal(size=D).astype(np.float32)
    (module(F).embeddings @ torch.from_numpy(other)).sum().backward()
    assert F.grad is not None
    np.testing.assert_allclose(
        F.grad.numpy(), head.gradient(F.detach().numpy(), np.broadcast_to(other, (len(F), head.dimension))), atol=1e-5
    )


def test_attention_finds_the_one_place_that_mean_pooling_drowns() -> None:
    # One channel is 1 at one of 100 places; attention strongly follows it, so its pooled value is 1 and the mean 0.01.
    zeros = np.zeros(2, np.float32)
    head = Head(
        np.array([50], np.float32), zeros[:1], np.eye(2, dtype=np.float32), zeros,
        zeros[None], zeros[:1], zeros[:1], zeros[:1],
    )  # fmt: skip
    F = np.zeros((1, 1, 10, 10), np.float32)
    F[0, 0, 7, 3] = 1
    mean, attended = head.apply(F).embeddings[0]
    assert attended / mean == pytest.approx(100, rel=1e-3)


def test_a_saved_head_reads_back_and_a_wrong_one_is_refused(pair: tuple[SiameseHead, Head], tmp_path: Path) -> None:
    head = pair[1]
    head.save(tmp_path / "head.safetensors")
    data = (tmp_path / "head.safetensors").read_bytes()
    again = Head.parse(data)
    assert np.array_equal(again.projection_weight, head.projection_weight)
    for bad in (b"", data[:40], data[:-4], b"{}" * 30):
        with pytest.raises(BundleError):
            Head.parse(bad)
    misshapen = Head(**{**{n: getattr(head, n) for n in Head.__slots__}, "output_weight": np.zeros(M + 1, np.float32)})
    misshapen.save(tmp_path / "wrong.safetensors")
    with pytest.raises(BundleError, match="output_weight"):
        Head.parse((tmp_path / "wrong.safetensors").read_bytes())
