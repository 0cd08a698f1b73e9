"""`mura-search index build` and `merge`: an index of labelled radiographs, of shards, or of other indexes."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from cli.console import note, note_few, print_json, print_result, progress, radiographs
from cli.index_calibrate import print_trial
from cli.options.common import AsJson, IndexFolder, Workers, index_path
from cli.options.data import CollectionOptions, FetchOptions, KeepBlank
from cli.options.store import StoreOptions
from index.errors import IndexFailure
from index.lock import require_locks
from retrieval.notices import Code
from retrieval.wording import sentence

if TYPE_CHECKING:
    from retrieval.datasets.collection import Collection
    from retrieval.indexing.build import BuildReport
    from retrieval.indexing.shards import Shard, ShardReport

__all__ = ["build", "import_", "merge"]


def build(
    source: FetchOptions,
    collection: CollectionOptions,
    store: StoreOptions,
    index: IndexFolder = None,
    model: Annotated[
        Path | None, Option(metavar="FOLDER", help="The model bundle. By default it is the bundled model.")
    ] = None,
    replace: Annotated[bool, Option("--replace", help="Replace an index that exists.")] = False,
    shard: Annotated[
        str | None,
        Option(metavar="I/N", help="Index only the I-th of N shards. mura-search index merge joins the shards."),
    ] = None,
    keep_blank: KeepBlank = False,
    preview: Annotated[
        int,
        Option(
            metavar="PIXELS",
            min=0,
            max=4096,
            help="The long side of the picture kept of each radiograph, for comparisons; 0 keeps only a thumbnail.",
        ),
    ] = 512,
    regions: Annotated[
        bool, Option("--regions", help="Encode regions of the radiographs, too, for --region. This takes longer.")
    ] = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Index a collection. If this is interrupted, the same command continues.

    The index appears only when it is complete.
    """
    from retrieval.indexing.build import BuildOptions, build_index
    from retrieval.indexing.shards import build_shard

    if regions and shard is not None:
        raise typer.BadParameter("a shard has no regions; after the merge: mura-search index regions")
    require_locks()
    target = index_path(index)
    options = BuildOptions(keep_blank, preview, workers, **store.arguments)
    with source.collection(collection) as cases, progress("indexing") as show:
        if shard is not None:
            made = build_shard(cases, shard_of(shard), target, options, model=model, replace=replace, progress=show)
        else:
            report = build_index(cases, target, options, model=model, replace=replace, progress=show)
        if regions and shard is None:
            encode_regions(cases, target)
    if shard is not None:
        print_shard(made, as_json)
    else:
        print_build(report, index, as_json)


def shard_of(text: str) -> "Shard":
    """The shard that I/N names."""
    from retrieval.indexing.shards import Shard

    try:
        return Shard.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def encode_regions(collection: "Collection", target: Path) -> None:
    """Encode the regions of a collection that was just indexed."""
    from retrieval.search_by.region import add_regions

    with progress("encoding regions") as show:
        _, unread = add_regions(target, paths={case.case: case.path for case in collection.cases}, progress=show)
    note_few("without regions", unread)


