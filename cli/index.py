"""`mura-search index`: build an index of labelled radiographs, change it, check it, and say what it holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.terminal import (
    AsJson,
    Data,
    Group,
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
)
from index.errors import IndexFailure

__all__ = ["index"]

index = typer.Typer(
    cls=Group,
    name="index",
    help="Build an index of labelled studies, change it, check it, or see what it holds.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@index.command()
def build(
    data: Data,
    place: IndexPlace = None,
    model: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A model bundle; without it, the one that comes along.")
    ] = None,
    part: Part = None,
    split: Split = None,
    layout: Layout = None,
    labels: Labels = None,
    keep_identifiers: KeepIdentifiers = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the index that is there.")] = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Index a collection. Interrupted, the same command goes on; nothing is at the place before it is whole."""
    from retrieval.build import build_index
    from retrieval.collection import read_collection
    from retrieval.searcher import default_index

    collection = read_collection(data, layout, part, split, labels=labels, keep_identifiers=keep_identifiers)
    for text in collection.notes:
        note(text)
    with progress("indexing") as show:
        report = build_index(
            collection, place or default_index(), model=model, replace=replace, workers=workers, progress=show
        )
    if as_json:
        print_json(report.to_dict())
        return
    for case, reason in report.quarantined:
        note(f"not indexed: {case}: {reason}")
    resumed = f", {report.resumed:,} of them from before the interruption" if report.resumed else ""
    print(f"Indexed {report.cases:,} radiographs of {report.studies:,} studies{resumed}, in {report.seconds:.1f} s.")
    if report.quarantined:
        print(f"Not indexed: {len(report.quarantined):,} that cannot be read, listed above.")
    print(f"Decision rules: {report.rules.source}.")
    print(f"Ask it:  mura-search QUERY... --index {report.path}" if place else "Ask it:  mura-search QUERY...")


@index.command()
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
    from retrieval.collection import read_collection
    from retrieval.growth import add_to_index
    from retrieval.searcher import default_index

    collection = read_collection(data, layout, part, split, labels=labels, keep_identifiers=keep_identifiers)
    for text in collection.notes:
        note(text)
    with progress("adding") as show:
        report = add_to_index(collection, place or default_index(), workers=workers, progress=show)
    if as_json:
        print_json(report.to_dict())
    else:
        for case, reason in report.refused:
            note(f"not added: {case}: {reason}")
        print(f"Added {_radiographs(report.added)} in {report.seconds:.1f} s.")
        if report.known:
            case, indexed = report.known[0]
            print(f"Known already, byte for byte: {len(report.known):,}, such as {case}, indexed as {indexed}.")
        if report.refused:
            print(f"Not added: {len(report.refused):,}, listed above.")
    if not report.added and not report.known:
        raise IndexFailure("nothing was added: none of the radiographs could be")


@index.command()
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
    from index.edit import IndexEdit
    from retrieval.searcher import default_index

    wanted = [
        (field, name)
        for field, names in (("case", case), ("study", study), ("patient", patient))
        for name in names or ()
    ]
    if not wanted:
        raise typer.BadParameter("say what to remove: --case, --study or --patient")
    counts = {}
    with IndexEdit.open(place or default_index()) as edit:
        for field, name in wanted:
            counts[field, name] = len(edit.remove({field: [name]}))
    if not any(counts.values()):
        raise IndexFailure("the index holds none of these, so nothing was removed")
    if as_json:
        removed = [{field: name, "removed": count} for (field, name), count in counts.items()]
        print_json({"schema": "mura-search/remove/1", "removed": removed})
        return
    for (field, name), count in counts.items():
        print(printable(f"Removed of {field} {name}: {_radiographs(count)}."))


@index.command()
def relabel(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The study, as answers name it.")],
    label: Annotated[str, typer.Argument(metavar="LABEL", help="normal or abnormal.")],
    place: IndexPlace = None,
    as_json: AsJson = False,
) -> None:
    """Correct the label of a study, where its report was corrected."""
    from index.case import LABEL_NAMES
    from index.edit import IndexEdit
    from retrieval.searcher import default_index

    if label not in LABEL_NAMES:
        raise typer.BadParameter(f"a label is normal or abnormal, not {label}")
    with IndexEdit.open(place or default_index()) as edit:
        try:
            changed = edit.relabel(study, LABEL_NAMES.index(label))
        except ValueError as error:
            raise IndexFailure(str(error)) from error
    if as_json:
        print_json({"schema": "mura-search/relabel/1", "study": study, "label": label, "changed": changed})
    else:
        print(printable(f"Study {study} is {label}. Changed: {_radiographs(changed)}."))


