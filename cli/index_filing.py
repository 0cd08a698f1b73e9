"""`mura-search index relabel`, `set-aside`, `undo` and `filed`: what readers change, and what can be undone."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from cli.console import bare_table, print_json, print_result, radiographs, standard_output
from cli.index_update import hashed_elsewhere
from cli.options.common import AsJson, IndexFolder, index_path, index_reader
from index.case import LABEL_NAMES
from index.errors import IndexFailure

if TYPE_CHECKING:
    from index.filing import FilingWriter

__all__ = ["filed", "relabel", "set_aside", "undo"]

Study = Annotated[str, Argument(metavar="STUDY", help="The study, as answers name it, or its Study Instance UID.")]


def relabel(
    study: Study,
    label: Annotated[str, Argument(metavar="LABEL", help="normal or abnormal.")],
    note: Annotated[str, Option(metavar="WORDS", help="The reason, for the list of changes.")] = "",
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Correct the label of a study. index undo takes it back."""
    if label not in LABEL_NAMES:
        raise typer.BadParameter(f"a label is normal or abnormal, not {label}")
    with filing_writer(index) as writer:
        names = known_studies(writer, study)
        changes = [writer.correct(name, LABEL_NAMES.index(label), note) for name in names]
    changed = sum(change.cases for change in changes if change)
    text = f"Study {study} is {label}: {radiographs(changed)} changed."
    print_result(as_json, "mura-search/relabel/1", {"study": study, "label": label, "changed": changed}, text)


def set_aside(
    study: Study,
    reason: Annotated[str, Option("--reason", metavar="WORDS", help="Why it is set aside.")],
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Take a study out of every search and vote, without removing it. index undo brings it back."""
    with filing_writer(index) as writer:
        changes = [writer.set_aside(name, reason) for name in known_studies(writer, study)]
    count = sum(change.cases for change in changes)
    text = f"Study {study} is set aside: {radiographs(count)}."
    print_result(as_json, "mura-search/set-aside/1", {"study": study, "reason": reason, "changed": count}, text)


def undo(
    change: Annotated[
        int | None,
        Argument(
            metavar="CHANGE", help="The change, as index filed numbers it; else the last one.", show_default=False
        ),
    ] = None,
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Undo a change that a reader made: a study filed, a label corrected, a study set aside."""
    from dataclasses import asdict

    with filing_writer(index) as writer:
        undone = writer.undo(change)
    text = f"Undone: change {undone.generation}, {undone.action} of study {undone.study} ({radiographs(undone.cases)})."
    print_result(as_json, "mura-search/undo/1", asdict(undone), text)


def filed(index: IndexFolder = None, as_json: AsJson = False) -> None:
    """List the changes by readers that can be undone, newest first."""
    from dataclasses import asdict

    with index_reader(index) as reader:
        changes = reader.filed()
    if as_json:
        print_json({"schema": "mura-search/filed/1", "changes": [asdict(change) for change in changes]})
        return
    with_findings = any(change.finding for change in changes)
    table = bare_table("change", "at", "what", "study", "label", *(["findings"] if with_findings else []), "note")
    for change in changes:
        labels = " to ".join(filter(None, (change.former, change.label)))
        findings = [change.finding] if with_findings else []
        table.add_row(str(change.generation), change.at, change.action, change.study, labels, *findings, change.note)
    standard_output().print(table)


def filing_writer(index: Path | None) -> "FilingWriter":
    from index.filing import FilingWriter

    return FilingWriter.open(index_path(index))


def known_studies(writer: "FilingWriter", study: str) -> list[str]:
    """The names of the indexed studies that a name means. Raises IndexFailure if there are none."""
    from retrieval.datasets.pseudonyms import indexed_names

    names = {case.study for case in writer.find("study", indexed_names("study", study))}
    if not names:
        raise IndexFailure(f"the index holds no study {study}{hashed_elsewhere(writer)}")
    return sorted(names)
