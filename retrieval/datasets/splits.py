"""Dividing a collection by patient, so that nobody is on both sides."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from index.case import Case

__all__ = ["SPLITS", "VALID_SHARE", "draw", "held_out_patients", "patient_folds", "split_by_patient", "split_name"]

SPLITS = ("train", "valid", "test")
VALID_SHARE = 0.3
_MANY = 20  # patients: of so many, independent draws seldom hold out far too few or too many


def draw(patient: str, seed: int) -> float:
    """A number in [0, 1) that depends on patient and seed alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{patient}".encode()).digest()[:8]) / 2**64


def held_out_patients(cases: Iterable[Case], share: float, seed: int = 0) -> frozenset[str]:
    """About `share` of the patients, stratified: of those with an abnormal study and of the others alike.

    From 20 patients of a stratum on, each is held out where its `draw` is below `share`, so it stays on its side when
    others join or leave. Of fewer, those with the lowest draws are, as many as the share says. Where a stratum has two
    patients or more, both sides get at least one.
    """
    held: set[str] = set()
    abnormal = _abnormal(cases)
    for label in (0, 1):
        draws = sorted(
            (draw(patient, seed), patient) for patient, has_abnormal in abnormal.items() if has_abnormal == label
        )
        n = len(draws)
        count = sum(number < share for number, _ in draws) if n >= _MANY else round(share * n)
        count = min(max(count, 1), n - 1) if n > 1 else count
        held.update(patient for _, patient in draws[:count])
    return frozenset(held)


def split_by_patient(cases: Sequence[Case], share: float = VALID_SHARE, seed: int = 0) -> tuple[Case, ...]:
    """The cases with `split` set: "valid" for the patients that `held_out_patients` gives, "train" for the others."""
    held = held_out_patients(cases, share, seed)
    return tuple(replace(case, split="valid" if case.patient in held else "train") for case in cases)


def _abnormal(cases: Iterable[Case]) -> dict[str, int]:
    """Whether any study of each patient is abnormal, 1 or 0."""
    abnormal: dict[str, int] = {}
    for case in cases:
        abnormal[case.patient] = max(abnormal.get(case.patient, 0), case.label)
    return abnormal


def patient_folds(cases: Sequence[Case], k: int, seed: int = 0) -> list[int]:
    """The fold of each case, 0 to k - 1: a patient's cases lie in one, and abnormal patients are spread evenly.

    Patients are ordered by whether any of their studies is abnormal, then by `draw`, and dealt out in turn. With
    fewer patients than k some folds are empty. Raises ValueError for k below 2.
    """
    if k < 2:
        raise ValueError(f"cross-validation needs at least 2 folds, not {k}")
    abnormal = _abnormal(cases)
    ordered = sorted(abnormal, key=lambda patient: (abnormal[patient], draw(patient, seed), patient))
    fold = {patient: number % k for number, patient in enumerate(ordered)}
    return [fold[case.patient] for case in cases]


_SYNONYMS = {
    "train": ("train", "training", "trn"),
    "valid": ("valid", "val", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "tst"),
}
_NAMES = {synonym: name for name, synonyms in _SYNONYMS.items() for synonym in synonyms}


def split_name(text: str) -> str:
    """One name for a split: "train", "valid" or "test" for their usual synonyms, else the text in lower case.

    >>> split_name(" Validation "), split_name("fold 3")
    ('valid', 'fold 3')
    """
    name = text.strip().lower()
    return _NAMES.get(name.removesuffix("set").rstrip(" _-"), name)