@index.command()
def merge(
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="The index whose radiographs are added.")],
    place: IndexPlace = None,
    prefix: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Put before OTHER's names of radiographs, studies and patients, such as north/, where two hospitals "
            "use the same names for different people.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Add another index of the same model to this one."""
    from index.edit import IndexEdit
    from index.folder import IndexFolder
    from retrieval.searcher import default_index

    with IndexFolder.open(other) as source, IndexEdit.open(place or default_index()) as edit:
        try:
            added, known = edit.merge(source, prefix)
        except ValueError as error:
            raise IndexFailure(f"{error}; nothing was merged") from error
    if as_json:
        pairs = [{"case": case, "indexed": indexed} for case, indexed in known]
        print_json({"schema": "mura-search/merge/1", "added": added, "known": pairs})
    else:
        print(f"Added {_radiographs(added)}; there already, byte for byte: {len(known):,}.")


@index.command()
def verify(place: IndexPlace = None, as_json: AsJson = False) -> None:
    """Read every byte of an index and compare it with its checksums."""
    from index.folder import IndexFolder
    from retrieval.bundle import Bundle
    from retrieval.searcher import default_index

    with IndexFolder.open(place or default_index()) as folder:
        Bundle.open(folder.model)
        folder.verify()
        count = len(folder.cases())
        content = {"schema": "mura-search/verify/1", "path": str(folder.path), "cases": count, "whole": True}
    if as_json:
        print_json(content)
    else:
        print(f"Whole: {_radiographs(count)}, their embeddings and pictures, the vectors and the model.")


@index.command()
def compact(place: IndexPlace = None, as_json: AsJson = False) -> None:
    """Give the space of what was removed back to the disk."""
    from index.edit import IndexEdit
    from retrieval.searcher import default_index

    with IndexEdit.open(place or default_index()) as edit:
        saved = edit.compact()
    if as_json:
        print_json({"schema": "mura-search/compact/1", "bytes": saved})
    else:
        print(f"Gave back {saved:,} bytes.")


@index.command()
def info(place: IndexPlace = None, as_json: AsJson = False) -> None:
    """Say what an index holds."""
    from index.folder import IndexFolder
    from retrieval.bundle import Bundle
    from retrieval.searcher import default_index

    with IndexFolder.open(place or default_index()) as folder:
        bundle = Bundle.open(folder.model)
        content = {
            "schema": "mura-search/index-info/1",
            "path": str(folder.path),
            **{"index_schema" if key == "schema" else key: value for key, value in folder.info().items()},
            "model": {"name": bundle.name, "sha256": bundle.sha256, "synthetic": bundle.synthetic},
            "collection": folder.metadata("collection"),
            "rules": folder.metadata("rules"),
            "history": folder.history(),
        }
    if as_json:
        print_json(content)
    else:
        print_info(content)


def _radiographs(count: int) -> str:
    return "1 radiograph" if count == 1 else f"{count:,} radiographs"


def print_info(content: Mapping[str, Any]) -> None:
    last = content["history"][-1] if content["history"] else None
    model, rules, store = content["model"], content["rules"], content["store"]
    counts = {
        name: ", ".join(f"{key or 'unnamed'} {n:,}" for key, n in content[name].items()) for name in ("labels", "parts")
    }
    collection = content["collection"]
    for name, text in (
        ("index", content["path"]),
        ("radiographs", f"{content['cases']:,} of {content['studies']:,} studies, {content['patients']:,} patients"),
        ("labels", counts["labels"]),
        ("parts", counts["parts"]),
        ("unreadable", f"{content['quarantined']:,} set aside"),
        ("collection", f"{collection['root']} ({collection['layout']})".strip()),
        ("model", f"{model['name']} ({model['sha256'][:8]})"),
        ("rules", f"{rules['k']} studies vote; {rules['source']}"),
        ("search", store["kind"]),
        ("generation", f"{content['generation']}, created {content['created']}"),
        (
            "last change",
            f"{last['action']} {_radiographs(last['detail']['cases'])}, {last['at']}" if last else "none",
        ),
    ):
        print(f"{name:<12} {printable(text)}")
    if collection["synthetic"]:
        print("It holds synthetic radiographs: its answers show how the tool works, no more.")
