"""Which of an index's studies teach its decision rules.

A study teaches where the model was not trained on its patient, so that its logit and its neighbours are what a new
patient's would be. N radiographs of labelled studies; V of them belong to the S studies that teach.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.decision.local_classifier import Teaching
from retrieval.encoding.bundle import digest_number

__all__ = ["FEWEST", "LabelledStudies", "Teachers"]

# Fewer teaching studies than this of either label say too little about thresholds.
FEWEST = 20
# Leaving patients out costs teachers x cases; this many studies settle six numbers.
MOST = 5_000


@dataclass(frozen=True, slots=True)
class Teachers:
    """The radiographs that teach: their rows (V,), the number of the study of each (V,), the studies' labels (S,)."""

    rows: NDArray[np.int64]
    study_of: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def enough(self) -> bool:
        """Whether there are at least 20 studies of either label."""
        return bool(np.bincount(self.labels, minlength=2).min() >= FEWEST)


@dataclass(frozen=True, slots=True)
class LabelledStudies:
    """Encoded radiographs of labelled studies: cases N, embeddings (N, D) of unit length, the model's logits (N,).

    `trained_on` are the radiographs that the model was trained on, as `Bundle.seen` numbers them.
    """

    cases: Sequence[Case]
    embeddings: NDArray[np.float32]
    logits: NDArray[np.float32]
    trained_on: Collection[int] = frozenset()

    def teachers(self) -> Teachers:
        """The radiographs of patients on whom the model was not trained; of many studies, 5,000 taken evenly."""
        owners: dict[str, set[str]] = defaultdict(set)
        for case in self.cases:
            owners[case.digest].add(case.patient)
        # A radiograph that also lies under another patient finds itself there, whichever patient is left out.
        barred = {
            case.patient
            for case in self.cases
            if case.digest and (digest_number(case.digest) in self.trained_on or len(owners[case.digest]) > 1)
        }
        studies = sorted({case.study for case in self.cases if case.patient not in barred})
        if len(studies) > MOST:
            studies = [studies[i] for i in np.linspace(0, len(studies) - 1, MOST).astype(int)]
        return self._teachers(studies)

    def everyone(self) -> Teachers:
        """All radiographs, as those that teach."""
        return self._teachers(sorted({case.study for case in self.cases}))

    def _teachers(self, studies: Sequence[str]) -> Teachers:
        number = {study: i for i, study in enumerate(studies)}
        rows = [row for row, case in enumerate(self.cases) if case.study in number]
        study_of = np.array([number[self.cases[row].study] for row in rows], np.int64)
        labels = np.zeros(len(studies), np.int64)
        labels[study_of] = [self.cases[row].label for row in rows]
        return Teachers(np.array(rows, np.int64), study_of, labels)

    def teaching(self, teachers: Teachers) -> Teaching:
        """What teaches a local classifier."""
        rows, study_of = teachers.rows, teachers.study_of
        owner = dict(zip(study_of.tolist(), (self.cases[row].patient for row in rows), strict=True))
        patients = [owner[study] for study in range(len(teachers.labels))]
        return Teaching(self.embeddings[rows], self.logits[rows], study_of, teachers.labels, patients)
