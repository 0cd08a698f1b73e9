"""Dividing a collection by patient, so that nobody is on both sides."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from index.case import Case

__all__ = ["VALID_SHARE", "draw", "patient_folds", "split_by_patient"]

VALID_SHARE = 0.3


def draw(patient: str, seed: int) -> float:
    """A number in [0, 1) that depends on patient and seed alone, the same on every machine.

    A patient therefore stays on one side when others join or leave the collection, which no shuffling gives.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{patient}".encode()).digest()[:8]) / 2**64


def split_by_patient(cases: Sequence[Case], share: float = VALID_SHARE, seed: int = 0) -> tuple[Case, ...]:
    """The cases with `split` set: "valid" for about `share` of the patients, "train" for the others."""
    return tuple(replace(case, split="valid" if draw(case.patient, seed) < share else "train") for case in cases)


def patient_folds(cases: Sequence[Case], k: int, seed: int = 0) -> list[int]:
    """The fold of each case, 0 to k - 1: a patient's cases lie in one, and abnormal patients are spread evenly.

    Patients are ordered by whether any study of theirs is abnormal, then by `draw`, and dealt out in turn. k of at
    least 2; with fewer patients than k some folds are empty.
    """
    if k < 2:
        raise ValueError(f"cross-validation needs at least 2 folds, not {k}")
    abnormal: dict[str, int] = {}
    for case in cases:
        abnormal[case.patient] = max(abnormal.get(case.patient, 0), case.label)
    ordered = sorted(abnormal, key=lambda patient: (abnormal[patient], draw(patient, seed), patient))
    fold = {patient: number % k for number, patient in enumerate(ordered)}
    return [fold[case.patient] for case in cases]
