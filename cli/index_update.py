"""`mura-search index add`, `remove`, `relabel` and `compact`: changes of an index."""

from typing import Annotated

import typer

from cli.console import note, print_json, print_result, progress, radiographs
from cli.options.common import AsJson, IndexFolder, Workers, index_path, index_writer
from cli.options.data import CollectionOptions, Data, KeepBlank
from cli.options.store import DemandOptions
from index.case import LABEL_NAMES
from index.errors import IndexFailure

__all__ = ["add", "compact", "relabel", "remove"]


def add(
    data: Data,
    options: CollectionOptions,
    index: IndexFolder = None,
    keep_blank: KeepBlank = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Add a collection to an index. A radiograph that is already in the index, byte for byte, is not added again."""
    from retrieval.indexing.update import add_to_index

    collection = options.read_noted(data)
    with progress("adding") as show:
        report = add_to_index(collection, index_path(index), keep_blank=keep_blank, workers=workers, progress=show)
    if as_json:
        print_json(report.to_dict())
    else:
        for case, reason in report.refused:
            note(f"not added: {case}: {reason}")
        print(f"Added {radiographs(report.added)} in {report.seconds:.1f} s.")
        if report.known:
            case, indexed = report.known[0]
            print(f"Already in the index, byte for byte: {len(report.known):,}, such as {case}, indexed as {indexed}.")
        if report.refused:
            print(f"Not added: {len(report.refused):,}, listed above.")
    if report.behind:
        note(
            f"Milvus does not answer. {report.behind:,} changes wait here, where every search finds them; "
            "the next change sends them."
        )
    if not report.added and not report.known:
        raise IndexFailure("no radiograph could be added")


def remove(
    case: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Remove this radiograph.")] = None,
    study: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Remove all radiographs of this study.")
    ] = None,
    patient: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Remove all radiographs of this patient.")
    ] = None,
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Remove radiographs, studies or patients from an index.

    Each option may be repeated. Adding the same collection again adds them again.
    """
    wanted = [
        (field, name)
        for field, names in (("case", case), ("study", study), ("patient", patient))
        for name in names or ()
    ]
    if not wanted:
        raise typer.BadParameter("say what to remove: --case, --study or --patient")
    with index_writer(index) as writer:
        counts = {(field, name): len(writer.remove({field: [name]})) for field, name in wanted}
    if not any(counts.values()):
        raise IndexFailure("the index holds none of these, so nothing was removed")
    removed = [{field: name, "removed": count} for (field, name), count in counts.items()]
    lines = [f"Removed of {field} {name}: {radiographs(count)}." for (field, name), count in counts.items()]
    print_result(as_json, "remove", {"removed": removed}, *lines)
    if writer.behind and not as_json:
        note("no search finds them now; to delete their embeddings too: mura-search index compact")


def relabel(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study, as answers name it.")],
    label: Annotated[str, typer.Argument(metavar="LABEL", help="normal or abnormal.")],
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Correct the label of a study."""
    if label not in LABEL_NAMES:
        raise typer.BadParameter(f"a label is normal or abnormal, not {label}")
    with index_writer(index) as writer:
        try:
            changed = writer.relabel(study, LABEL_NAMES.index(label))
        except ValueError as error:
            raise IndexFailure(str(error)) from error
    text = f"Study {study} is {label}. Changed: {radiographs(changed)}."
    print_result(as_json, "relabel", {"study": study, "label": label, "changed": changed}, text)


def compact(options: DemandOptions, index: IndexFolder = None, as_json: AsJson = False) -> None:
    """Free the disk space of removed radiographs, and make the search as fast as the options ask for."""
    with index_writer(index) as writer:
        saved = writer.compact(**options.demand())
    print_result(as_json, "compact", {"bytes": saved}, f"Gave back {saved:,} bytes.")
