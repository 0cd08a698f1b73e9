"""What the voting studies had: their findings, each with its part of the vote.

This is a list to think of, and not a diagnosis: a finding is named because similar studies had it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from index.hits import Hit

__all__ = ["FindingShare", "names_of", "tally"]


@dataclass(frozen=True, slots=True)
class FindingShare:
    """A finding of voting studies: how many have it, and their part of the vote together, in [0, 1]."""

    finding: str
    weight: float
    studies: int


def names_of(text: str) -> tuple[str, ...]:
    """The findings of a case, separated by semicolons: each once, without regard to case and white space.

    >>> names_of("Fracture;  plate ; fracture")
    ('Fracture', 'plate')
    """
    names: dict[str, str] = {}
    for name in filter(None, (" ".join(part.split()) for part in text.split(";"))):
        names.setdefault(name.casefold(), name)
    return tuple(names.values())


def tally(views: Sequence[Iterable[Hit]], weights: Mapping[str, float]) -> tuple[FindingShare, ...]:
    """The findings of the voting studies, the heaviest first; ties by name.

    views: the hits that voted on each view; a study has the findings of all its hits. weights: each study's part of the
    vote. A finding's weight is the sum of those of the studies that have it, so weights may sum to more or less than 1.
    """
    spellings: dict[str, str] = {}
    studies: dict[str, set[str]] = {}
    for hit in (hit for hits in views for hit in hits):
        for name in names_of(hit.case.finding):
            spellings.setdefault(name.casefold(), name)
            studies.setdefault(name.casefold(), set()).add(hit.case.study)
    shares = (
        FindingShare(
            spellings[key], min(1.0, sum(weights.get(study, 0.0) for study in with_finding)), len(with_finding)
        )
        for key, with_finding in studies.items()
    )
    return tuple(sorted(shares, key=lambda share: (-share.weight, share.finding.casefold())))
