"""From scores to probabilities and from probabilities to calls: Platt's calibration and the threshold of best kappa."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_threshold", "fit_platt", "sigmoid"]

Floats = NDArray[np.float64]


def sigmoid(x: NDArray[np.floating]) -> Floats:
    """1 / (1 + exp(-x)), without overflow for any x."""
    x = np.asarray(x, np.float64)
    decay = np.exp(-np.abs(x))
    probability: Floats = np.where(x >= 0, 1, decay) / (1 + decay)
    return probability


def fit_platt(logits: Floats, labels: NDArray[np.int64], weights: Floats) -> tuple[float, float]:
    """Slope and intercept so that sigmoid(slope * logit + intercept) is the probability of label 1.

    logits, labels of 0 and 1, weights: (N,). Platt (1999): maximum likelihood with the targets (N+ + 1) / (N+ + 2) and
    1 / (N- + 2) in place of 1 and 0, which keeps the slope finite on separable data; N+ and N- are sums of weights.
    Newton's method with halved steps (Lin, Lin and Weng 2007).
    """
    positives = float(weights @ (labels == 1))
    negatives = float(weights @ (labels == 0))
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    inputs = np.stack([logits, np.ones_like(logits)])  # (2, N)

    def loss(solution: Floats) -> float:
        z = solution @ inputs
        return float(weights @ (np.logaddexp(0, z) - targets * z))

    solution = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    current = loss(solution)
    for _ in range(100):
        p = sigmoid(solution @ inputs)
        gradient = inputs @ (weights * (p - targets))
        if np.abs(gradient).max() < 1e-8 * max(1.0, float(weights.sum())):
            break
        hessian = (inputs * (weights * p * (1 - p))) @ inputs.T + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-10 and loss(solution - size * step) > current - 1e-4 * size * float(gradient @ step):
            size /= 2
        if size <= 1e-10:
            break
        solution = solution - size * step
        current = loss(solution)
    return float(solution[0]), float(solution[1])


def best_threshold(labels: NDArray[np.int64], probabilities: Floats) -> float:
    """Find the threshold in (0, 1) of the highest Cohen's kappa, where "above" is called abnormal.

    labels (N,) of 0 and 1, probabilities (N,) in [0, 1]. Thresholds between two neighbouring probabilities call alike;
    of each unbroken run of best ones it takes the middle, and of these the one nearest to 0.5. Where no threshold beats
    chance, 0.5.
    """
    distinct, place = np.unique(probabilities, return_inverse=True)
    edges = np.concatenate([[0.0], distinct, [1.0]])
    # Cut i is a threshold in [edges[i], edges[i + 1]): the probabilities distinct[:i] are called normal.
    abnormal = np.bincount(place, labels == 1, len(distinct))
    normal = np.bincount(place, labels == 0, len(distinct))
    fn = np.concatenate([[0.0], np.cumsum(abnormal)])
    tn = np.concatenate([[0.0], np.cumsum(normal)])
    N, positives, negatives = len(labels), fn[-1], tn[-1]
    agreed = (positives - fn + tn) / N
    called_normal = fn + tn
    chance = (positives * (N - called_normal) + negatives * called_normal) / N**2
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = np.where(edges[1:] > edges[:-1], (agreed - chance) / (1 - chance), -np.inf)
    best = float(np.nanmax(kappa, initial=0.0))
    if best <= 1e-12:
        return 0.5
    cuts = np.flatnonzero(kappa >= best - 1e-12)
    runs = np.split(cuts, np.flatnonzero(np.diff(cuts) > 1) + 1)
    middles = [float(edges[run[0]] + edges[run[-1] + 1]) / 2 for run in runs]
    return min(middles, key=lambda middle: abs(middle - 0.5))
