import torch
from torch import Tensor, nn

from training.model.siamese import Siamese


class Noted(nn.Conv2d):
    """A backbone of one layer, which notes in what precision it answered."""

    precision = torch.float64

    def forward(self, pictures: Tensor) -> Tensor:
        maps = super().forward(pictures)
        self.precision = maps.dtype
        return maps


def test_under_autocast_the_head_keeps_its_digits() -> None:
    torch.manual_seed(0)
    network = Siamese(Noted(3, 32, 3), 32, 128, 8)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(torch.rand(4, 3, 16, 16))
    assert network.backbone.precision == torch.bfloat16
    assert {part.dtype for part in output} == {torch.float32}
    torch.testing.assert_close(output.embeddings.norm(dim=1), torch.ones(4), atol=1e-6, rtol=0)
    sum(part.sum() for part in output).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_embeddings_and_logits_are_equal_in_both_precisions_where_the_maps_are() -> None:
    torch.manual_seed(0)
    network = Siamese(nn.Identity(), 3, 128, 8)
    pictures = torch.rand(4, 3, 16, 16)
    plain = network(pictures)
    with torch.autocast("cpu", torch.bfloat16):
        for part, expected in zip(network(pictures), plain, strict=True):
            assert torch.equal(part, expected)
