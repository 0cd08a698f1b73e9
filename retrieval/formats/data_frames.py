"""Tables as pandas has them. The only file that imports pandas, and only when it is called."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.errors import CollectionError, MissingExtra

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["SUFFIXES", "DataFrame", "frame_of", "table_text"]

SUFFIXES = (".xlsx", ".parquet")


def frame_of(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> "DataFrame":
    """The rows as a DataFrame with these columns; pandas chooses the types."""
    pandas = _pandas()
    return pandas.DataFrame([[row.get(name) for name in columns] for row in rows], columns=list(columns))


def table_text(table: Path) -> str:
    """An Excel workbook's first sheet, or a Parquet file, as CSV: cells as they are, without an index.

    Raises CollectionError if the file cannot be read as such, MissingExtra without the extra `analysis`.
    """
    pandas = _pandas()
    try:
        if table.suffix.lower() == ".parquet":
            frame = pandas.read_parquet(table, dtype_backend="pyarrow")  # whole numbers stay whole beside gaps
        else:
            frame = pandas.read_excel(table, dtype=str, na_filter=False)
    except ImportError as error:
        raise MissingExtra(error.name or "openpyxl", "analysis") from error
    except OSError:
        raise
    except Exception as error:  # broad: pyarrow and the readers of Excel files have errors of their own
        raise CollectionError(f"{table} cannot be read as a table: {error}; export it again, or as CSV") from error
    return str(frame.to_csv(index=False))


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise MissingExtra("pandas", "analysis") from error
    return pandas
