from contextlib import closing
from pathlib import Path

from index.sqlite.connection import Connection


def test_readers_go_on_while_a_large_change_is_being_made(tmp_path: Path) -> None:
    """20 MB, where SQLite's own cache holds 2 and then locks the file to write the rest out."""
    path = tmp_path / "a.sqlite"
    with closing(Connection(path, "rwc")) as writer, closing(Connection(path, "ro")) as reader:
        writer.query("CREATE TABLE pictures (bytes BLOB)")
        with writer.transaction(writing=True):
            writer.write("INSERT INTO pictures VALUES (?)", [(bytes(1_000_000),)] * 20)
            assert reader.query("SELECT count(*) FROM pictures") == [(0,)]
        assert reader.query("SELECT count(*) FROM pictures") == [(20,)]
