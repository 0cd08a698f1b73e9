"""`mura-search index`: build an index of labelled radiographs, and say what one holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.terminal import (
    AsJson,
    Data,
    Group,
    IndexPlace,
    Layout,
    Part,
    Split,
    Workers,
    note,
    print_json,
    printable,
    progress,
)

__all__ = ["index"]

index = typer.Typer(
    cls=Group,
    name="index",
    help="Build an index of labelled studies, or see what one holds.",
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
    replace: Annotated[bool, typer.Option("--replace", help="Replace the index that is there.")] = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Index a collection. Interrupted, the same command goes on; nothing is at the place before it is whole."""
    from retrieval.build import build_index
    from retrieval.collection import read_collection
    from retrieval.searcher import default_index

    collection = read_collection(data, layout, part, split)
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
        }
    if as_json:
        print_json(content)
    else:
        print_info(content)


def print_info(content: Mapping[str, Any]) -> None:
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
        ("collection", f"{collection['root']} ({collection['layout']})"),
        ("model", f"{model['name']} ({model['sha256'][:8]})"),
        ("rules", f"{rules['k']} studies vote; {rules['source']}"),
        ("search", store["kind"]),
        ("generation", f"{content['generation']}, created {content['created']}"),
    ):
        print(f"{name:<12} {printable(text)}")
    if collection["synthetic"]:
        print("It holds synthetic radiographs: its answers show how the tool works, no more.")
