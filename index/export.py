"""An index as a Parquet file, and back. The only file that imports pyarrow."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from index.atomic import whole_file
from index.case import FIELDS, TEXTS, Case
from index.errors import IndexFailure, MissingExtra
from index.reader import IndexReader
from index.sqlite.reader import Batch
from index.sqlite.schema import EXTRAS

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra("pyarrow", "analysis") from error

__all__ = ["read_parquet", "write_parquet"]

KEY = b"mura-search"  # of the file's metadata, a JSON object
LOST = ("store",)  # metadata that does not leave the index


def write_parquet(reader: IndexReader, target: Path, *, progress: Callable[[int, int], None] | None = None) -> int:
    """Write all cases in row order, completely or not at all; gives their number.

    Columns: those of `Case`, the label as 0 or 1; `logit`, the classifier's, uncalibrated; `thumbnail`, JPEG or PNG;
    `embedding`, a list of D float32; those of `index.sqlite.schema.EXTRAS`, bytes or nothing. The file's metadata name
    generation, model, decision rules and collection. `progress` gets (done, all). The file holds one generation: if the
    index changes meanwhile, it is written again.
    Raises IndexBusy if that happens again and again, IndexFailure if the file cannot be written.
    """
    try:
        return reader.read_whole(lambda: _write(reader, target, progress))
    except OSError as error:
        raise IndexFailure(f"{target} cannot be written: {error.strerror or error}") from error


def _write(reader: IndexReader, target: Path, progress: Callable[[int, int], None] | None) -> int:
    total, _ = reader.size()
    dimension = int(reader.embeddings().shape[1])
    kinds = {"label": pa.int8()}
    columns = [(name, kinds.get(name, pa.string())) for name in FIELDS]
    columns += [(table, pa.binary()) for table in EXTRAS]
    columns += [("logit", pa.float32()), ("thumbnail", pa.binary()), ("embedding", pa.list_(pa.float32(), dimension))]
    values = {name: value for name, value in reader.all_metadata().items() if name not in LOST}
    about = {"generation": reader.info()["generation"], "model": reader.model_files(), "values": values}
    schema = pa.schema(columns).with_metadata({KEY: json.dumps(about)})
    done = 0
    with whole_file(target) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in reader.batches():
            writer.write_batch(_table(batch, schema))
            done += len(batch.cases)
            if progress:
                progress(done, total)
    return done


def _table(batch: Batch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [pa.array([getattr(case, name) for case in batch.cases], schema.field(name).type) for name in FIELDS]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.embeddings.ravel()), batch.embeddings.shape[1])
    pictures = pa.array(batch.thumbnails, pa.binary())
    none = [b""] * len(batch.cases)
    columns += [pa.array([data or None for data in batch.extras.get(table, none)], pa.binary()) for table in EXTRAS]
    return pa.record_batch([*columns, pa.array(batch.logits), pictures, vectors], schema=schema)


def read_parquet(source: Path) -> tuple[dict[str, Any], int, Iterator[Batch]]:
    """What `write_parquet` wrote: the metadata, the number of cases, and the cases in their order.

    Raises IndexFailure if the file cannot be read, or if another program wrote it.
    """
    try:
        file = pq.ParquetFile(source)
        about = json.loads((file.schema_arrow.metadata or {}).get(KEY, b"null"))
        missing = {*FIELDS, "logit", "thumbnail", "embedding"} - {*file.schema_arrow.names, *TEXTS}
        if missing or not isinstance(about, dict):
            raise ValueError("it is not a complete export of this version")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise IndexFailure(f"{source} cannot be imported: {error}; write it with mura-search index export") from error
    return about, file.metadata.num_rows, _batches(file, source)


def _batches(file: pq.ParquetFile, source: Path) -> Iterator[Batch]:
    try:
        for table in file.iter_batches(1024):
            columns = {name: table.column(name) for name in table.schema.names}
            records = zip(*(columns[name].to_pylist() for name in FIELDS if name in columns), strict=True)
            vectors = np.asarray(columns["embedding"].flatten(), np.float32).reshape(table.num_rows, -1)
            pictures = columns["thumbnail"].to_pylist()
            extras = {name: [data or b"" for data in columns[name].to_pylist()] for name in EXTRAS if name in columns}
            cases = [Case(*record) for record in records]
            yield Batch(cases, vectors, pictures, np.asarray(columns["logit"]), extras)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise IndexFailure(f"{source} is damaged: {error}; export it again") from error
