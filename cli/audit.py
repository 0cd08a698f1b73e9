"""`mura-search audit`: what a collection holds, and what is wrong with it."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import bare_table, print_json, progress, require_ending, require_writable, standard_output, write_file
from cli.options.common import AsJson, Excel, Workers
from cli.options.data import CollectionOptions, Data
from retrieval.wording import printable

if TYPE_CHECKING:
    from rich.table import Table

    from retrieval.audit.audit import Audit, Difference, Duplicate
    from retrieval.audit.deep_audit import DeepFindings
    from retrieval.audit.label_issues import LabelIssue
    from retrieval.audit.near_duplicates import NearDuplicate
    from retrieval.datasets.collection import Collection

__all__ = ["audit", "print_audit"]

LISTED = 20  # findings of one kind; --json has all


@dataclass(frozen=True)
class DeepOptions:
    """Whether to encode the radiographs as well, and with what."""

    deep: Annotated[
        bool, typer.Option("--deep", help="Also encode all radiographs, to find wrong labels and near duplicates.")
    ] = False
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Make a deep audit with this model bundle. By default it is the bundled model."
        ),
    ] = None
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Make a deep audit with the model and rules of this index. Its radiographs are not encoded again.",
        ),
    ] = None
    wrong: Annotated[
        float,
        typer.Option(min=0.001, max=0.4, metavar="SHARE", help="The share of labels that you expect to be wrong."),
    ] = 0.05

    def examine(self, collection: "Collection", workers: int | None) -> "Audit":
        """The audit, with its progress bars."""
        if not (self.deep or self.model or self.index):
            from retrieval.audit.audit import audit as examine

            with progress("reading") as show:
                return examine(collection, progress=show, workers=workers)
        from retrieval.audit.audit import deep_audit
        from retrieval.audit.deep_audit import encode_collection
        from retrieval.audit.resume_cache import resume_cache, resume_path
        from retrieval.encoding.bundle import BUNDLED
        from retrieval.encoding.encoder import Encoder
        from retrieval.searcher import Searcher

        with ExitStack() as stack:
            searcher = stack.enter_context(Searcher.open(self.index)) if self.index else None
            source = searcher or Encoder.open(self.model or BUNDLED)
            bundle = source.encoder.bundle if isinstance(source, Searcher) else source.bundle
            cache = stack.enter_context(resume_cache(resume_path(collection), collection, bundle))
            with progress("encoding") as show:
                encoding = encode_collection(collection, source, cache=cache, workers=workers, progress=show)
            with progress("comparing") as show:
                return deep_audit(collection, encoding, progress=show, workers=workers, assumed=self.wrong)


def audit(
    data: Data,
    options: CollectionOptions,
    deep: DeepOptions,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a CSV table with one line per finding.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with pictures of the findings (HTML).")
    ] = None,
    excel: Excel = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Count the radiographs of a collection, and list what is wrong with them.

    The audit finds unreadable and duplicate files and patients in two splits, and compares a copy of MURA with the
    published counts. With --deep it also finds labels that most similar studies of other patients contradict, and near
    duplicates: a radiograph that was rescaled, cropped, brightened, compressed again or mirrored. One sentence says
    whether figures on the valid split can be trusted.
    """
    if deep.model and deep.index:
        raise typer.BadParameter("an index has its own model: give --model or --index, not both")
    require_writable(table, sheet)
    require_ending([".csv"], table)
    require_ending([".html", ".htm"], sheet)
    collection = options.read(data)
    findings = deep.examine(collection, workers)
    if table:
        write_file(table, findings.to_csv(), mark=excel)
    if sheet:
        from retrieval.reports.audit_report import audit_report

        write_file(sheet, audit_report(findings, collection))
    if as_json:
        print_json(findings.to_dict())
    else:
        print_audit(findings)


def print_audit(findings: "Audit") -> None:
    kind = f"{findings.layout}{', synthetic' if findings.synthetic else ''}"
    print(printable(f"{findings.root} ({kind})"))
    print(f"{findings.images:,} radiographs, {findings.studies:,} studies, {findings.patients:,} patients")
    for text in findings.notes:
        print(printable(f"Note: {text}."))
    print()
    standard_output().print(counts(findings))
    print()
    if findings.published:
        print_list("not as published", [difference(count) for count in findings.different])
    print_list("unreadable", [f"{case}: {reason}" for case, reason in findings.unreadable])
    print_list("read with a warning", [f"{case}: {reason}" for case, reason in findings.warned])
    print_list("the same byte for byte", [duplicate(group) for group in findings.duplicates])
    if findings.deep:
        print_list("near duplicates", [near_duplicate(pair) for pair in serious_first(findings.deep.near_duplicates)])
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
    """The suspicious labels; long names of neighbours are folded."""
    table = bare_table("  study", "label", "chance", "vote", "classifier", "nearest studies of others")
    for issue in issues:
        names = ", ".join(f"{neighbour.study} ({neighbour.label})" for neighbour in issue.neighbours[:3])
        second = "-" if issue.classifier is None else f"{issue.classifier:.2f}"
        figures = (issue.label, f"{issue.chance:.0%}", f"{issue.vote:.2f}", second)
        table.add_row(printable(f"  {issue.study}"), *figures, printable(names))
    return table


def serious_first(pairs: "Sequence[NearDuplicate]") -> "list[NearDuplicate]":
    return sorted(
        pairs, key=lambda pair: (-pair.across_splits, -pair.across_labels, -pair.across_patients, -pair.match)
    )


def near_duplicate(pair: "NearDuplicate") -> str:
    from retrieval.reports.audit_report import near_duplicate_words

    return f"{' ~ '.join(pair.cases)} ({near_duplicate_words(pair)})"


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


def difference(item: "Difference") -> str:
    where = " ".join(word for word in (item.split, item.part, item.label) if word)
    return f"{where}: {item.here:,} {item.what} here, {item.published:,} published"


def duplicate(item: "Duplicate") -> str:
    from retrieval.reports.audit_report import crossing

    across = crossing(item.across_splits, item.across_patients, item.across_labels)
    return " = ".join(item.cases) + (f" ({across})" if across else "")
