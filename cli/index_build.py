"""`mura-search index build` and `merge`: an index of labelled radiographs, of shards, or of other indexes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import (
    AsJson,
    IndexPlace,
    KeepIdentifiers,
    Labels,
    Layout,
    Part,
    Split,
    Workers,
    note,
    print_json,
    progress,
    radiographs,
)
from cli.options.data import DicomwebUrl, SomeData, collected, read_noted
from cli.options.dicom import DicomwebTls
from cli.options.store import Latency, Memory, Recall, Store, Tls, Uri, demand_of, remote_store
from index.errors import IndexFailure

if TYPE_CHECKING:
    from retrieval.datasets.collection import Collection
    from retrieval.indexing.build import BuildReport

__all__ = ["build", "merge"]


def build(
    data: SomeData = None,
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
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only the I-th of N pieces, as an index to be joined by: index merge."),
    ] = None,
    recall: Recall = None,
    latency: Latency = None,
    memory: Memory = None,
    store: Store = "faiss",
    uri: Uri = None,
    tls: Tls = None,
    dicomweb: DicomwebUrl = None,
    dicomweb_tls: DicomwebTls = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Index a collection. Interrupted, the same command goes on; nothing is at the place before it is whole."""
    from retrieval.indexing.build import build_index
    from retrieval.searcher import default_index

    remote = remote_store(store, uri, tls or [])
    with collected(data, dicomweb, dicomweb_tls, labels, keep_identifiers) as folder:
        layout = layout or ("dicom" if dicomweb else None)
        collection = read_noted(folder, layout, part, split, labels, keep_identifiers)
        if shard is not None:
            _build_shard(collection, shard, place or default_index(), model, replace, workers, as_json)
            return
        with progress("indexing") as show:
            report = build_index(
                collection,
                place or default_index(),
                model=model,
                replace=replace,
                demand=demand_of(recall, latency, memory),
                store=remote,
                workers=workers,
                progress=show,
            )
    _print_build(report, place, as_json)


def _print_build(report: "BuildReport", place: Path | None, as_json: bool) -> None:
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


def _build_shard(
    collection: "Collection",
    shard: str,
    place: Path,
    model: Path | None,
    replace: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    from retrieval.indexing.shards import Shard, build_shard

    try:
        piece = Shard.parse(shard)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with progress("indexing") as show:
        report = build_shard(collection, piece, place, model=model, replace=replace, workers=workers, progress=show)
    if as_json:
        print_json(report.to_dict())
        return
    for case, reason in report.quarantined:
        note(f"not indexed: {case}: {reason}")
    print(f"Shard {report.shard}: {radiographs(report.cases)} in {report.seconds:.1f} s.")
    print("Join all shards:  mura-search index merge SHARD... --index FOLDER")


def merge(
    others: Annotated[
        list[Path],
        typer.Argument(metavar="OTHER...", help="Indexes whose radiographs are added, or all shards of one."),
    ],
    place: IndexPlace = None,
    prefix: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Put before OTHER's names of radiographs, studies and patients, such as north/, where two hospitals "
            "use the same names for different people.",
        ),
    ] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Of shards: replace the index that is there.")] = False,
    recall: Recall = None,
    latency: Latency = None,
    memory: Memory = None,
    store: Store = "faiss",
    uri: Uri = None,
    tls: Tls = None,
    as_json: AsJson = False,
) -> None:
    """Add other indexes of the same model to this one, or make this one of the shards of an index."""
    from index.reader import IndexReader
    from index.writer import IndexWriter
    from retrieval.indexing.shards import is_shard, join_shards
    from retrieval.indexing.update import require_same_key
    from retrieval.searcher import default_index

    if is_shard(others[0]):
        with progress("joining") as show:
            report = join_shards(
                others,
                place or default_index(),
                replace=replace,
                demand=demand_of(recall, latency, memory),
                store=remote_store(store, uri, tls or []),
                progress=show,
            )
        _print_build(report, place, as_json)
        return
    added, known = 0, list[tuple[str, str]]()
    with IndexWriter.open(place or default_index()) as edit:
        for other in others:
            with IndexReader.open(other) as source:
                if not prefix:
                    require_same_key(edit.metadata("collection"), source.metadata("collection"))
                try:
                    more, there = edit.merge(source, prefix)
                except ValueError as error:
                    raise IndexFailure(f"{error}; nothing of {other} was merged") from error
            added, known = added + more, known + there
    if as_json:
        pairs = [{"case": case, "indexed": indexed} for case, indexed in known]
        print_json({"schema": "mura-search/merge/1", "added": added, "known": pairs})
    else:
        print(f"Added {radiographs(added)}; there already, byte for byte: {len(known):,}.")
