"""A connection to an SQLite file, with transactions; it turns every failure into a sentence."""

import contextlib
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from index.case import as_text
from index.errors import IndexBusy, IndexDamaged, IndexFailure

__all__ = ["Connection", "Row"]

PATIENCE_S = 5.0  # seconds to wait for the commit of a writer
CACHE_KIB = 256 * 1024  # a larger change is written before its commit, which locks readers out
CHUNK = 500  # variables of a statement; some builds of SQLite allow 999

Row = tuple[Any, ...]

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_REFUSED = {
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


class Connection:
    """An open SQLite file, for reading or for writing; several threads may use it.

    Every method raises IndexDamaged if SQLite cannot read the file, IndexBusy if another process holds it, and
    IndexFailure if the system refuses. SQLite uses its rollback journal: unlike a write-ahead log it serves readers in
    folders that they cannot write, and on network file systems.
    """

    def __init__(self, path: Path, mode: str) -> None:
        """mode: "ro" to read, "rw" to write, "rwc" to write and to create a missing file.

        "ro&immutable=1" reads without locks: it makes nobody wait, and may see a change in part.
        """
        self.path = path
        self._turn = threading.Lock()
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        try:
            self._sqlite = sqlite3.connect(
                uri, uri=True, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.DatabaseError as error:
            raise self._named(error) from error
        if mode != "ro":
            self.query("PRAGMA synchronous = EXTRA")  # a committed transaction survives a power failure
            self.query("PRAGMA foreign_keys = ON")
            self.query("PRAGMA secure_delete = ON")  # removed data are overwritten
            self.query(f"PRAGMA cache_size = {-CACHE_KIB}")
            self.query("PRAGMA temp_store = MEMORY")  # no copy of a record outside the index

    def close(self) -> None:
        self._sqlite.close()

    @contextlib.contextmanager
    def transaction(self, *, writing: bool = False) -> Iterator[None]:
        """Reads inside see one moment; writes are on the disk at the end, or not at all."""
        with self._turn:  # a connection has one transaction at a time
            self.query("BEGIN IMMEDIATE" if writing else "BEGIN")
            try:
                yield
                self.query("COMMIT")
            finally:
                if self._sqlite.in_transaction:  # it failed
                    self._sqlite.rollback()

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """All rows that a statement gives."""
        try:  # not `_failures_named`, which is slower: every search comes here
            return self._execute(statement, values).fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._named(error) from error

    def query_in(self, statement: str, among: Collection[str] | Collection[int], *more: Any) -> list[Row]:
        """All rows that a statement with `IN {}` gives for the values `among`, which are its first variables.

        more: further variables. SQLite is asked in as many pieces as the values need.
        """
        records: list[Row] = []
        # A text in the index is valid Unicode, so it equals no other.
        values = [value for value in among if not (isinstance(value, str) and value != as_text(value))]
        for start in range(0, len(values), CHUNK):
            chunk = values[start : start + CHUNK]
            records += self.query(statement.format(f"({','.join('?' * len(chunk))})"), [*chunk, *more])
        return records

    def stream(self, statement: str, values: Sequence[Any] = (), size: int = 4096) -> Iterator[list[Row]]:
        """All rows that a statement gives, at most `size` at a time."""
        with self._failures_named():
            cursor = self._execute(statement, values)
            while rows := cursor.fetchmany(size):
                yield rows

    def write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement with each row's values. Raises ValueError for a case that is there or a wrong label."""
        with self._failures_named():
            try:
                self._sqlite.executemany(statement, rows)
            except sqlite3.IntegrityError as error:
                if "cases.case" not in str(error) and "CHECK" not in str(error):
                    raise self.damaged("it has a row twice") from error
                raise ValueError(f"a case is in the index already, or its label is neither 0 nor 1: {error}") from error

    def image(self) -> bytes:
        """The bytes of the whole database as in a file."""
        with self._failures_named():
            return self._sqlite.serialize()

    def number(self, statement: str, values: Sequence[Any] = ()) -> int:
        """The integer that a statement gives."""
        rows = self.query(statement, values)
        if not rows or not isinstance(rows[0][0], int):
            raise self.damaged("its history is not what was written")
        return rows[0][0]

    def damaged(self, fault: str) -> IndexDamaged:
        return IndexDamaged(f"{self.path} is damaged: {fault}; build the index again, or restore it from a copy")

    def _execute(self, statement: str, values: Sequence[Any]) -> sqlite3.Cursor:
        try:
            return self._sqlite.execute(statement, values)
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            self._roll_back_killed_writer()
            return self._sqlite.execute(statement, values)

    def _roll_back_killed_writer(self) -> None:
        """Roll back the transaction of a killed writer, which a read-only connection cannot do."""
        with contextlib.closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True)) as writing:
            writing.execute("PRAGMA schema_version").fetchall()  # any read makes SQLite roll back

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._named(error) from error

    def _named(self, error: sqlite3.DatabaseError | UnicodeDecodeError) -> Exception:
        if isinstance(error, sqlite3.ProgrammingError):  # a closed connection is a mistake in the program
            return error
        code = _code(error) & 0xFF  # the extended code's first byte is the kind
        if code in _BUSY:
            return IndexBusy(f"{self.path} is in use by another process; try again when that has finished")
        if _code(error) == sqlite3.SQLITE_READONLY_ROLLBACK:
            return IndexFailure(
                f"{self.path} was left half written by a process that died, and this user may not repair it; "
                "open the index once as a user who may write it"
            )
        if code in _REFUSED:
            return IndexFailure(f"{self.path} cannot be used ({error}); check its permissions and the disk")
        return self.damaged("SQLite cannot read it")


def _code(error: Exception) -> int:
    """SQLite's extended result code; 0 for an error of Python's own."""
    return int(getattr(error, "sqlite_errorcode", 0))
