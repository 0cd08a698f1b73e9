"""`mura-search audit`: what a collection holds, and what is wrong with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.terminal import (
    AsJson,
    Data,
    KeepIdentifiers,
    Labels,
    Layout,
    Part,
    Split,
    Workers,
    bare_table,
    print_json,
    printable,
    progress,
    standard_output,
)

if TYPE_CHECKING:
    from rich.table import Table

    from retrieval.audit import Audit, Difference, Duplicate

__all__ = ["audit", "print_audit"]

LISTED = 20  # findings of one kind; --json has all


def audit(
    data: Data,
    part: Part = None,
    split: Split = None,
    layout: Layout = None,
    labels: Labels = None,
    keep_identifiers: KeepIdentifiers = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Count a collection, compare a MURA copy with the published counts, and list what is unreadable or doubled."""
    from retrieval.audit import audit as examine
    from retrieval.collection import read_collection

    collection = read_collection(data, layout, part, split, labels=labels, keep_identifiers=keep_identifiers)
    with progress("reading") as show:
        findings = examine(collection, progress=show, workers=workers)
    if as_json:
        print_json(findings.to_dict())
    else:
        print_audit(findings)


def print_audit(findings: "Audit") -> None:
    kind = f"{findings.layout}{', synthetic' if findings.synthetic else ''}"
    print(printable(f"{findings.root} ({kind})"))
    print(f"{findings.images:,} radiographs, {findings.studies:,} studies, {findings.patients:,} patients")
    for text in findings.notes:
        print(f"Note: {text}.")
    print()
    standard_output().print(counts(findings))
    print()
    if findings.published:
        print_list("not as published", [difference(one) for one in findings.different])
    print_list("unreadable", [f"{case}: {reason}" for case, reason in findings.unreadable])
    print_list("read with a warning", [f"{case}: {reason}" for case, reason in findings.warned])
    print_list("the same byte for byte", [duplicate(one) for one in findings.duplicates])
    print_list("patients in two splits", findings.patients_in_two_splits)


def counts(findings: "Audit") -> "Table":
    table = bare_table("split", "part", "label", "images", "studies", "patients")
    for column in table.columns[3:]:
        column.justify = "right"
    for count in findings.counts:
        names = (count.split or "-", count.part or "-", count.label)
        table.add_row(*names, f"{count.images:,}", f"{count.studies:,}", f"{count.patients:,}")
    return table


def print_list(title: str, lines: Sequence[str]) -> None:
    print(f"{title}: {len(lines):,}" if lines else f"{title}: none")
    for line in lines[:LISTED]:
        print(printable(f"  {line}"))
    if len(lines) > LISTED:
        print(f"  and {len(lines) - LISTED:,} more; --json lists all")


def difference(one: "Difference") -> str:
    where = " ".join(word for word in (one.split, one.part, one.label) if word)
    return f"{where}: {one.here:,} {one.what} here, {one.published:,} published"


def duplicate(one: "Duplicate") -> str:
    sides = {"splits": one.across_splits, "patients": one.across_patients, "labels": one.across_labels}
    across = " and ".join(name for name, is_across in sides.items() if is_across)
    return " = ".join(one.cases) + (f" (across {across})" if across else "")
