"""`mura-search index`: build an index of labelled radiographs, change it, check it, and say what it holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.fetching import DicomwebUrl, SomeData, collected
from cli.filing import DicomwebTls
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

if TYPE_CHECKING:
    from retrieval.build import BuildReport
    from retrieval.collection import Collection

__all__ = ["index"]

index = typer.Typer(
    cls=Group,
    name="index",
    help="Build an index of labelled studies, change it, check it, or see what it holds.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


Recall = Annotated[
    float | None,
    typer.Option(min=0.5, max=1, help="Share of the ten nearest that a search finds.  [default: 0.99]"),
]
Latency = Annotated[
    float | None,
    typer.Option(min=0.001, metavar="MS", help="Exact search up to these milliseconds a query.  [default: 3]"),
]
Memory = Annotated[
    float | None, typer.Option(min=0.001, metavar="GB", help="What the search may take.  [default: any]")
]
Store = Annotated[
    str, typer.Option(metavar="STORE", help="Where the vectors are: faiss, in the index; milvus, at --uri.")
]
Uri = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="Of Milvus: http://HOST:19530, https://..., or FILE.db. A token is taken from the environment: "
        "MURA_SEARCH_MILVUS_TOKEN.",
    ),
]
Tls = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Of Milvus: server_pem_path, server_name, ca_pem_path, client_pem_path or client_key_path.",
    ),
]


@index.command()
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
    from retrieval.build import build_index
    from retrieval.collection import read_collection
    from retrieval.searcher import default_index

    remote = _store(store, uri, tls or [])
    with collected(data, dicomweb, dicomweb_tls, labels, keep_identifiers) as folder:
        layout = layout or ("dicom" if dicomweb else None)
        collection = read_collection(folder, layout, part, split, labels=labels, keep_identifiers=keep_identifiers)
        for text in collection.notes:
            note(text)
        if shard is not None:
            _build_shard(collection, shard, place or default_index(), model, replace, workers, as_json)
            return
        with progress("indexing") as show:
            report = build_index(
                collection,
                place or default_index(),
                model=model,
                replace=replace,
                demand=_demand(recall, latency, memory),
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
    from retrieval.shards import Shard, build_shard

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
    print(f"Shard {report.shard}: {_radiographs(report.cases)} in {report.seconds:.1f} s.")
    print("Join all shards:  mura-search index merge SHARD... --index FOLDER")


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
    if report.behind:
        note(f"Milvus does not answer; {report.behind:,} changes reach it with the next; so far they are searched here")
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
    if edit.behind:
        note("they are found no more; their embeddings leave vectors.faiss or Milvus with: mura-search index compact")


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
    from index.edit import IndexEdit
    from index.folder import IndexFolder
    from retrieval.growth import require_same_key
    from retrieval.searcher import default_index
    from retrieval.shards import is_shard, join_shards

    if is_shard(others[0]):
        with progress("joining") as show:
            report = join_shards(
                others,
                place or default_index(),
                replace=replace,
                demand=_demand(recall, latency, memory),
                store=_store(store, uri, tls or []),
                progress=show,
            )
        _print_build(report, place, as_json)
        return
    added, known = 0, list[tuple[str, str]]()
    with IndexEdit.open(place or default_index()) as edit:
        for other in others:
            with IndexFolder.open(other) as source:
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
        print(f"Added {_radiographs(added)}; there already, byte for byte: {len(known):,}.")


@index.command()
def verify(place: IndexPlace = None, as_json: AsJson = False) -> None:
    """Read every byte of an index and compare it with its checksums."""
    from index.folder import IndexFolder
    from retrieval.bundle import Bundle
    from retrieval.searcher import default_index

    with IndexFolder.open(place or default_index()) as folder:
        Bundle.open(folder.model)
        every_byte = folder.verify()
        count, _ = folder.size()
        content = {"schema": "mura-search/verify/1", "path": str(folder.path), "cases": count, "whole": True}
    if as_json:
        print_json(content | {"every_byte": every_byte})
        return
    print(f"Whole: {_radiographs(count)}, their embeddings and pictures, the vectors and the model.")
    if not every_byte:
        note("bytes that mean nothing, as of removed cases, were not checked; they are from: mura-search index compact")


@index.command()
def compact(
    place: IndexPlace = None,
    recall: Recall = None,
    latency: Latency = None,
    memory: Memory = None,
    as_json: AsJson = False,
) -> None:
    """Give the space of what was removed back to the disk, and make the search as fast as it is to be."""
    from index.edit import IndexEdit
    from retrieval.searcher import default_index

    with IndexEdit.open(place or default_index()) as edit:
        saved = edit.compact(**_demand(recall, latency, memory))
    if as_json:
        print_json({"schema": "mura-search/compact/1", "bytes": saved})
    else:
        print(f"Gave back {saved:,} bytes.")


@index.command()
def export(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The Parquet file to write.")],
    place: IndexPlace = None,
    as_json: AsJson = False,
) -> None:
    """Write all records, embeddings and classifier logits into a Parquet file."""
    from index.folder import IndexFolder
    from index.parquet import write_parquet
    from retrieval.searcher import default_index

    with IndexFolder.open(place or default_index()) as folder, progress("exporting") as show:
        count = write_parquet(folder, target, progress=show)
    if as_json:
        print_json({"schema": "mura-search/export/1", "path": str(target), "cases": count})
    else:
        print(printable(f"Wrote {_radiographs(count)} to {target}."))


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


def _store(store: str, uri: str | None, tls: list[str]) -> dict[str, str]:
    """Where the vectors go, as the index notes it; nothing for FAISS."""
    if store not in {"faiss", "milvus"}:
        raise typer.BadParameter(f"the store is faiss or milvus, not {store}")
    if (store == "milvus") != (uri is not None) or (tls and store == "faiss"):
        raise typer.BadParameter("--store milvus needs --uri, and --uri and --tls need --store milvus")
    if uri is None:
        return {}
    from index.milvus_place import MilvusPlace

    settings = dict(item.partition("=")[::2] for item in tls)
    names = {"server_pem_path", "server_name", "ca_pem_path", "client_pem_path", "client_key_path"}
    if set(settings) - names:
        raise typer.BadParameter(f"--tls takes {', '.join(sorted(names))}")
    if uri.endswith(".db") and "://" not in uri:
        uri = str(Path(uri).absolute())
    settings = {
        name: str(Path(value).absolute()) if name.endswith("path") else value for name, value in settings.items()
    }
    MilvusPlace(uri, **settings)  # type: ignore[arg-type]  # which says what is wrong with it
    return {"kind": "milvus", "uri": uri, **settings}


def _demand(recall: float | None, latency: float | None, memory: float | None) -> dict[str, float]:
    """What was asked for, as `index.vectors.Demand` has it."""
    wanted = {"recall": recall, "latency": latency, "memory": None if memory is None else round(memory * 2**30)}
    return {name: value for name, value in wanted.items() if value is not None}


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
    count = f" {_radiographs(detail['cases'])}" if "cases" in detail else ""
    return f"{entry['action']}{count}, {entry['at']}"


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
        ("search", _search(store)),
        ("generation", f"{content['generation']}, created {content['created']}"),
        ("last change", _change(last) if last else "none"),
    ):
        print(f"{name:<12} {printable(text)}")
    if collection["synthetic"]:
        print("It holds synthetic radiographs: its answers show how the tool works, no more.")
