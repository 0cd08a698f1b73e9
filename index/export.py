"""Records, embeddings and logits of an index as a Parquet file. The only file that imports pyarrow."""

from collections.abc import Callable
from pathlib import Path

from index.atomic import whole_file
from index.case import FIELDS
from index.errors import IndexFailure, MissingExtra
from index.reader import IndexReader
from index.sqlite.reader import Batch

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra("pyarrow", "export") from error

__all__ = ["write_parquet"]


def write_parquet(reader: IndexReader, target: Path, *, progress: Callable[[int, int], None] | None = None) -> int:
    """Write all cases in row order, completely or not at all; gives their number.

    Columns: those of `Case`, the label as 0 or 1; `logit`, the classifier's, uncalibrated; `embedding`, a list of D
    float32. The file's metadata name the index's generation. `progress` gets (done, all). Raises IndexBusy if the index
    changes meanwhile, IndexFailure if the file cannot be written.
    """
    reader.refresh()
    total, _ = reader.size()
    dimension = int(reader.embeddings().shape[1])
    kinds = {"label": pa.int8()}
    columns = [(name, kinds.get(name, pa.string())) for name in FIELDS]
    schema = pa.schema([*columns, ("logit", pa.float32()), ("embedding", pa.list_(pa.float32(), dimension))])
    schema = schema.with_metadata({"mura-search": f"generation {reader.info()['generation']}"})
    done = 0
    try:
        with whole_file(target) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in reader.batches():
                writer.write_batch(_table(batch, schema))
                done += len(batch.cases)
                if progress:
                    progress(done, total)
    except OSError as error:
        raise IndexFailure(f"{target} cannot be written: {error.strerror or error}") from error
    return done


def _table(batch: Batch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [pa.array([getattr(case, name) for case in batch.cases], schema.field(name).type) for name in FIELDS]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.embeddings.ravel()), batch.embeddings.shape[1])
    return pa.record_batch([*columns, pa.array(batch.logits), vectors], schema=schema)
