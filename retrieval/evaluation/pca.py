"""Embeddings on a plane: their first two principal components (Pearson 1901)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Plane"]


@dataclass(frozen=True, slots=True)
class Plane:
    """The plane of the largest variance: `centre` (D,), `axes` (D, 2), and each axis' share of the variance."""

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    shares: tuple[float, float]

    @classmethod
    def fit(cls, embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> "Plane":
        """The plane of N embeddings (N, D), N of at least 1; labels (N,).

        The sign of a component is arbitrary. Here the abnormal embeddings lie, on average, to the right and to the top.
        """
        centre = embeddings.mean(axis=0, dtype=np.float64)
        centred = embeddings - centre
        variances, directions = np.linalg.eigh(centred.T @ centred)  # ascending
        D = len(variances)
        axes = np.zeros((D, 2))
        axes[:, : min(2, D)] = directions[:, ::-1][:, :2]
        axes *= np.where((labels - labels.mean()) @ (centred @ axes) < 0, -1, 1)
        variances = np.concatenate([np.clip(variances[::-1], 0, None), [0.0, 0.0]])
        total = float(variances.sum()) or 1.0
        return cls(centre, axes, (float(variances[0]) / total, float(variances[1]) / total))

    def project(self, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
        """The coordinates of embeddings (N, D) on the plane (N, 2)."""
        points: NDArray[np.float64] = (embeddings - self.centre) @ self.axes
        return points
