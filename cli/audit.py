"""`mura-search audit`: what a collection holds, and what is wrong with it."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import (
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
from cli.files import require_places, write_file

if TYPE_CHECKING:
    from rich.table import Table

    from retrieval.audit.audit import Audit, Difference, Duplicate
    from retrieval.audit.deep_audit import DeepFindings
    from retrieval.audit.label_issues import LabelIssue
    from retrieval.audit.near_duplicates import NearDuplicate
    from retrieval.datasets.collection import Collection

__all__ = ["audit", "print_audit"]

LISTED = 20  # findings of one kind; --json has all


def audit(
    data: Data,
    part: Part = None,
    split: Split = None,
    layout: Layout = None,
    labels: Labels = None,
    keep_identifiers: KeepIdentifiers = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Encode everything too: look for wrong labels and near duplicates.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Deep, with this model bundle; without it, the one that comes along."),
    ] = None,
    place: Annotated[
        Path | None,
        typer.Option(
            "--index",
            metavar="FOLDER",
            help="Deep, with an index's model and rules; what the index holds is not encoded again.",
        ),
    ] = None,
    wrong: Annotated[
        float, typer.Option(min=0.001, max=0.4, metavar="SHARE", help="Of the labels, taken to be wrong.")
    ] = 0.05,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a CSV table, a finding a line.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the findings as pictures (HTML).")
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Count a collection, compare a MURA copy with the published counts, and list what is wrong.

    Unreadable and doubled files, patients in two splits; with --deep also labels that most neighbours of other
    patients contradict, and near duplicates: the same radiograph rescaled, cropped, brightened, encoded anew or
    mirrored. One sentence says whether figures on the valid split can be trusted.
    """
    from retrieval.datasets.collection import read_collection

    if model and place:
        raise typer.BadParameter("an index has a model of its own: give --model or --index")
    require_places(table, sheet)
    collection = read_collection(data, layout, part, split, labels=labels, keep_identifiers=keep_identifiers)
    if deep or model or place:
        findings = examined(collection, model, place, wrong, workers)
    else:
        from retrieval.audit.audit import audit as examine

        with progress("reading") as show:
            findings = examine(collection, progress=show, workers=workers)
    if table:
        from retrieval.reports.audit_csv import findings_table

        write_file(table, findings_table(findings))
    if sheet:
        from retrieval.reports.audit_report import contact_sheet

        write_file(sheet, contact_sheet(findings, collection))
    if as_json:
        print_json(findings.to_dict())
    else:
        print_audit(findings)


def examined(
    collection: "Collection", model: Path | None, place: Path | None, wrong: float, workers: int | None
) -> "Audit":
    """The deep audit, with its two bars of progress."""
    from retrieval.audit.audit import deep_audit
    from retrieval.audit.deep_audit import encode_collection
    from retrieval.audit.resume_cache import resume_cache, resume_path
    from retrieval.encoding.bundle import BUNDLED
    from retrieval.encoding.encoder import Encoder
    from retrieval.searcher import Searcher

    with ExitStack() as stack:
        source = stack.enter_context(Searcher.open(place)) if place else Encoder.open(model or BUNDLED)
        bundle = source.encoder.bundle if isinstance(source, Searcher) else source.bundle
        cache = stack.enter_context(resume_cache(resume_path(collection), collection, bundle))
        with progress("encoding") as show:
            encoding = encode_collection(collection, source, cache=cache, workers=workers, progress=show)
        with progress("comparing") as show:
            return deep_audit(collection, encoding, progress=show, workers=workers, assumed=wrong)


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
    if findings.deep:
        print_list("near duplicates", [near_duplicate(one) for one in serious_first(findings.deep.near_duplicates)])
    print_list("patients in two splits", findings.patients_in_two_splits)
    if findings.deep:
        print_label_issues(findings.deep)
    print()
    print(printable(findings.verdict))


def print_label_issues(deep: "DeepFindings") -> None:
    from retrieval.reports.audit_report import label_words

    issues = deep.labels.issues
    print(f"labels that look wrong: {len(issues):,}" if issues else "labels that look wrong: none")
    if issues:
        standard_output().print(label_issues_table(issues[:LISTED]))
    if len(issues) > LISTED:
        print(f"  and {len(issues) - LISTED:,} more; --json lists all")
    for text in label_words(deep.labels):
        print(f"  {text}")


def label_issues_table(issues: "Sequence[LabelIssue]") -> "Table":
    """The other columns are short; the neighbours' names fold."""
    table = bare_table("  study", "label", "chance", "vote", "classifier", "nearest studies of others")
    for one in issues:
        names = ", ".join(f"{of.study} ({of.label})" for of in one.neighbours[:3])
        second = "-" if one.classifier is None else f"{one.classifier:.2f}"
        figures = (one.label, f"{one.chance:.0%}", f"{one.vote:.2f}", second)
        table.add_row(printable(f"  {one.study}"), *figures, printable(names))
    return table


def serious_first(twins: "Sequence[NearDuplicate]") -> "list[NearDuplicate]":
    return sorted(twins, key=lambda one: (-one.across_splits, -one.across_labels, -one.across_patients, -one.match))


def near_duplicate(one: "NearDuplicate") -> str:
    from retrieval.reports.audit_report import near_duplicate_words

    return f"{' ~ '.join(one.cases)} ({near_duplicate_words(one)})"


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
    from retrieval.reports.audit_report import crossing

    across = crossing(one.across_splits, one.across_patients, one.across_labels)
    return " = ".join(one.cases) + (f" ({across})" if across else "")
