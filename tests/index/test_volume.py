"""An index where hospitals keep it: on a volume, on one that two containers mount, on a file system without locks."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import index
from index.builder import IndexBuilder
from index.errors import IndexBusy, IndexFailure
from index.lock import locks_work
from index.reader import IndexReader
from index.writer import IndexWriter
from tests.index.conftest import Sample

# Run in a mount namespace of its own, in the folder of the test.
VOLUME = """
set -e
mkdir volume && mount -t tmpfs none volume && mkdir volume/lost+found
"$PYTHON" child.py build volume
mkdir -p readonly && mount -t tmpfs none readonly && mkdir readonly/index && cp -r index/. readonly/index
mount --bind readonly/index readonly/index && mount -o remount,ro,bind readonly
"$PYTHON" child.py change readonly/index
mkdir -p one/index two/index && mount --bind index one/index && mount --bind index two/index
"$PYTHON" child.py exclude one/index two/index
mkdir bound && mount --bind index bound
"$PYTHON" child.py build bound
"""
CHILD = """
import sys
from pathlib import Path
import numpy as np
from index.builder import IndexBuilder
from index.case import Case
from index.errors import IndexBusy
from index.reader import IndexReader
from index.writer import IndexWriter
what, path, *more = sys.argv[1:]
path = Path(path)
one = [Case("new.png", "s", "p", 1)], np.eye(8, dtype=np.float32)[:1], [b"x"], np.zeros(1, np.float32)
if what == "build":
    with IndexBuilder.start(path, model=Path("model"), dimension=8, fingerprint="f", replace=True) as build:
        build.add(*one)
        build.finish()
    assert [case.case for case in IndexReader.open(path).cases()] == ["new.png"]
elif what == "change":
    with IndexWriter.open(path) as writer:
        writer.relabel("study7", 0)
        writer.remove({"patient": ["patient3"]})
        writer.compact()
else:
    with IndexWriter.open(path):
        for other in more:
            try:
                IndexWriter.open(Path(other))
            except IndexBusy:
                continue
            raise SystemExit("two writers at once")
assert IndexReader.open(path).verify()
"""
NO_LOCKS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
int flock(int file, int how) { errno = ENOLCK; return -1; }
static int refused(const char *name, int file, int command, void *argument) {
  if (command == F_SETLK || command == F_SETLKW || command == F_GETLK) { errno = ENOLCK; return -1; }
  return ((int (*)(int, int, ...))dlsym(RTLD_NEXT, name))(file, command, argument);
}
int fcntl(int file, int command, ...) {
  va_list list; va_start(list, command); void *argument = va_arg(list, void *); va_end(list);
  return refused("fcntl", file, command, argument);
}
int fcntl64(int file, int command, ...) {
  va_list list; va_start(list, command); void *argument = va_arg(list, void *); va_end(list);
  return refused("fcntl64", file, command, argument);
}
"""


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(index.__file__).parents[1]), "PYTHON": sys.executable, **more}


def test_the_folder_may_be_a_mount_point(tmp_path: Path, place: Path, model: Path) -> None:
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", tmp_path], check=False).returncode:
        pytest.skip("this user may not mount")
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "child.py").write_text(CHILD)
    command = ["unshare", "-m", "bash", "-c", VOLUME]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_system_without_locks(tmp_path: Path, place: Path, sample: Sample) -> None:
    """What is there can be read at once; a change is refused with the reason."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "locks.c").write_text(NO_LOCKS)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "locks.so", "locks.c", "-ldl"], cwd=tmp_path, check=True)
    script = (
        "import sys; from pathlib import Path; from index.reader import IndexReader; "
        "from index.writer import IndexWriter; from index.errors import IndexFailure\n"
        "with IndexReader.open(Path('index')) as reader: print(len(reader.cases()), reader.verify())\n"
        "try: IndexWriter.open(Path('index'))\n"
        "except IndexFailure as error: print(error)\n"
    )
    preload = environment(LD_PRELOAD=str(tmp_path / "locks.so"))
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=preload, capture_output=True, text=True, check=False, timeout=60)
    read, refused = done.stdout.splitlines()
    assert read == "60 True"
    assert "has no locks" in refused
    assert not (place / ".lock").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_locks_that_the_system_refuses(
    tmp_path: Path, place: Path, model: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    assert not locks_work(place / "SHA256SUMS")
    with IndexReader.open(place) as reader:
        assert len(reader.cases()) == 60
    with pytest.raises(IndexFailure, match="has no locks"):
        IndexWriter.open(place)
    with pytest.raises(IndexFailure, match="has no locks"):
        IndexBuilder.start(tmp_path / "new", model=model, dimension=8, fingerprint="f")
    assert not (tmp_path / "new" / ".lock").exists()


def test_a_lock_that_fails_otherwise(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(IndexFailure, match="Input/output error"):
        IndexWriter.open(place)


def test_without_fcntl_an_index_is_read_and_a_change_says_what_is_missing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setattr("index.lock.fcntl", None)
    with IndexReader.open(place) as reader:
        assert len(reader.cases()) == 60
    with pytest.raises(IndexFailure, match="Linux and macOS only"):
        IndexWriter.open(place)


def test_one_folder_has_one_lock_whatever_the_path(place: Path) -> None:
    (place.parent / "link").symlink_to(place)
    with IndexWriter.open(place), pytest.raises(IndexBusy):
        IndexWriter.open(place.parent / "link")
    assert not (place / ".lock").exists()
