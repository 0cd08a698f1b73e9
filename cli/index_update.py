"""`mura-search index add`, `update`, `remove` and `compact`: changes of an index."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import note, note_few, print_json, print_result, progress, radiographs
from cli.options.common import AsJson, IndexFolder, Workers, index_path, index_reader, index_writer
from cli.options.data import CollectionOptions, Data, KeepBlank
from cli.options.store import DemandOptions
from index.errors import IndexFailure
from index.lock import require_locks

if TYPE_CHECKING:
    from index.writer import IndexWriter

__all__ = ["add", "compact", "hashed_elsewhere", "remove", "update"]

UPDATE = "mura-search index update DATA"


def add(
    data: Data,
    options: CollectionOptions,
    index: IndexFolder = None,
    keep_blank: KeepBlank = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Add a collection to an index.

    A radiograph that is already in the index, byte for byte, is not added again. If its record has changed, it is
    named; index update applies the change.
    """
    from retrieval.indexing.update import add_to_index

    require_locks()
    collection = options.read_noted(data)
    with progress("adding") as show:
        report = add_to_index(collection, index_path(index), keep_blank=keep_blank, workers=workers, progress=show)
    if as_json:
        print_json(report.to_dict())
    else:
        for case, reason in report.refused:
            note(f"not added: {case}: {reason}")
        note_few("differs", report.differing)
        print(f"Added {radiographs(report.added)} in {report.seconds:.1f} s.")
        if report.known:
            case, indexed = report.known[0]
            print(f"Already in the index, byte for byte: {len(report.known):,}, such as {case}, indexed as {indexed}.")
        if report.differing:
            print(
                f"Whose records differ from the index: {len(report.differing):,}. To apply the new records:  {UPDATE}"
            )
        if report.refused:
            print(f"Not added: {len(report.refused):,}, listed above.")
    note_behind(report.behind)
    if not report.added and len(report.known) == len(report.differing):
        raise IndexFailure("no radiograph could be added")


def update(data: Data, options: CollectionOptions, index: IndexFolder = None, as_json: AsJson = False) -> None:
    """Apply corrected records to an index: labels, patients, studies, parts, views, splits and paths.

    No radiograph is encoded again, and none is added. Each is known by its bytes, or by its name if its file is
    missing. An empty field changes nothing. The decision rules stay.
    """
    from retrieval.indexing.update import update_index

    report = update_index(options.read_noted(data), index_path(index))
    if not as_json:
        note_few("not updated", report.refused)
    text = f"Updated {radiographs(report.updated)}; as in the index already: {report.same:,}."
    print_result(as_json, "mura-search/update/1", report.to_dict(), text)
    note_behind(report.behind)
    if not report.updated and not report.same:
        raise IndexFailure("no radiograph could be updated")


def note_behind(behind: int) -> None:
    if behind:
        note(
            f"Milvus does not answer. {behind:,} changes wait here, where every search finds them; "
            "the next change sends them."
        )


def remove(
    case: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Remove this radiograph.")] = None,
    study: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Remove all radiographs of this study.")
    ] = None,
    patient: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Remove all radiographs of this patient.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Remove radiographs, studies or patients from an index.

    Each option may be repeated. A name is as answers show it; of a DICOM index also the Patient ID, the Study Instance
    UID or the SOP Instance UID. Unfinished builds, which may hold them as well, are removed. Adding the same collection
    again adds them again.
    """
    from retrieval.datasets.pseudonyms import indexed_names

    wanted = [
        (field, name)
        for field, names in (("case", case), ("study", study), ("patient", patient))
        for name in names or ()
    ]
    if not wanted:
        raise typer.BadParameter("say what to remove: --case, --study or --patient")
    if dry_run:
        with index_reader(index) as reader:
            unread = [aside for aside, _ in reader.set_aside()]
            counts = {}
            for field, name in wanted:
                names = indexed_names(field, name)
                counts[field, name] = len(reader.find(field, names)) + sum(getattr(c, field) in names for c in unread)
    else:
        from retrieval.indexing.update import refresh_limits

        with index_writer(index) as writer:
            counts = {(field, name): len(writer.remove({field: indexed_names(field, name)})) for field, name in wanted}
            hidden = hashed_elsewhere(writer)
            if any(counts.values()):
                refresh_limits(writer)
        note_leftovers(writer)
        if not any(counts.values()):
            raise IndexFailure(f"the index holds none of these, so nothing was removed{hidden}")
    removed = [{field: name, "removed": count} for (field, name), count in counts.items()]
    verb = "Would remove" if dry_run else "Removed"
    lines = [f"{verb} {radiographs(count)} of {field} {name}." for (field, name), count in counts.items()]
    print_result(as_json, "mura-search/remove/1", {"removed": removed, "dry_run": dry_run}, *lines)
    if not dry_run and writer.behind and not as_json:
        note("no search finds them now; to delete their embeddings too: mura-search index compact")


def note_leftovers(writer: "IndexWriter") -> None:
    """Say which unfinished builds a removal has removed too, and which it could not remove."""
    for folder, reason in writer.leftovers.items():
        if reason:
            note(f"the unfinished build {folder} may hold them. Remove it yourself: {reason}")
        else:
            note(f"the unfinished build {folder} is removed too: it may have held them")


def hashed_elsewhere(writer: "IndexWriter") -> str:
    """The end of a message that an index does not hold a name, if its names are hashed with a key that is not here."""
    from retrieval.datasets.pseudonyms import KEY_VARIABLE, SiteKey

    about, key = writer.metadata("collection"), SiteKey.find()
    site = about.get("site") if isinstance(about, dict) else None
    if not site or (key and key.name == site):
        return ""
    return f"; its names are hashed with a site key that is not here: name the key's file with {KEY_VARIABLE}"


def compact(options: DemandOptions, index: IndexFolder = None, as_json: AsJson = False) -> None:
    """Free the disk space of removed radiographs, and make the search as fast as the options ask for."""
    with index_writer(index) as writer:
        saved = writer.compact(**options.demand())
    print_result(as_json, "mura-search/compact/1", {"bytes": saved}, f"Freed {saved:,} bytes.")
