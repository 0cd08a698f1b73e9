"""Learning what other processing does to the embeddings of a model (`retrieval.encoding.harmonisation`).

Some training radiographs are encoded as they are and in copies that were processed otherwise (`data.processing`). For
copies c of radiographs r with covariates beyond their range h, and embeddings e, the weight is that of a ridge
regression without intercept:

    W = argmin sum |(e_c - e_r) - (h_c - h_r) W|^2 + penalty |W|^2
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.encoding.encoder import Encoder
from retrieval.encoding.harmonisation import Harmonisation, covariates
from retrieval.errors import RadiographError
from retrieval.images.measures import Measures
from retrieval.images.preprocessing import Letterbox
from retrieval.images.radiograph import read_radiograph
from training.data.processing import processed

__all__ = ["fit_harmonisation"]

MOST = 1_000  # radiographs that are measured
RADIOGRAPHS, COPIES = 250, 3  # of them that are encoded, and of each
RANGE = 0.1, 0.9  # quantiles of the training radiographs
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
_FEWEST = 50  # radiographs
_FOLDS, _AT_ONCE = 5, 4

Picture = NDArray[np.uint8]
Floats = NDArray[np.float64]


def fit_harmonisation(
    encoder: Encoder,
    cases: Sequence[Case],
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Harmonisation | None:
    """The layer for `encoder`, from the files of cases that trained it; None where fewer than 50 can be read.

    The penalty is the one that predicts best in five folds by patient.
    """
    order = np.random.default_rng(seed).permutation(len(cases))[:MOST]
    measures: list[Measures] = []
    versions: list[tuple[int, Measures, NDArray[np.float32]]] = []  # the row of a case; a radiograph before its copies
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(order), _AT_ONCE):
            rows = order[start : start + _AT_ONCE].tolist()
            copies = COPIES if start < RADIOGRAPHS else 0
            read = pool.map(lambda row: _versions(encoder, cases[row], (seed, row), copies), rows)  # noqa: B023  # it is read at once
            for row, pictures in zip(rows, read, strict=True):
                measures += [encoder.measure(pictures[0])] if pictures else []
                if pictures and copies:
                    embeddings = encoder.encode_prepared([encoder.prepare(picture) for picture in pictures]).embeddings
                    versions += [(row, encoder.measure(p), e) for p, e in zip(pictures, embeddings, strict=True)]
            progress(start + len(rows), len(order))
    if len(measures) < _FEWEST:
        return None
    x = covariates(measures)
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    low, high = np.quantile((x - mean) / scale, RANGE, axis=0)
    layer = Harmonisation(mean, scale, low, high, np.zeros((2 * len(mean), encoder.bundle.dimension)))
    h = layer.beyond([measures_of_copy for _, measures_of_copy, _ in versions])
    e = np.array([embedding for _, _, embedding in versions], np.float64)
    original = np.arange(len(versions)) // (1 + COPIES) * (1 + COPIES)
    patients = np.unique([cases[row].patient for row, _, _ in versions], return_inverse=True)[1]
    return replace(layer, weight=_weight(h - h[original], e - e[original], patients % _FOLDS))


def _versions(encoder: Encoder, case: Case, seed: tuple[int, int], copies: int) -> list[Picture]:
    """A radiograph at the encoder's scale, grey, and copies of it that were processed otherwise; [] if unreadable."""
    try:
        pixels = read_radiograph(Path(case.path), case.case).pixels
    except RadiographError:
        return []
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8) if pixels.ndim == 3 else pixels
    box = Letterbox.fit(grey.shape[0], grey.shape[1], encoder.bundle.preprocessing.size)
    interpolation = cv2.INTER_AREA if box.height < grey.shape[0] or box.width < grey.shape[1] else cv2.INTER_LINEAR
    seen = np.asarray(cv2.resize(grey, (box.width, box.height), interpolation=interpolation), np.uint8)
    generator = np.random.default_rng(seed)
    made = [seen]
    while len(made) <= copies:
        copy = processed(seen, generator)
        made += [] if copy is None else [copy]
    return made


def _weight(h: Floats, e: Floats, folds: NDArray[np.int64]) -> Floats:
    """The ridge regression of the changes e (N, D) on h (N, 2M), with the penalty that predicts other folds best."""

    def solved(rows: NDArray[np.bool_], penalty: float) -> Floats:
        design = h[rows]
        return np.asarray(np.linalg.solve(design.T @ design + penalty * np.eye(h.shape[1]), design.T @ e[rows]))

    def error(penalty: float) -> float:
        return sum(
            float(((e[folds == fold] - h[folds == fold] @ solved(folds != fold, penalty)) ** 2).sum())
            for fold in range(_FOLDS)
        )

    return solved(np.ones(len(h), np.bool_), min(PENALTIES, key=error))
