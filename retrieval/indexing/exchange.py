"""An index as a CSV table, and an index from an exported Parquet file."""

import csv
import hashlib
import io
import time
from pathlib import Path
from typing import Any

from index.atomic import whole_file
from index.builder import IndexBuilder
from index.case import FIELDS
from index.errors import IndexFailure
from index.reader import IndexReader
from retrieval.decision.rules import Rules
from retrieval.encoding.batches import Progress
from retrieval.encoding.bundle import BUNDLED, Bundle
from retrieval.formats.csv_format import safe_text
from retrieval.indexing.build import BuildReport

__all__ = ["import_index", "write_csv"]


def write_csv(reader: IndexReader, target: Path, progress: Progress | None = None) -> int:
    """Write all records, logits and embeddings to a CSV table, completely or not at all; gives the number of cases.

    Columns: those of `Case`, the label by name; `logit`, the classifier's, uncalibrated; `e0`, `e1`, ... the embedding.
    No name is a formula of a spreadsheet.
    Raises IndexBusy and IndexFailure as `index.export.write_parquet` does.
    """
    try:
        return reader.read_whole(lambda: _write(reader, target, progress))
    except OSError as error:
        raise IndexFailure(f"{target} cannot be written: {error.strerror or error}") from error


def _write(reader: IndexReader, target: Path, progress: Progress | None) -> int:
    (total, _), done = reader.size(), 0
    with whole_file(target) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*FIELDS, "logit", *(f"e{number}" for number in range(reader.embeddings().shape[1]))])
        for batch in reader.batches():
            for case, logit, embedding in zip(batch.cases, batch.logits, batch.embeddings, strict=True):
                record = [case.label_name if name == "label" else getattr(case, name) for name in FIELDS]
                writer.writerow([*map(safe_text, record), logit.item(), *embedding.tolist()])
            done += len(batch.cases)
            if progress:
                progress(done, total)
        text.detach()  # which also writes what it holds
    return done


def import_index(
    source: Path, path: Path, *, model: Path | None = None, replace: bool = False, progress: Progress | None = None
) -> BuildReport:
    """Build an index at `path` from a Parquet file that `index.export.write_parquet` wrote, without a radiograph.

    model: the bundle that encoded the exported index, by default the bundled one. Records, embeddings, thumbnails,
    logits and decision rules are those of the exported index. The same call continues an interrupted import.

    Raises IndexFailure if the file cannot be read or is of another model, IndexBusy and BundleError as `build_index`.
    """
    from index.export import read_parquet

    started = time.perf_counter()
    bundle = Bundle.open(BUNDLED if model is None else model)
    about, total, batches = read_parquet(source)
    description = hashlib.sha256((bundle.folder / "model.json").read_bytes()).hexdigest()
    if about["model"].get("model.json") != description:
        raise IndexFailure(
            f"{source} was exported from an index of another model than {bundle.name}; name its model with --model, "
            "such as the folder model of that index"
        )
    content = hashlib.sha256(repr((about, total, source.stat().st_mtime_ns)).encode()).hexdigest()
    with IndexBuilder.start(
        path, model=bundle.folder, dimension=bundle.dimension, fingerprint=f"import {content}", replace=replace
    ) as build:
        known, done = build.done(), 0
        for batch in batches:
            try:
                build.add_missing(batch, known)
            except ValueError as error:
                raise IndexFailure(f"{source} is damaged: {error}; export it again") from error
            done += len(batch.cases)
            if progress:
                progress(done, total)
        values: dict[str, Any] = about["values"] | {"store": {}}
        for key, value in values.items():
            build.set_metadata(key, value)
        cases, rules = build.cases(), Rules.from_dict(values["rules"])
        build.finish()
    return BuildReport.of(
        path,
        cases,
        rules,
        resumed=len(known),
        synthetic=bool((values.get("collection") or {}).get("synthetic")),
        seconds=time.perf_counter() - started,
    )
