"""`mura-search index add`, `remove`, `relabel` and `compact`: an index is changed where it is."""

from typing import Annotated

import typer

from cli.console import (
    AsJson,
    Data,
    IndexPlace,
    KeepIdentifiers,
    Labels,
    Layout,
    Part,
    Split,
    Workers,
    note,
    print_json,
    printable,
    progress,
    radiographs,
)
from cli.options.data import read_noted
from cli.options.store import Latency, Memory, Recall, demand_of
from index.errors import IndexFailure

__all__ = ["add", "compact", "relabel", "remove"]


def add(
    data: Data,
    place: IndexPlace = None,
    part: Part = None,
    split: Split = None,
    layout: Layout = None,
    labels: Labels = None,
    keep_identifiers: KeepIdentifiers = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Add a collection to an index. The same radiograph, byte for byte, is not added twice."""
    from retrieval.indexing.update import add_to_index
    from retrieval.searcher import default_index

    collection = read_noted(data, layout, part, split, labels, keep_identifiers)
    with progress("adding") as show:
        report = add_to_index(collection, place or default_index(), workers=workers, progress=show)
    if as_json:
        print_json(report.to_dict())
    else:
        for case, reason in report.refused:
            note(f"not added: {case}: {reason}")
        print(f"Added {radiographs(report.added)} in {report.seconds:.1f} s.")
        if report.known:
            case, indexed = report.known[0]
            print(f"Known already, byte for byte: {len(report.known):,}, such as {case}, indexed as {indexed}.")
        if report.refused:
            print(f"Not added: {len(report.refused):,}, listed above.")
    if report.behind:
        note(f"Milvus does not answer; {report.behind:,} changes reach it with the next; so far they are searched here")
    if not report.added and not report.known:
        raise IndexFailure("nothing was added: none of the radiographs could be")


def remove(
    case: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Remove this radiograph.")] = None,
    study: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Remove all radiographs of this study.")
    ] = None,
    patient: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Remove all radiographs of this patient.")
    ] = None,
    place: IndexPlace = None,
    as_json: AsJson = False,
) -> None:
    """Remove radiographs, studies or patients for good.

    Each option may be given several times. Adding the same collection again would bring them back.
    """
    from index.writer import IndexWriter
    from retrieval.searcher import default_index

    wanted = [
        (field, name)
        for field, names in (("case", case), ("study", study), ("patient", patient))
        for name in names or ()
    ]
    if not wanted:
        raise typer.BadParameter("say what to remove: --case, --study or --patient")
    counts = {}
    with IndexWriter.open(place or default_index()) as edit:
        for field, name in wanted:
            counts[field, name] = len(edit.remove({field: [name]}))
    if not any(counts.values()):
        raise IndexFailure("the index holds none of these, so nothing was removed")
    if as_json:
        removed = [{field: name, "removed": count} for (field, name), count in counts.items()]
        print_json({"schema": "mura-search/remove/1", "removed": removed})
        return
    for (field, name), count in counts.items():
        print(printable(f"Removed of {field} {name}: {radiographs(count)}."))
    if edit.behind:
        note("they are found no more; their embeddings leave vectors.faiss or Milvus with: mura-search index compact")


def relabel(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study, as answers name it.")],
    label: Annotated[str, typer.Argument(metavar="LABEL", help="normal or abnormal.")],
    place: IndexPlace = None,
    as_json: AsJson = False,
) -> None:
    """Correct the label of a study, where its report was corrected."""
    from index.case import LABEL_NAMES
    from index.writer import IndexWriter
    from retrieval.searcher import default_index

    if label not in LABEL_NAMES:
        raise typer.BadParameter(f"a label is normal or abnormal, not {label}")
    with IndexWriter.open(place or default_index()) as edit:
        try:
            changed = edit.relabel(study, LABEL_NAMES.index(label))
        except ValueError as error:
            raise IndexFailure(str(error)) from error
    if as_json:
        print_json({"schema": "mura-search/relabel/1", "study": study, "label": label, "changed": changed})
    else:
        print(printable(f"Study {study} is {label}. Changed: {radiographs(changed)}."))


def compact(
    place: IndexPlace = None,
    recall: Recall = None,
    latency: Latency = None,
    memory: Memory = None,
    as_json: AsJson = False,
) -> None:
    """Give the space of what was removed back to the disk, and make the search as fast as it is to be."""
    from index.writer import IndexWriter
    from retrieval.searcher import default_index

    with IndexWriter.open(place or default_index()) as edit:
        saved = edit.compact(**demand_of(recall, latency, memory))
    if as_json:
        print_json({"schema": "mura-search/compact/1", "bytes": saved})
    else:
        print(f"Gave back {saved:,} bytes.")
