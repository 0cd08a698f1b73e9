"""`mura-search index verify`, `export`, `list`, `show` and `info`: what an index holds, and whether it is undamaged."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from cli.console import (
    bare_table,
    note,
    print_json,
    print_result,
    progress,
    radiographs,
    require_writable,
    standard_output,
)
from cli.options.common import AsJson, IndexFolder, index_reader, index_writer
from index.atomic import leftovers
from index.case import FIELDS, LABEL_NAMES, Case
from index.checksums import SUMS
from index.errors import IndexFailure
from retrieval.wording import printable

CLASSIFIERS = ("the one that came with the model", "a local one, learned on local studies")

__all__ = ["export", "info", "list_", "show", "verify"]


def verify(index: IndexFolder = None, as_json: AsJson = False) -> None:
    """Read every byte of an index and compare it with the checksums."""
    from retrieval.encoding.bundle import Bundle

    with index_reader(index) as reader:
        Bundle.open(reader.model)
        every_byte = reader.verify()
        count, _ = reader.size()
    content = {"path": str(reader.path), "cases": count, "whole": True, "every_byte": every_byte}
    text = f"Intact: {radiographs(count)}, their embeddings and pictures, the vectors and the model."
    print_result(as_json, "mura-search/verify/1", content, text)
    for folder in leftovers(reader.path):
        note(f"{folder} is an unfinished build and may hold removed patients: finish it with index build, or remove it")
    if every_byte:
        return
    with suppress(IndexFailure):
        index_writer(index).close()  # writes SHA256SUMS again if it is missing or stale, unless the index is large
    if (reader.path / SUMS).exists():
        note(f"{SUMS} was missing or stale, and is written again")
    else:
        note(f"unused bytes were not checked, as {SUMS} is missing; to write it: mura-search index compact")


def export(
    target: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write: FILE.parquet (extra analysis) or FILE.csv.")
    ],
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Write all records, embeddings and classifier logits to a Parquet file or a CSV table.

    A Parquet file also holds the pictures; index import makes an index of it again.
    """
    if target.suffix.lower() not in {".parquet", ".csv"}:
        raise typer.BadParameter(f"name a file that ends in .parquet or .csv, not {target.name}")
    require_writable(target)
    if target.suffix.lower() == ".csv":
        from retrieval.indexing.exchange import write_csv as write
    else:
        from index.export import write_parquet as write  # type: ignore[assignment]  # called alike
    with index_reader(index) as reader, progress("exporting") as show:
        count = write(reader, target, progress=show)
    text = f"Wrote {radiographs(count)} to {target}."
    print_result(as_json, "mura-search/export/1", {"path": str(target), "cases": count}, text)


@dataclass(frozen=True)
class FilterOptions:
    """Which radiographs to list."""

    part: Annotated[list[str] | None, Option(metavar="NAME", help="Only this body part; may be repeated.")] = None
    view: Annotated[list[str] | None, Option(metavar="NAME", help="Only this view; may be repeated.")] = None
    split: Annotated[list[str] | None, Option(metavar="NAME", help="Only this split; may be repeated.")] = None
    label: Annotated[list[str] | None, Option(metavar="LABEL", help="Only normal or only abnormal.")] = None
    study: Annotated[list[str] | None, Option(metavar="NAME", help="Only this study; may be repeated.")] = None
    patient: Annotated[list[str] | None, Option(metavar="NAME", help="Only this patient; may be repeated.")] = None

    def select(self, cases: Sequence[Case]) -> list[Case]:
        from retrieval.datasets.pseudonyms import indexed_names

        for label in set(self.label or ()) - {*LABEL_NAMES}:
            raise typer.BadParameter(f"a label is normal or abnormal, not {label}")
        wanted = {field.name: set(getattr(self, field.name)) for field in fields(self) if getattr(self, field.name)}
        for name in ("study", "patient"):
            if name in wanted:
                wanted[name] = {known for value in wanted[name] for known in indexed_names(name, value)}
        return [case for case in cases if all(shown(case)[name] in values for name, values in wanted.items())]


