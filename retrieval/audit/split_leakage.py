"""Whether figures on one split can be trusted: what of it the other splits hold too."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from index.case import Case

__all__ = ["Leakage", "leakages", "verdict"]

TRAINING = "train"


@dataclass(frozen=True, slots=True)
class Leakage:
    """What one split shares with the others, in studies of that split.

    `leaking` names those of its `studies` that share anything; `by_patient`, `by_file` (a file that is the same byte
    for byte) and `by_copy` (a near duplicate; None where nobody looked for any) count them by what they share.
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
    """For each split but "train", or each of all where none is called so; none where fewer than two are named.

    files, copies: groups of case names that are one and the same; copies None where they were not looked for.
    """
    splits = sorted({case.split for case in cases} - {""})
    if len(splits) < 2:
        return ()
    sides: dict[str, set[str]] = {}
    for case in cases:
        sides.setdefault(case.patient, set()).add(case.split)
    patients = {case.study for case in cases if len(sides[case.patient] - {""}) > 1}
    known = {case.case: case for case in cases}
    of_files = _studies_across(known, files)
    of_copies = None if copies is None else _studies_across(known, copies)
    found = []
    for split in [name for name in splits if name != TRAINING]:
        own = {case.study for case in cases if case.split == split}
        found.append(
            Leakage(
                split=split,
                studies=len(own),
                leaking=tuple(sorted(own & (patients | of_files | (of_copies or set())))),
                by_patient=len(own & patients),
                by_file=len(own & of_files),
                by_copy=None if of_copies is None else len(own & of_copies),
            )
        )
    return tuple(found)


def verdict(found: Sequence[Leakage]) -> str:
    """In one sentence, whether figures on the splits can be trusted."""
    if not found:
        return "No two splits are named, so nothing can leak from one into another."
    if any(one.leaking for one in found):
        leaks = "; ".join(_leak(one) for one in found if one.leaking)
        return f"Do not trust figures on {_names([one for one in found if one.leaking])} as they stand: {leaks}."
    looked = "no patient and no file"
    if found[0].by_copy is None:
        return f"Figures on {_names(found)} hold as far as was looked: {looked} is shared; near copies need --deep."
    return f"Figures on {_names(found)} can be trusted as far as this audit sees: {looked} is shared, nor a near copy."


def _leak(one: Leakage) -> str:
    kinds = (("patient", one.by_patient), ("file", one.by_file), ("near copy", one.by_copy))
    by = ", ".join(f"{count:,} a {kind}" for kind, count in kinds if count)
    share = len(one.leaking) / one.studies
    return f"{len(one.leaking):,} of its {one.studies:,} studies ({share:.1%}) are tied to another split ({by})"


def _names(found: Sequence[Leakage]) -> str:
    return " and ".join(f"the {one.split} split" for one in found)


def _studies_across(known: dict[str, Case], groups: Iterable[Sequence[str]]) -> set[str]:
    """The studies of the groups that lie in more than one split."""
    found: set[str] = set()
    for group in groups:
        members = [known[name] for name in group]
        if len({case.split for case in members} - {""}) > 1:
            found.update(case.study for case in members)
    return found
