"""`mura-search index verify`, `export` and `info`: what an index holds, and whether it is whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import AsJson, IndexPlace, note, print_json, printable, progress, radiographs

__all__ = ["export", "info", "verify"]


def verify(place: IndexPlace = None, as_json: AsJson = False) -> None:
    """Read every byte of an index and compare it with its checksums."""
    from index.reader import IndexReader
    from retrieval.encoding.bundle import Bundle
    from retrieval.searcher import default_index

    with IndexReader.open(place or default_index()) as folder:
        Bundle.open(folder.model)
        every_byte = folder.verify()
        count, _ = folder.size()
        content = {"schema": "mura-search/verify/1", "path": str(folder.path), "cases": count, "whole": True}
    if as_json:
        print_json(content | {"every_byte": every_byte})
        return
    print(f"Whole: {radiographs(count)}, their embeddings and pictures, the vectors and the model.")
    if not every_byte:
        note("bytes that mean nothing, as of removed cases, were not checked; they are from: mura-search index compact")


def export(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The Parquet file to write.")],
    place: IndexPlace = None,
    as_json: AsJson = False,
) -> None:
    """Write all records, embeddings and classifier logits into a Parquet file."""
    from index.export import write_parquet
    from index.reader import IndexReader
    from retrieval.searcher import default_index

    with IndexReader.open(place or default_index()) as folder, progress("exporting") as show:
        count = write_parquet(folder, target, progress=show)
    if as_json:
        print_json({"schema": "mura-search/export/1", "path": str(target), "cases": count})
    else:
        print(printable(f"Wrote {radiographs(count)} to {target}."))


def info(place: IndexPlace = None, as_json: AsJson = False) -> None:
    """Say what an index holds."""
    from index.reader import IndexReader
    from retrieval.encoding.bundle import Bundle
    from retrieval.searcher import default_index

    with IndexReader.open(place or default_index()) as folder:
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
        ("search", _search(store)),
        ("generation", f"{content['generation']}, created {content['created']}"),
        ("last change", _change(last) if last else "none"),
    ):
        print(f"{name:<12} {printable(text)}")
    if collection["synthetic"]:
        print("It holds synthetic radiographs: its answers show how the tool works, no more.")


def _search(store: Mapping[str, Any]) -> str:
    if "uri" in store:
        return f"{store['kind']} at {store['uri']}, collection {store['collection']}"
    if store["exact"]:
        return f"exact ({store['kind']})"
    return (
        f"{store['kind']}: recall {store['recall']:.3f} at {store['recall_at']}, {store['latency']:.2f} ms a query; "
        f"exact search {store['exact_latency']:.1f} ms"
    )


def _change(entry: Mapping[str, Any]) -> str:
    detail = entry["detail"]
    count = f" {radiographs(detail['cases'])}" if "cases" in detail else ""
    return f"{entry['action']}{count}, {entry['at']}"