def shown(case: Case) -> dict[str, str]:
    """A record, its label by name."""
    return {name: case.label_name if name == "label" else str(getattr(case, name)) for name in FIELDS}


def list_(options: FilterOptions, index: IndexFolder = None, as_json: AsJson = False) -> None:
    """List the radiographs of an index, one per line. The options choose some of them."""
    with index_reader(index) as reader:
        cases = options.select(reader.read_whole(reader.cases))
    if as_json:
        print_json({"schema": "mura-search/index-list/1", "cases": [shown(case) for case in cases]})
        return
    table = bare_table("radiograph", "label", "part", "view", "study", "patient")
    for case in cases:
        table.add_row(case.case, case.label_name, case.part, case.view, case.study, case.patient)
    standard_output().print(table)
    note(f"{radiographs(len(cases))}")


def show(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Radiographs, studies or patients.")],
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show all that an index holds about radiographs, studies or patients."""
    from retrieval.datasets.pseudonyms import indexed_names

    with index_reader(index) as reader:
        cases, unread = dict[str, Case](), dict[str, str]()
        for kind in ("case", "study", "patient"):
            known = {indexed for name in names for indexed in indexed_names(kind, name)}
            cases |= {case.case: case for case in reader.find(kind, known)}
            unread |= {case.case: why for case, why in reader.set_aside() if getattr(case, kind) in known}
    if not cases and not unread:
        raise IndexFailure(f"the index holds no radiograph, study or patient {names[0]}")
    if as_json:
        aside = [{"case": case, "reason": why} for case, why in unread.items()]
        records = [shown(case) for case in cases.values()]
        print_json({"schema": "mura-search/index-show/1", "cases": records, "quarantined": aside})
        return
    for case in cases.values():
        print(*(printable(f"{name:<12} {value}") for name, value in shown(case).items() if value), sep="\n", end="\n\n")
    for name, why in unread.items():
        print(printable(f"not indexed: {name}: {why}"))


def info(index: IndexFolder = None, as_json: AsJson = False) -> None:
    """Show what an index holds."""
    from retrieval.decision.measure_limits import limits_of
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
            "measure_limits": limits_of(reader).to_dict(),
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
    gone = ", which is missing" if collection["root"] and not Path(collection["root"]).exists() else ""
    for name, text in (
        ("index", content["path"]),
        ("radiographs", f"{content['cases']:,} of {content['studies']:,} studies, {content['patients']:,} patients"),
        ("labels", counts["labels"]),
        ("parts", counts["parts"]),
        ("unreadable", f"{content['quarantined']:,} set aside"),
        ("collection", f"{collection['root']} ({collection['layout']}){gone}".strip()),
        ("model", f"{model['name']} ({model['sha256'][:8]})"),
        ("rules", f"{rules['k']} studies vote; {rules['source']}"),
        ("classifier", CLASSIFIERS["local" in rules]),
        ("measures", _measures(content["measure_limits"])),
        ("search", _search(store)),
        ("generation", f"{content['generation']}, created {content['created']}"),
        ("last change", _change(last) if last else "none"),
    ):
        print(f"{name:<12} {printable(text)}")
    if collection["synthetic"]:
        print("It holds synthetic radiographs: its answers only show how the tool works.")


def _measures(limits: Mapping[str, Any]) -> str:
    """Whether queries are compared by their plain measures, and if not, why and what to do."""
    from retrieval.decision.measure_limits import FEWEST

    if not limits["studies"]:
        return "none: an earlier version built this index; build it again, so that soft or noisy queries are flagged"
    if not limits["limits"]:
        return f"of {limits['studies']:,} studies, too few for limits; from {FEWEST} studies on, they flag queries"
    return f"limits from {limits['studies']:,} studies: " + ", ".join(limits["limits"])


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
