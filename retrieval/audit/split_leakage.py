"""Split leakage: what a split shares with other splits, so that figures on it cannot be trusted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from index.case import Case

__all__ = ["Leakage", "leakages", "verdict"]

TRAINING = "train"


@dataclass(frozen=True, slots=True)
class Leakage:
    """The studies of one split that share something with other splits.

    `leaking` names them. `by_patient`, `by_file` (the same file, byte for byte) and `by_copy` (a near duplicate) count
    them by what they share; `by_copy` is None where near duplicates were not searched.
    """

    split: str
    studies: int
    leaking: tuple[str, ...]
    by_patient: int
    by_file: int
    by_copy: int | None


def leakages(
    cases: Sequence[Case], files: Iterable[Sequence[str]], copies: Iterable[Sequence[str]] | None
) -> tuple[Leakage, ...]:
    """The leakage of each split but "train", or of every split where none has this name; empty below two splits.

    files, copies: groups of case names that are the same radiograph; copies is None where they were not searched.
    """
    splits = sorted({case.split for case in cases} - {""})
    if len(splits) < 2:
        return ()
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.patient, []).append(case)
    by_name = {case.case: case for case in cases}
    by_patient = _studies_across(groups.values())
    by_file = _studies_across([by_name[name] for name in group] for group in files)
    by_copy = None if copies is None else _studies_across([by_name[name] for name in group] for group in copies)
    leaks = []
    for split in splits:
        studies = {case.study for case in cases if case.split == split}
        leaks.append(
            Leakage(
                split=split,
                studies=len(studies),
                leaking=tuple(sorted(studies & (by_patient | by_file | (by_copy or set())))),
                by_patient=len(studies & by_patient),
                by_file=len(studies & by_file),
                by_copy=None if by_copy is None else len(studies & by_copy),
            )
        )
    return tuple(leak for leak in leaks if leak.split != TRAINING)


def verdict(leaks: Sequence[Leakage], *, drawn: bool = False) -> str:
    """Whether figures on the splits can be trusted; drawn: the splits are those that `--split` would draw."""
    if not leaks:
        return "Fewer than two splits are named, so there is no leakage between splits."
    if drawn:
        return f"No splits are named. With those that --split draws: {verdict(leaks)}"
    if leaking := [leak for leak in leaks if leak.leaking]:
        return f"Do not trust figures on {_names(leaking)} as they are: {'; '.join(map(_shared, leaking))}."
    shared = (
        "no patient, no file and no near duplicate is shared. Searched were changes of size, brightness, encoding, "
        "polarity and borders, crops, flips and quarter turns; not other angles."
    )
    if leaks[0].by_copy is None:
        shared = "no patient and no file is shared. Near duplicates were not searched: use --deep."
    return f"Figures on {_names(leaks)} can be trusted as far as this audit sees: {shared}"


def _shared(leak: Leakage) -> str:
    kinds = (("patient", leak.by_patient), ("file", leak.by_file), ("near duplicate", leak.by_copy))
    by = ", ".join(f"{count:,} by a {kind}" for kind, count in kinds if count)
    share = len(leak.leaking) / leak.studies
    return f"{len(leak.leaking):,} of its {leak.studies:,} studies ({share:.1%}) are tied to another split ({by})"


def _names(leaks: Sequence[Leakage]) -> str:
    return " and ".join(f"the {leak.split} split" for leak in leaks)


def _studies_across(groups: Iterable[Iterable[Case]]) -> set[str]:
    """The studies of the groups that lie in more than one split."""
    across = (group for group in map(list, groups) if len({case.split for case in group} - {""}) > 1)
    return {case.study for group in across for case in group}
