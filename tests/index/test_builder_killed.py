"""A build killed at any moment loses nothing that was added, and leaves at its place the old index or the new one.

Run as a program, this file is the process that is killed.
"""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import index
from index.builder import IndexBuilder
from index.case import Case
from index.reader import IndexReader

CASES = [Case(f"{number:03}.png", f"study{number // 2}", f"patient{number // 4}", number % 2) for number in range(60)]
RANDOM = np.random.default_rng(3).normal(size=(60, 16))
VECTORS = (RANDOM / np.linalg.norm(RANDOM, axis=1, keepdims=True)).astype(np.float32)
LOGITS = np.linspace(-3, 3, 60, dtype=np.float32)


def thumbnail(number: int) -> bytes:
    return bytes([number]) * 5000


def start(root: Path, fingerprint: str = "f") -> IndexBuilder:
    return IndexBuilder.start(root / "index", model=root / "model", dimension=16, fingerprint=fingerprint, replace=True)


def add_the_rest(build: IndexBuilder, limit: int = 60, size: int = 60, pause: float = 0.0) -> None:
    """Add what is not done yet, `size` cases at a time, saying after each batch how far it is."""
    done = build.done()
    rest = [number for number in range(limit) if CASES[number].case not in done]
    for batch in (rest[first : first + size] for first in range(0, len(rest), size)):
        build.add([CASES[n] for n in batch], VECTORS[batch], [thumbnail(n) for n in batch], LOGITS[batch])
        print(batch[-1] + 1, flush=True)
        time.sleep(pause)


def assert_whole(place: Path, count: int) -> None:
    with IndexReader.open(place) as folder:
        assert folder.cases() == CASES[:count]
        assert folder.embeddings().tobytes() == VECTORS[:count].tobytes()
        assert folder.logits().tolist() == LOGITS[:count].tolist()
        assert [folder.thumbnail(case.case) for case in CASES[:count]] == [thumbnail(n) for n in range(count)]
        assert [hits[0].case for hits in folder.search(VECTORS[:count], 1)] == CASES[:count]
        assert (folder.model / "model.json").read_text() == "{}"


def write_model(root: Path) -> None:
    (root / "model").mkdir()
    (root / "model" / "model.json").write_text("{}")


def child(mode: str, root: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(Path(index.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, __file__, mode, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


def test_killed_at_random_moments_while_adding(tmp_path: Path) -> None:
    write_model(tmp_path)
    moments = random.Random(5)
    kills = 0
    while True:
        process = child("add", tmp_path)
        assert process.stdout is not None
        told = 0
        for _ in range(moments.randint(1, 3)):  # wait for some batches, and kill it within the next ones
            told = int(process.stdout.readline() or told)
        time.sleep(moments.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        rest, errors = process.communicate()
        told = max([told, *map(int, rest.split())])
        assert errors == b""
        with start(tmp_path) as build:
            assert build.done() >= {case.case for case in CASES[:told]}
            assert build.cases() == CASES[: len(build.done())]
            assert len(build.done()) % 3 == 0  # whole batches
            if len(build.done()) == 60:
                build.finish()
                break
        kills += 1
    assert kills >= 2
    assert_whole(tmp_path / "index", 60)


def test_killed_at_every_step_of_finishing(tmp_path: Path) -> None:
    process = child("finish", tmp_path)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    steps, seen = output.decode().split("\n")[-3:-1]
    assert int(steps) >= 10
    assert seen == "old new"  # both were met: the kills reached from before the exchange to after it


def finish_killed_at(step: int, root: Path) -> None:
    """In a process of its own: finish the partial index, and die before it changes a file for the `step`-th time."""
    with start(root) as build:
        operations = itertools.count()

        def count(event: str, arguments: tuple[Any, ...]) -> None:  # called before the operation is done
            writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (writes or event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}) and next(operations) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        build.finish()


def kill_at_every_step(root: Path) -> None:
    write_model(root)
    with start(root, "old") as build:
        add_the_rest(build, 12)
        build.finish()
    with start(root) as build:
        add_the_rest(build)
    template = root.with_name(root.name + ".template")
    root.rename(template)
    found = set()
    for step in itertools.count():
        shutil.copytree(template, root)
        process = os.fork()
        if process == 0:
            finish_killed_at(step, root)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with IndexReader.open(root / "index") as folder:
            count = folder.info()["cases"]
        assert count in {12, 60}
        found.add("old" if count == 12 else "new")
        assert_whole(root / "index", 12 if count == 12 else 60)
        with start(root) as build:
            if count == 12:
                assert build.cases() == CASES
            add_the_rest(build)
            build.finish()
        assert_whole(root / "index", 60)
        assert sorted(path.name for path in root.iterdir()) == ["index", "model"]
        assert sorted(path.name for path in (root / "index").iterdir()) == [
            "SHA256SUMS",
            "cases.sqlite",
            "model",
            "vectors.faiss",
        ]
        shutil.rmtree(root)
        if status == 0:
            print(step, " ".join(sorted(found, reverse=True)), sep="\n")
            return
        assert status == -signal.SIGKILL


if __name__ == "__main__":
    if sys.argv[1] == "add":
        with start(Path(sys.argv[2])) as building:
            add_the_rest(building, size=3, pause=0.002)
    else:
        kill_at_every_step(Path(sys.argv[2]))
