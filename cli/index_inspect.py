"""`mura-search index verify`, `export` and `info`: what an index holds, and whether it is undamaged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import note, print_json, print_result, progress, radiographs
from cli.options.common import AsJson, IndexFolder, index_reader
from retrieval.wording import printable

__all__ = ["export", "info", "verify"]


def verify(index: IndexFolder = None, as_json: AsJson = False) -> None:
    """Read every byte of an index and compare it with the checksums."""
    from retrieval.encoding.bundle import Bundle

    with index_reader(index) as reader:
        Bundle.open(reader.model)
        every_byte = reader.verify()
        count, _ = reader.size()
    content = {"path": str(reader.path), "cases": count, "whole": True, "every_byte": every_byte}
    text = f"Whole: {radiographs(count)}, their embeddings and pictures, the vectors and the model."
    print_result(as_json, "verify", content, text)
    if not (every_byte or as_json):
        note("the bytes of removed radiographs were not checked; to remove them: mura-search index compact")


def export(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The Parquet file to write.")],
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write all records, embeddings and classifier logits to a Parquet file."""
    from index.export import write_parquet

    with index_reader(index) as reader, progress("exporting") as show:
        count = write_parquet(reader, target, progress=show)
    text = f"Wrote {radiographs(count)} to {target}."
    print_result(as_json, "export", {"path": str(target), "cases": count}, text)


def info(index: IndexFolder = None, as_json: AsJson = False) -> None:
    """Show what an index holds."""
    from retrieval.encoding.bundle import Bundle

    with index_reader(index) as reader:
        bundle = Bundle.open(reader.model)
        content = {
            "schema": "mura-search/index-info/1",
            "path": str(reader.path),
            **{"index_schema" if key == "schema" else key: value for key, value in reader.info().items()},
            "model": {"name": bundle.name, "sha256": bundle.sha256, "synthetic": bundle.synthetic},
            "collection": reader.metadata("collection"),
            "rules": reader.metadata("rules"),
            "history": reader.history(),
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
