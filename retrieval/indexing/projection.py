"""The map of an index: a place in the plane for each study, so that studies that look alike lie close together.

N studies, D numbers of an embedding. The mean embeddings of the studies are reduced to at most 50 numbers by principal
components, and these to two by t-SNE (van der Maaten and Hinton 2008) with openTSNE (Policar et al. 2024), or to the
first two principal components. Distances on the map say who is next to whom; large ones mean nothing.

With each place the index keeps the classifier's probability of the study and the vote of the others, without its own
patient. So the map can show where the two disagree.
"""

import os
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from math import isnan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from index.errors import IndexFailure, MissingExtra
from index.reader import IndexReader
from index.writer import IndexWriter
from retrieval.decision.vote import study_vote
from retrieval.searcher import Searcher

__all__ = ["METHODS", "Place", "Projection", "project_index", "project_rows", "stored_places"]

METHODS = ("tsne", "pca")
COMPONENTS = 50
_FORMAT = struct.Struct("<4f")  # x, y, the classifier's probability, the vote (NaN for none)
EXAGGERATED, ITERATIONS = 250, 500  # of t-SNE: with neighbours drawn together, and without
_EVERY = 10  # iterations between two calls of `progress`
_AT_ONCE = 256  # studies that are searched for together

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a study is on the map, x and y in [0, 1], and its probabilities; no vote where nothing could vote."""

    x: float
    y: float
    classifier: float
    vote: float | None


@dataclass(frozen=True, slots=True)
class Projection:
    """The result of `project_index`: how many studies were placed, by which method, and how long it took."""

    path: str
    studies: int
    method: str
    seconds: float


def project_rows(embeddings: Floats, method: str = "pca", seed: int = 0, progress: Progress | None = None) -> Floats:
    """The places (N, 2) of embeddings (N, D), each axis from 0 to 1; the same seed gives the same map.

    `progress` is called with (iterations done, all) of t-SNE. Raises ValueError for an unknown method, MissingExtra for
    t-SNE without openTSNE.
    """
    if method not in METHODS:
        raise ValueError(f"a method is one of {', '.join(METHODS)}, not {method}")
    components = _principal(np.asarray(embeddings, np.float64), COMPONENTS)
    places = components[:, :2]
    if method == "tsne" and len(embeddings) > 3:
        places = _tsne(components, seed, progress)
    low, high = places.min(0, initial=np.inf), places.max(0, initial=-np.inf)
    span = np.where(high > low, high - low, 1.0)
    return np.asarray(np.where(high > low, (places - low) / span, 0.5), np.float32)


def project_index(
    path: Path,
    *,
    method: str | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Projection:
    """Make the map of an index and keep it there. method: by default t-SNE if openTSNE is installed.

    `progress` is called with ("placing", iterations of t-SNE done, all) and with ("comparing", studies done, all). An
    interruption leaves the index as it was. Raises IndexFailure, also if the index is changed meanwhile.
    """
    started = time.perf_counter()
    chosen = method or ("tsne" if find_spec("openTSNE") else "pca")
    with Searcher.open(path) as searcher:
        cases, embeddings = searcher.index.cases(), searcher.index.embeddings()
        rows = _rows_by_study(cases)
        if not rows:
            raise IndexFailure(f"{path} holds no study to place on a map")
        means = np.stack([embeddings[study_rows].mean(0) for study_rows in rows.values()])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        places = project_rows(means, chosen, seed, partial(progress, "placing") if progress else None)
        probabilities = searcher.rules.probabilities(searcher.index.logits(), embeddings)
        classifier = [float(probabilities[study_rows].mean()) for study_rows in rows.values()]
        votes = _votes(searcher, cases, embeddings, rows, partial(progress, "comparing") if progress else None)
    data: dict[str, bytes] = {}
    for (study, study_rows), place, probability in zip(rows.items(), places, classifier, strict=True):
        vote = votes[study]
        packed = _FORMAT.pack(*map(float, place), probability, float("nan") if vote is None else vote)
        data |= {cases[row].case: packed for row in study_rows}
    with IndexWriter.open(path) as writer:
        if writer.cases() != cases:
            raise IndexFailure(f"{path} was changed while its map was made; make the map again")
        writer.put("projection", data, "project", method=chosen)
    return Projection(str(path), len(rows), chosen, time.perf_counter() - started)


def stored_places(index: IndexReader) -> dict[str, Place]:
    """The places of the indexed studies by name; a study added since the map was made has none."""
    places = {}
    for case, data in index.read_whole(lambda: zip(index.cases(), index.extra("projection"), strict=True)):
        if not data:
            continue
        x, y, classifier, vote = _FORMAT.unpack(data)
        places[case.study] = Place(x, y, classifier, None if isnan(vote) else vote)
    return places


def _rows_by_study(cases: Sequence[Case]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, case in enumerate(cases):
        rows.setdefault(case.study, []).append(row)
    return rows


def _votes(
    searcher: Searcher,
    cases: Sequence[Case],
    embeddings: Floats,
    rows: dict[str, list[int]],
    progress: Progress | None,
) -> dict[str, float | None]:
    """The vote on each study, without its own patient."""
    votes: dict[str, float | None] = {}
    studies = list(rows)
    for start in range(0, len(studies), _AT_ONCE):
        batch = studies[start : start + _AT_ONCE]
        asked = [row for study in batch for row in rows[study]]
        hits = iter(
            searcher.index.search(
                embeddings[asked], searcher.rules.k, exclude_patients=[[cases[row].patient] for row in asked]
            )
        )
        for study in batch:
            votes[study] = study_vote([next(hits) for _ in rows[study]], searcher.rules.temperature).probability
        if progress:
            progress(start + len(batch), len(studies))
    return votes


def _principal(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The first principal components (N, at least 2) of N rows; each has its largest weight positive."""
    centred = values - values.mean(0)
    spread, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, np.argsort(-spread, kind="stable")][:, :count]
    signs = np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    components = centred @ (axes * np.where(signs == 0, 1, signs))
    return np.pad(components, ((0, 0), (0, max(0, 2 - components.shape[1]))))


def _tsne(components: NDArray[np.float64], seed: int, progress: Progress | None) -> NDArray[np.float64]:
    """The places (N, 2) by t-SNE of components (N, C), from the first two of these, N at least 4."""
    try:
        from openTSNE import TSNEEmbedding
        from openTSNE.affinity import PerplexityBasedNN
    except ImportError as error:
        raise MissingExtra("openTSNE", "analysis") from error

    def tell(iteration: int, _divergence: float, _places: object, before: int = 0) -> None:
        if progress:
            progress(before + iteration, EXAGGERATED + ITERATIONS)

    jobs = os.cpu_count() or 1
    perplexity = min(30.0, max(1.0, (len(components) - 1) / 3))
    affinities = PerplexityBasedNN(components, perplexity, n_jobs=jobs, random_state=seed)
    start = components[:, :2] / max(float(components[:, 0].std()), 1e-12) * 1e-4
    made = TSNEEmbedding(start, affinities, n_jobs=jobs, random_state=seed)
    reporting = {"callbacks": tell, "callbacks_every_iters": _EVERY}
    made.optimize(EXAGGERATED, inplace=True, exaggeration=12, momentum=0.5, **reporting)
    reporting["callbacks"] = partial(tell, before=EXAGGERATED)
    made.optimize(ITERATIONS, inplace=True, momentum=0.8, **reporting)
    return np.array(made, np.float64)
