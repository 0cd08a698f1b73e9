"""An index in a folder that the user may only read: it answers, and nothing in it is changed."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.build import IndexBuild
from index.case import Case
from index.edit import IndexEdit
from index.errors import IndexFailure
from index.folder import IndexFolder

Sample = tuple[list[Case], NDArray[np.float32], list[bytes], NDArray[np.float32]]
NOBODY = 65534

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or os.geteuid() != 0, reason="only root can become somebody who may not write"
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


def as_nobody(action: Callable[[], object]) -> object:
    """What the action gives or the message of its IndexFailure, in a process that may only read."""
    reads, writes = os.pipe()
    process = os.fork()
    if process == 0:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            result = action()
        except IndexFailure as error:
            result = f"{type(error).__name__}: {error}"
        except BaseException as error:  # the child must not return into pytest
            result = f"unexpected {error!r}"
        os.write(writes, json.dumps(result).encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        told = pipe.read()
    os.waitpid(process, 0)
    return json.loads(told)


def nearest(place: Path, sample: Sample) -> list[list[str]]:
    with IndexFolder.open(place) as folder:
        return [[hit.case.case for hit in hits] for hits in folder.search(sample[1][:5], 7)]


@pytest.mark.parametrize("without", [None, "vectors.faiss", "SHA256SUMS"])
def test_it_answers_and_stays_as_it_is(readable: Path, sample: Sample, without: str | None) -> None:
    if without:
        (readable / without).unlink()
    before = {path.name: path.read_bytes() for path in readable.iterdir() if path.is_file()}
    import index.faiss_store  # noqa: F401  # nobody may not read the folders of root's Python

    told = as_nobody(lambda: nearest(readable, sample))
    assert {path.name: path.read_bytes() for path in readable.iterdir() if path.is_file()} == before
    assert told == nearest(readable, sample)


def test_changing_it_says_that_it_cannot_be_written(readable: Path, model: Path) -> None:
    for change in (
        lambda: IndexEdit.open(readable).close(),
        lambda: IndexBuild.start(readable.parent / "new", model=model, dimension=8, fingerprint="f").close(),
    ):
        told = as_nobody(change)
        assert str(told).startswith("IndexFailure: the index ")
        assert "cannot be written: " in str(told)
        assert "Permission denied" in str(told)
    assert [path.name for path in readable.parent.iterdir()] == ["index"]


def test_it_cannot_be_read_at_all(readable: Path) -> None:
    (readable / "cases.sqlite").chmod(0o600)
    told = as_nobody(lambda: IndexFolder.open(readable).close())
    assert "cases.sqlite cannot be used (unable to open database file)" in str(told)