def print_shard(report: "ShardReport", as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
        return
    for case, reason in report.quarantined:
        note(f"not indexed: {case}: {reason}")
    print(f"Shard {report.shard}: {radiographs(report.cases)} in {report.seconds:.1f} s.")
    print("Join all shards:  mura-search index merge SHARD... --index FOLDER")


def print_build(report: "BuildReport", index: Path | None, as_json: bool) -> None:
    from retrieval.notices import BLANKS

    if as_json:
        print_json(report.to_dict())
        return
    for case, reason in report.quarantined:
        note(f"not indexed: {case}: {reason}")
    resumed = f", {report.resumed:,} of them before an interruption" if report.resumed else ""
    print(f"Indexed {report.cases:,} radiographs of {report.studies:,} studies{resumed}, in {report.seconds:.1f} s.")
    if report.quarantined:
        print(f"Not indexed: {len(report.quarantined):,} that cannot be read or are blank, listed above.")
    if blank := sum(notice.code in BLANKS for notice in report.notices):
        print(f"Blank: {blank:,}. --keep-blank indexes blank radiographs as well.")
    print(f"Decision rules: {report.rules.source}.")
    if report.trial is not None:
        print_trial(report.trial)
    if warnings := len(report.warnings):
        print(f"Read with a warning: {warnings:,}; mura-search audit lists them.")
    for notice in report.notices:
        if notice.code == Code.ONE_LABEL:
            note(sentence(notice))
    option = f" --index {shlex.quote(report.path)}" if index else ""
    print(f"Ask it:  mura-search QUERY...{option}")


def merge(
    others: Annotated[
        list[Path],
        typer.Argument(metavar="OTHER", help="Other indexes, or all shards of one index; not both."),
    ],
    store: StoreOptions,
    index: IndexFolder = None,
    prefix: Annotated[
        str,
        Option(
            metavar="TEXT",
            help="Other indexes only: put this text before the names of their radiographs, studies and patients. Use "
            "it if two hospitals use the same names for different people.",
        ),
    ] = "",
    replace: Annotated[bool, Option("--replace", help="Shards only: replace an index that exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add other indexes to this index, or join all shards to this index.

    All must be of the same model.
    """
    from retrieval.indexing.shards import is_shard, join_shards

    target = index_path(index)
    shards = [path for path in others if is_shard(path)]
    if not shards:
        if replace or store != StoreOptions():
            raise typer.BadParameter(
                "--replace and the options of search and store are for shards; OTHER is not a shard"
            )
        merge_indexes(others, target, prefix, as_json)
        return
    if whole := [path for path in others if path not in shards]:
        raise IndexFailure(
            f"{shards[0]} is a shard and {whole[0]} is not; join the shards first, then merge the result"
        )
    if prefix:
        raise typer.BadParameter("--prefix is for other indexes; shards of one index keep their names")
    with progress("joining") as show:
        report = join_shards(others, target, replace=replace, progress=show, **store.arguments)
    print_build(report, index, as_json)


def merge_indexes(others: Sequence[Path], target: Path, prefix: str, as_json: bool) -> None:
    from index.reader import IndexReader
    from index.writer import IndexWriter
    from retrieval.indexing.update import refresh_limits, require_same_key

    added, known, differing = 0, list[tuple[str, str]](), list[tuple[str, str]]()
    with IndexWriter.open(target) as writer:
        for path in others:
            with IndexReader.open(path) as reader:
                if not prefix:
                    require_same_key(writer.metadata("collection"), reader.metadata("collection"))
                try:
                    merged = writer.merge(reader, prefix)
                except ValueError as error:
                    raise IndexFailure(f"{error}; nothing of {path} was merged") from error
            added += merged.added
            known += merged.known
            differing += merged.differing
        if added:
            refresh_limits(writer)
    pairs = [{"case": case, "indexed": indexed} for case, indexed in known]
    differences = [{"case": case, "difference": words} for case, words in differing]
    lines = [f"Added {radiographs(added)}; already in the index, byte for byte: {len(known):,}."]
    if differing and not as_json:
        note_few("differs", differing)
        lines.append(f"Whose records differ from the index, which keeps its own: {len(differing):,}.")
    print_result(as_json, "mura-search/merge/1", {"added": added, "known": pairs, "differing": differences}, *lines)


def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The Parquet file that index export wrote.")],
    index: IndexFolder = None,
    model: Annotated[
        Path | None, Option(metavar="FOLDER", help="The model of that index. By default it is the bundled model.")
    ] = None,
    replace: Annotated[bool, Option("--replace", help="Replace an index that exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make an index from an exported Parquet file, without the radiographs.

    Records, embeddings, pictures and decision rules are those of the exported index.
    """
    from retrieval.indexing.exchange import import_index

    with progress("importing") as show:
        report = import_index(source, index_path(index), model=model, replace=replace, progress=show)
    print_build(report, index, as_json)
