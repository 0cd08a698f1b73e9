"""The widths of borderline predictions, learned from an index's own radiographs under mild changes.

N radiographs of S studies, with embeddings of D numbers. A trial is one study under one change; R radiographs are
changed and encoded in all T trials.
"""

import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.case import ABNORMAL
from retrieval.decision.borderline import Borderline, width
from retrieval.decision.leave_patient_out import StudyMatrix
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import LabelledStudies, Teachers
from retrieval.decision.vote import vote_weights
from retrieval.encoding.encoder import Encoded, Encoder
from retrieval.errors import RadiographError
from retrieval.images.corruptions import CORRUPTIONS, corrupt
from retrieval.images.measures import Measures
from retrieval.images.radiograph import read_radiograph

__all__ = ["with_borderline"]

Floats = NDArray[np.float64]

BUDGET = 128  # radiographs that are encoded again, whatever the size of the index
_SHARE, _LEAST = 8, 48  # of a small index: one of 8 radiographs, but not fewer
_CANDIDATES = 500  # studies among which those near the thresholds are looked for
_VIEWS = 3  # of a study that are changed
_FEWEST = 8  # trials of either prediction
_AT_ONCE = 16  # pictures


@dataclass(frozen=True, slots=True)
class _Trial:
    """The rows of a study's radiographs, the change, and whether it is for the classifier (0) or the vote (1)."""

    rows: tuple[int, ...]
    change: str
    reader: int


def with_borderline(
    rules: Rules,
    studies: LabelledStudies,
    *,
    encoder: Encoder,
    paths: Mapping[str, str] | None = None,
    budget: int = BUDGET,
    workers: int | None = None,
) -> Rules:
    """The rules with the widths of borderline predictions (`decision.borderline`) of these studies.

    rules: as `decision.fit_rules.learn_rules` learned them of the studies. paths: the file of each case by its name,
    for records without a path. The studies nearest to each threshold are read and encoded again, each under one mild
    change in turn, until about `budget` radiographs are, or an eighth of a small index. Their own patients never vote.
    The rules stay as they are where too few studies teach, or where too few files can be read.
    """
    teachers = studies.teachers()
    if not teachers.enough:
        return rules
    predictions = _Predictions(rules, studies)
    trials = _trials(predictions, teachers, min(budget, max(_LEAST, len(studies.cases) // _SHARE)))
    files = [Path((paths or {}).get(case.case, case.path)) for case in studies.cases]
    shifts = _shifts(predictions, trials, files, encoder, workers)
    widths: list[float] = []
    for reader in (0, 1):
        reader_shifts = np.array([shift[reader] for trial, shift in shifts if trial.reader == reader])
        if len(reader_shifts) < _FEWEST:
            return rules
        widths.append(width(reader_shifts))
    classifier, knn = widths
    similarity = width(np.array([shift[2] for _, shift in shifts]))
    return replace(rules, borderline=Borderline(classifier, knn, similarity))


class _Predictions:
    """What an index predicts for radiographs of its own patients, who are left out of it."""

    def __init__(self, rules: Rules, studies: LabelledStudies) -> None:
        self.rules = rules
        self._studies = studies
        self._matrix = StudyMatrix(studies.cases, studies.embeddings)
        self._owner_of = np.unique([case.patient for case in studies.cases], return_inverse=True)[1]

    def of(self, rows: NDArray[np.int64], encoded: Encoded) -> Floats:
        """Probability of classifier and vote, and similarity to the nearest study (R, 3).

        rows (R,): of the cases whose radiographs, changed or not, are encoded.
        """
        same_owner = self._owner_of[rows][:, None] == self._owner_of
        by_study = self._matrix.similarities(encoded.embeddings, same_owner)
        k = min(self.rules.k, by_study.shape[1])
        nearest = np.argpartition(-by_study, k - 1, axis=1)[:, :k]
        similarities = np.take_along_axis(by_study, nearest, axis=1)
        weights = vote_weights(similarities, self.rules.temperature)
        votes = (weights * (self._matrix.labels[nearest] == ABNORMAL)).sum(axis=1)
        return np.column_stack(
            (self.rules.probabilities(encoded.logits, encoded.embeddings), votes, similarities.max(axis=1))
        )

    def plain(self, rows: NDArray[np.int64]) -> Floats:
        """The same of the radiographs as they are."""
        return self.of(rows, Encoded(self._studies.embeddings[rows], self._studies.logits[rows]))


def _trials(predictions: _Predictions, teachers: Teachers, budget: int) -> list[_Trial]:
    """The studies nearest to either threshold, each with a change, of `budget` radiographs together."""
    rows, study_of = teachers.rows, teachers.study_of
    studies = np.unique(np.linspace(0, study_of.max(), _CANDIDATES).astype(int))
    views = {int(study): tuple(rows[study_of == study][:_VIEWS].tolist()) for study in studies}
    flat = np.array([row for view_rows in views.values() for row in view_rows])
    starts = np.cumsum([0, *map(len, views.values())])[:-1]
    sums = np.add.reduceat(predictions.plain(flat)[:, :2], starts)
    means = sums / np.array([len(view_rows) for view_rows in views.values()])[:, None]
    thresholds = predictions.rules.classifier_threshold, predictions.rules.vote_threshold
    names = tuple(CORRUPTIONS)
    trials = []
    for reader, threshold in enumerate(thresholds):
        left = budget // 2
        for number, position in enumerate(np.abs(means[:, reader] - threshold).argsort(kind="stable")):
            if left <= 0:
                break
            view_rows = views[int(studies[position])]
            trials.append(_Trial(view_rows, names[number % len(names)], reader))
            left -= len(view_rows)
    return trials


def _shifts(
    predictions: _Predictions,
    trials: Sequence[_Trial],
    files: Sequence[Path],
    encoder: Encoder,
    workers: int | None,
) -> list[tuple[_Trial, Floats]]:
    """By how much each trial moves classifier, vote and similarity (3,); without trials whose files cannot be read."""

    def changed_radiographs(trial: _Trial) -> list[tuple[NDArray[np.uint8], Measures]] | None:
        try:
            pixels = [
                corrupt(read_radiograph(files[row]).pixels, trial.change, 0, zlib.crc32(b"%d" % row))
                for row in trial.rows
            ]
        except RadiographError:
            return None
        return [(encoder.prepare(picture), encoder.measure(picture)) for picture in pixels]

    with ThreadPoolExecutor(workers) as pool:
        read = list(zip(trials, pool.map(changed_radiographs, trials), strict=True))
    done = [(trial, radiographs) for trial, radiographs in read if radiographs is not None]
    if not done:
        return []
    rows = np.array([row for trial, _ in done for row in trial.rows])
    pictures = [picture for _, radiographs in done for picture, _ in radiographs]
    parts = [encoder.encode_prepared(pictures[at : at + _AT_ONCE]) for at in range(0, len(pictures), _AT_ONCE)]
    changed = encoder.harmonised(
        Encoded(np.concatenate([part.embeddings for part in parts]), np.concatenate([part.logits for part in parts])),
        [measures for _, radiographs in done for _, measures in radiographs],
    )
    moved = predictions.of(rows, changed) - predictions.plain(rows)
    starts = np.cumsum([0, *(len(trial.rows) for trial, _ in done)])[:-1]
    means = np.add.reduceat(moved, starts) / np.array([len(trial.rows) for trial, _ in done])[:, None]
    return [(trial, shift) for (trial, _), shift in zip(done, means, strict=True)]
