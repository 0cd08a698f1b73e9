"""An index in a folder that the user may only read: it answers, and nothing in it is changed."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import index
from index.builder import IndexBuilder
from index.errors import IndexFailure
from index.reader import IndexReader
from index.writer import IndexWriter

NOBODY = 65534

pytestmark = pytest.mark.skipif(
    not hasattr(os, "setresuid") or os.geteuid() != 0, reason="only root can become somebody who may not write"
)


@pytest.fixture
def readable(template: Path) -> Iterator[Path]:
    """A copy of the sample's index that everybody may read and root write."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    place = Path(shutil.copytree(template, root / "index"))
    for path in place.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield place
    shutil.rmtree(root)


def as_nobody(action: str, *arguments: Path) -> object:
    """What an action gives, or the message of its IndexFailure, in a process that may only read.

    A process of its own, which drops its rights when it has imported what it needs: nobody may not read root's Python.
    """
    environment = os.environ | {"PYTHONPATH": str(Path(index.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, action, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def nearest(place: Path) -> list[list[str]]:
    with IndexReader.open(place) as folder:
        return [[hit.case.case for hit in hits] for hits in folder.search(folder.embeddings()[:5], 7)]


def start(place: Path, model: Path) -> None:
    IndexBuilder.start(place, model=model, dimension=8, fingerprint="f").close()


@pytest.mark.parametrize("without", [None, "vectors.faiss", "SHA256SUMS"])
def test_it_answers_and_stays_as_it_is(readable: Path, without: str | None) -> None:
    if without:
        (readable / without).unlink()
    before = {path.name: path.read_bytes() for path in readable.iterdir() if path.is_file()}
    told = as_nobody("nearest", readable)
    assert {path.name: path.read_bytes() for path in readable.iterdir() if path.is_file()} == before
    assert told == nearest(readable)


def test_changing_it_says_that_it_cannot_be_written(readable: Path, model: Path) -> None:
    for told in (as_nobody("edit", readable), as_nobody("start", readable.parent / "new", model)):
        assert str(told).startswith("IndexFailure: the index ")
        assert "cannot be written: " in str(told)
        assert "Permission denied" in str(told)
    assert [path.name for path in readable.parent.iterdir()] == ["index"]


def test_it_cannot_be_read_at_all(readable: Path) -> None:
    (readable / "cases.sqlite").chmod(0o600)
    told = as_nobody("nearest", readable)
    assert "cases.sqlite cannot be used (unable to open database file)" in str(told)


ACTIONS: dict[str, Callable[..., object]] = {
    "nearest": nearest,
    "edit": lambda place: IndexWriter.open(place).close(),
    "start": start,
}

if __name__ == "__main__":
    import index.vectors.faiss

    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    try:
        result = ACTIONS[sys.argv[1]](*map(Path, sys.argv[2:]))
    except IndexFailure as error:
        result = f"{type(error).__name__}: {error}"
    print(json.dumps(result))
