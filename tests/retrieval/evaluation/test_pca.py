"""The plane of principal components, against scikit-learn."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from retrieval.evaluation.pca import Plane


def test_the_plane_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    embeddings = (rng.standard_normal((50, 8)) * np.arange(1, 9)).astype(np.float32)
    labels = rng.integers(0, 2, 50)
    plane = Plane.fit(embeddings, labels)
    oracle = PCA(2).fit(embeddings.astype(np.float64))
    points, theirs = plane.project(embeddings), oracle.transform(embeddings.astype(np.float64))
    assert np.abs(points) == pytest.approx(np.abs(theirs), abs=1e-4)
    assert plane.shares == pytest.approx(oracle.explained_variance_ratio_, rel=1e-6)
    assert (points[labels == 1].mean(axis=0) >= points[labels == 0].mean(axis=0)).all()


@pytest.mark.parametrize("embeddings", [np.ones((1, 4)), np.ones((5, 4)), np.arange(6.0).reshape(6, 1)])
def test_what_has_no_plane_still_has_places(embeddings: np.ndarray) -> None:
    plane = Plane.fit(embeddings.astype(np.float32), np.zeros(len(embeddings), np.int64))
    points = plane.project(embeddings.astype(np.float32))
    assert points.shape == (len(embeddings), 2)
    assert np.isfinite(points).all()
    assert 0 <= sum(plane.shares) <= 1 + 1e-9
