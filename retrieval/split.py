"""Dividing a collection by patient, so that nobody is on both sides."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from index.case import Case

__all__ = ["VALID_SHARE", "draw", "split_by_patient"]

VALID_SHARE = 0.3


def draw(patient: str, seed: int) -> float:
    """A number in [0, 1) that depends on patient and seed alone, the same on every machine.

    A patient therefore stays on one side when others join or leave the collection, which no shuffling gives.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{patient}".encode()).digest()[:8]) / 2**64


def split_by_patient(cases: Sequence[Case], share: float = VALID_SHARE, seed: int = 0) -> tuple[Case, ...]:
    """The cases with `split` set: "valid" for about `share` of the patients, "train" for the others."""
    return tuple(replace(case, split="valid" if draw(case.patient, seed) < share else "train") for case in cases)
