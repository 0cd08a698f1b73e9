"""A second, smaller look by the network as it was before it was trained, beside the trained one's.

A network that learned from few radiographs knows those by heart and errs on new ones in ways of its own. The network as
it began (ImageNet's), asked at half the size for nothing but a logistic regression on its features, cannot learn
anything by heart, and errs elsewhere. In five folds one network with a glance and looks could not be told from a soup
of three (docs/fracatlas.md). It costs a third more time a query. Both are one network to everybody else:

    F = [ f(x) ; up(f0(half(x))) ]                             (2C, h, w)

f is the trained network, f0 the one it began as; half takes means of 2 x 2 pixels, up repeats each place 2 x 2 times.
With g = r.mean_p f0 + t the regression's log-odds, where both labels are equally probable, embedding and logit become

    v = [ sqrt(1 - w) R v_old / a ; sqrt(w) g / s ],  e = v / |v|        logit = (c(e) + g') / 2

    R        the first D - 1 principal axes of v_old, not centred
    a, s     root mean square lengths of what they divide, over radiographs trained on, so that w is g's share of |v|^2
    c        the classifier, which is trained anew on e without its last number
    g'       s / sqrt(w) times the last number of e, which is g but for the length of v

The last needs no other form of head: two hidden units, relu(x) - relu(-x) = x.
"""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from retrieval.encoding.encoder import Encoder
from training.data.dataset import TrainingSet
from training.export.appearance_subspace import principal_axes, root_mean_square
from training.export.probes import AS_IS, Shown, fit_layer
from training.model.siamese import Siamese, SiameseHead

__all__ = ["TwoScales", "glances", "heed_glance", "share_with_glance", "with_glance"]

PENALTY = 100.0  # of the squared weights, half, against the summed loss: scikit-learn's C = 0.01
_AT_ONCE = 16


class TwoScales(nn.Module):
    """F of the equation above, of pictures (B, 3, S, S) with S a multiple of 64."""

    def __init__(self, near: nn.Module, far: nn.Module) -> None:
        super().__init__()
        self.near, self.far = near, far

    def forward(self, pictures: Tensor) -> Tensor:
        far: Tensor = self.far(avg_pool2d(pictures, 2))
        return torch.cat((self.near(pictures), far.repeat_interleave(2, 2).repeat_interleave(2, 3)), 1)


def with_glance(model: Siamese, start: nn.Module) -> Siamese:
    """The same network with `start` beside it, which its head does not heed yet; nothing is shared with `model`."""
    head, C = model.head, model.head.attention.in_channels
    made = Siamese(
        TwoScales(copy.deepcopy(model.backbone), start), 2 * C, head.projection.out_features, head.hidden.out_features
    )
    made.frozen_statistics = model.frozen_statistics
    with torch.no_grad():
        made.head.attention.weight[:, :C] = head.attention.weight
        made.head.attention.load_state_dict({**made.head.attention.state_dict(), "bias": head.attention.bias})
        made.head.projection.weight.zero_()
        for old, new in ((0, 0), (C, 2 * C)):  # of the mean, and of what is attended to
            made.head.projection.weight[:, new : new + C] = head.projection.weight[:, old : old + C]
        made.head.projection.bias.copy_(head.projection.bias)
        made.head.hidden.load_state_dict(head.hidden.state_dict())
        made.head.output.load_state_dict(head.output.state_dict())
    return made.eval()


def glances(
    encoder: Encoder, data: TrainingSet, progress: Callable[[int, int], None] = lambda done, of: None
) -> NDArray[np.float32]:
    """What the smaller look gives of prepared radiographs, mean-pooled, (N, C); the encoder is of both scales."""
    found, N = [], len(data.cases)
    for start in range(0, N, _AT_ONCE):
        stop = min(start + _AT_ONCE, N)
        pictures, _ = data.take(range(start, stop))
        maps = encoder.maps(list(np.broadcast_to(pictures, (*pictures.shape[:3], 3))))
        found.append(maps[:, maps.shape[1] // 2 :].mean((2, 3)))
        progress(stop, N)
    return np.concatenate(found)


def share_with_glance(
    head: SiameseHead, shown: Shown, seen: NDArray[np.float32], labels: Sequence[int], share: float
) -> float:
    """Replace the projection by the equation's; gives s / sqrt(w), for `heed_glance`.

    head: of a network that `with_glance` made. shown: radiographs trained on. seen (N, C), labels (N,): `glances` of
    radiographs trained on. share: w, above 0 and below 1.
    """
    C = head.attention.in_channels // 2
    y = np.array(labels, np.int64)
    layer, constant = fit_layer(seen, y, penalty=PENALTY)
    r, t = np.zeros(4 * C), constant[0] - np.log(y.mean() / (1 - y.mean()))
    r[C : 2 * C] = layer[0]
    z = shown.features[:, AS_IS].astype(np.float64)
    P, q = (part.detach().cpu().numpy().astype(np.float64) for part in (head.projection.weight, head.projection.bias))
    v, s = z @ P.T + q, root_mean_square((z @ r + t)[:, None])
    R = principal_axes(v)[1][: len(q) - 1]
    R *= np.sqrt(1 - share) / root_mean_square(v @ R.T)
    weight, bias = np.zeros_like(P), np.zeros_like(q)
    weight[: len(R)], bias[: len(R)] = R @ P, R @ q
    weight[-1], bias[-1] = np.sqrt(share) / s * r, np.sqrt(share) / s * t
    with torch.no_grad():
        head.projection.weight.copy_(torch.from_numpy(weight))
        head.projection.bias.copy_(torch.from_numpy(bias))
    return float(s / np.sqrt(share))


def heed_glance(head: SiameseHead, slope: float) -> None:
    """Make the classifier c the mean of it, without an embedding's last number, and of `slope` times that number."""
    M, D = head.hidden.weight.shape
    hidden, output = nn.Linear(D, M + 2), nn.Linear(M + 2, 1)
    with torch.no_grad():
        hidden.weight.zero_()
        hidden.weight[:M, :-1] = head.hidden.weight[:, :-1]
        hidden.weight[M:, -1] = torch.tensor([1.0, -1.0])
        hidden.bias.zero_()
        hidden.bias[:M] = head.hidden.bias
        output.weight[:, :M] = head.output.weight / 2
        output.weight[:, M:] = torch.tensor([slope, -slope]) / 2
        output.bias.copy_(head.output.bias / 2)
    head.hidden, head.output = hidden, output
