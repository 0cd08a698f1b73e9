"""A connection to an SQLite file: transactions, and every failure as a sentence."""

import contextlib
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from index.errors import IndexBusy, IndexDamaged, IndexFailure

__all__ = ["Connection", "Row", "one_of"]

PATIENCE_S = 5.0  # for a writer to finish its commit
CACHE_KIB = 256 * 1024  # a change of more pages than that is written out before it is done, and locks readers out
CHUNK = 500  # variables of a statement; SQLite may have been built for 999 at most

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

    Every method raises IndexDamaged where SQLite cannot read the file, IndexBusy where another process holds it, and
    IndexFailure where the system refuses. The journal is SQLite's rollback journal: unlike a write-ahead log it serves
    readers in folders they cannot write, and on network file systems.
    """

    def __init__(self, path: Path, mode: str) -> None:
        """mode: "ro" to read, "rw" to write, "rwc" to write a file that may not be there yet."""
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
            self.query("PRAGMA secure_delete = ON")  # what is removed is overwritten, not only forgotten
            self.query(f"PRAGMA cache_size = {-CACHE_KIB}")

    def close(self) -> None:
        self._sqlite.close()

    @contextlib.contextmanager
    def transaction(self, *, writing: bool = False) -> Iterator[None]:
        """What is read inside is of one moment; what is written is on the disk at the end, or not at all."""
        with self._turn:  # a connection has one transaction at a time
            self.query("BEGIN IMMEDIATE" if writing else "BEGIN")
            try:
                yield
                self.query("COMMIT")
            except BaseException:
                if self._sqlite.in_transaction:
                    self._sqlite.rollback()
                raise

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """All rows that a statement gives."""
        try:  # written out, since every search comes here
            return self._execute(statement, values).fetchall()
        except sqlite3.ProgrammingError:
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._named(error) from error

    def stream(self, statement: str, values: Sequence[Any] = (), size: int = 4096) -> Iterator[list[Row]]:
        """The same, at most `size` rows at a time."""
        with self._failures_named():
            cursor = self._execute(statement, values)
            while rows := cursor.fetchmany(size):
                yield rows

    def write(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement with each row's values. Raises ValueError where a table's own rules forbid it."""
        with self._failures_named():
            try:
                self._sqlite.executemany(statement, rows)
            except sqlite3.IntegrityError as error:
                raise ValueError(f"a case is in the index already, or its label is neither 0 nor 1: {error}") from error

    def image(self) -> bytes:
        """The whole database as it would lie in a file."""
        with self._failures_named():
            return self._sqlite.serialize()

    def number(self, statement: str, values: Sequence[Any] = ()) -> int:
        """The integer that a statement gives."""
        found = self.query(statement, values)
        if not found or not isinstance(found[0][0], int):
            raise self.damaged("its history is not what was written")
        return found[0][0]

    def damaged(self, what: str) -> IndexDamaged:
        return IndexDamaged(f"{self.path} is damaged: {what}; build the index again, or restore it from a copy")

    def _execute(self, statement: str, values: Sequence[Any]) -> sqlite3.Cursor:
        try:
            return self._sqlite.execute(statement, values)
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
            self._undo_the_dead()
            return self._sqlite.execute(statement, values)

    def _undo_the_dead(self) -> None:
        """Roll back what a killed writer left half done, which a connection that only reads must not do itself."""
        with contextlib.closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True)) as writing:
            writing.execute("PRAGMA schema_version").fetchall()  # reading is enough: SQLite then rolls back by itself

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:  # a closed connection: a mistake in the program, not in the file
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._named(error) from error

    def _named(self, error: sqlite3.DatabaseError | UnicodeDecodeError) -> IndexFailure:
        code = _code(error) & 0xFF  # the extended code's first byte is the kind
        if code in _BUSY:
            return IndexBusy(f"{self.path} is in use by another process; try again when that has finished")
        if _code(error) == sqlite3.SQLITE_READONLY_ROLLBACK:
            return IndexFailure(
                f"{self.path} was left half written by a process that died, and cannot be written here to undo that; "
                "open the index once as a user who may write it"
            )
        if code in _REFUSED:
            return IndexFailure(f"{self.path} cannot be used ({error}); check its permissions and the disk")
        return self.damaged("SQLite cannot read it")


def one_of(values: Collection[str] | Collection[int]) -> Iterator[tuple[str, list[str | int]]]:
    """`IN (...)` with its variables, as often as it takes to name all values."""
    rest: list[str | int] = list(values)
    for start in range(0, len(rest), CHUNK):
        chunk = rest[start : start + CHUNK]
        yield f"IN ({','.join('?' * len(chunk))})", chunk


def _code(error: Exception) -> int:
    """SQLite's extended result code; 0 for an error of Python's own."""
    return int(getattr(error, "sqlite_errorcode", 0))
