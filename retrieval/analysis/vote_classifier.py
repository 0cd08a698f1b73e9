"""The k-NN vote of an index as a scikit-learn classifier: `VoteClassifier.from_index(path)`, or fitted on embeddings.

N embeddings of D numbers to fit, Q to predict; C classes, which for an index are "normal" and "abnormal".
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from retrieval.decision.vote import vote_weights
from retrieval.errors import MissingExtra
from retrieval.searcher import Searcher

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingExtra("scikit-learn", "analysis") from error

__all__ = ["VoteClassifier"]

Floats = NDArray[np.float64]


class VoteClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The vote of the `k` nearest studies by cosine, each with the weight softmax(cosine / temperature).

    Rows are embeddings; they need not have unit length. Rows of one study vote once, by the nearest of them. A query
    never meets its own patient, if `predict_proba` and `kneighbors` get its `groups`.
    """

    def __init__(self, k: int = 15, temperature: float = 0.1) -> None:
        self.k = k
        self.temperature = temperature

    @classmethod
    def from_index(cls, path: Path | str | None = None) -> Self:
        """The vote of an index, with its k and temperature; `cases_` are its records, in the order of the rows."""
        with Searcher.open(path) as searcher:
            cases, embeddings, rules = searcher.index.cases(), searcher.index.embeddings(), searcher.rules
        fitted = cls(rules.k, rules.temperature).fit(
            embeddings,
            [case.label_name for case in cases],
            groups=[case.patient for case in cases],
            studies=[case.study for case in cases],
        )
        fitted.cases_ = cases
        return fitted

    def fit(
        self,
        X: Any,
        y: Any,
        groups: Sequence[object] | None = None,
        studies: Sequence[object] | None = None,
    ) -> Self:
        """Keep embeddings X (N, D) with labels y (N,), their patients `groups` (N,) and `studies` (N,).

        By default each row is a study of a patient of its own. Raises ValueError for another number of studies or
        groups than of rows, for k below 1, and for a temperature that is not positive.
        """
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        if self.k < 1 or self.temperature <= 0:
            raise ValueError("k is at least 1, and temperature is positive")
        self.classes_, self._labels = np.unique(y, return_inverse=True)
        self._rows = _unit(X)
        self._groups = None if groups is None else np.asarray(groups, dtype=object)
        names = np.arange(len(X)) if studies is None else np.asarray(studies, dtype=object)
        self._studies = np.unique(names.astype(str) if studies is not None else names, return_inverse=True)[1]
        if any(part is not None and len(part) != len(X) for part in (self._groups, self._studies)):
            raise ValueError("groups and studies need a value for each row")
        return self

    def kneighbors(
        self, X: Any, n_neighbors: int | None = None, groups: Sequence[object] | None = None
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Cosine distances (Q, k) and rows (Q, k) of the nearest studies, the nearest first.

        groups (Q,): the patients of the queries, whose rows do not count. A query with fewer neighbours has distances
        inf and rows -1. Raises ValueError for groups if `fit` had none.
        """
        check_is_fitted(self)
        queries = _unit(validate_data(self, X, reset=False, dtype=np.float64))
        similarities = queries @ self._rows.T  # (Q, N)
        if groups is not None:
            if self._groups is None:
                raise ValueError("groups of queries need groups in fit")
            similarities[np.asarray(groups, dtype=object)[:, None] == self._groups] = -np.inf
        k = min(n_neighbors or self.k, len(np.unique(self._studies)))
        distances, rows = np.full((len(queries), k), np.inf), np.full((len(queries), k), -1)
        for query, row in enumerate(similarities):
            order = np.argsort(-row, kind="stable")
            order = order[np.isfinite(row[order])]
            nearest = order[np.sort(np.unique(self._studies[order], return_index=True)[1])][:k]
            distances[query, : len(nearest)], rows[query, : len(nearest)] = 1 - row[nearest], nearest
        return distances, rows

    def predict_proba(self, X: Any, groups: Sequence[object] | None = None) -> Floats:
        """The probability of each class (Q, C); without a neighbour all classes are as probable."""
        distances, rows = self.kneighbors(X, groups=groups)
        weights = vote_weights(1 - distances, self.temperature)
        votes = np.stack(
            [(weights * (self._labels[rows] == label)).sum(axis=1) for label in range(len(self.classes_))], 1
        )
        total = votes.sum(axis=1, keepdims=True)
        probabilities: Floats = np.where(total > 0, votes / np.where(total > 0, total, 1), 1 / len(self.classes_))
        return probabilities

    def predict(self, X: Any, groups: Sequence[object] | None = None) -> NDArray[Any]:
        """The most probable class of each row (Q,)."""
        probabilities = self.predict_proba(X, groups)
        predicted: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return predicted


def _unit(rows: Floats) -> Floats:
    """The rows with unit length; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
