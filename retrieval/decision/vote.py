"""How the nearest labelled studies vote on a study.

V views (radiographs of one study), K neighbours of a view. A view's vote is sum_i w_i y_i with w = softmax(s / T) over
its K nearest studies of similarity s_i and label y_i. A study's vote is the mean over its views (MURA's protocol).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.case import ABNORMAL
from index.hits import Hit

__all__ = ["StudyVote", "merged", "study_vote", "vote_weights"]


@dataclass(frozen=True, slots=True)
class StudyVote:
    """What the neighbours of a study say together.

    `probability` of abnormality, None where nothing could vote; `views` the same of each view; `voters` how many
    studies voted on a view; `weights` each voting study's part, the mean over the views: they sum to 1.
    """

    probability: float | None
    views: tuple[float, ...]
    voters: int
    weights: Mapping[str, float]


def vote_weights(similarities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Softmax of similarity / temperature over the last axis: weights of the same shape, in [0, 1].

    A similarity of -inf stands for "no neighbour" and has no weight; without any neighbour all weights are 0.
    """
    scaled = np.asarray(similarities, np.float64) / temperature
    peak = scaled.max(axis=-1, keepdims=True, initial=-np.inf)
    scaled = np.exp(scaled - np.where(np.isfinite(peak), peak, 0))
    weights: NDArray[np.float64] = scaled / np.maximum(scaled.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    return weights


def study_vote(views: Sequence[Sequence[Hit]], temperature: float) -> StudyVote:
    """Let the hits of every view vote. views: for each view its K nearest studies, one hit a study."""
    voting = [hits for hits in views if hits]
    weights: dict[str, float] = {}
    votes: list[float] = []
    for hits in voting:
        shares = vote_weights([hit.similarity for hit in hits], temperature).tolist()
        abnormal = sum(share for share, hit in zip(shares, hits, strict=True) if hit.case.label == ABNORMAL)
        votes.append(min(1.0, abnormal))  # the shares sum to 1 but for rounding
        for share, hit in zip(shares, hits, strict=True):
            weights[hit.case.study] = weights.get(hit.case.study, 0.0) + share / len(voting)
    return StudyVote(
        probability=sum(votes) / len(votes) if votes else None,
        views=tuple(votes),
        voters=max(map(len, voting), default=0),
        weights=weights,
    )


def merged(views: Sequence[Sequence[Hit]]) -> list[Hit]:
    """The hits of all views together: each study once, by its most similar hit; descending, then by study."""
    nearest: dict[str, Hit] = {}
    for hits in views:
        for hit in hits:
            kept = nearest.get(hit.case.study)
            if kept is None or hit.similarity > kept.similarity:
                nearest[hit.case.study] = hit
    return sorted(nearest.values(), key=lambda hit: (-hit.similarity, hit.case.study))
