"""Adding, removing, relabelling and compacting, killed many times: nothing committed is lost, nothing else is there.

Run as a program, this file kills children of its own; they are forked, so that many deaths take seconds.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import index
from index.builder import IndexBuilder
from index.case import Case
from index.errors import IndexBusy
from index.reader import IndexReader
from index.writer import IndexWriter
from tests.repetitions import repetitions

KILLS = repetitions(60, 200)
CHANGES = 150  # a multiple of 6
State = tuple[Case, ...]  # what is indexed, in row order


def case(number: int) -> Case:
    return Case(f"{number:06}.png", f"study{number // 2}", f"patient{number // 4}", 0)


def vector(case: Case) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    values = np.random.default_rng(int(case.case[:6])).normal(size=16)
    unit: np.ndarray[tuple[int], np.dtype[np.float32]] = (values / np.linalg.norm(values)).astype(np.float32)
    return unit


def thumbnail(case: Case) -> bytes:
    return case.case.encode() * 400


def step(number: int, state: State) -> tuple[str, State]:
    """The `number`-th change and what it makes of a state: the same in the child that does it and in who judges."""
    draw = random.Random(number)
    action = draw.choice(["add", "add", "remove", "relabel", "compact"])
    if action == "add" or not state:
        return "add", (*state, *(case(4 * number + n) for n in range(4)))
    of = draw.choice(state)
    if action == "remove":
        return action, tuple(other for other in state if other.patient != of.patient)
    if action == "relabel":
        return action, tuple(replace(other, label=1) if other.study == of.study else other for other in state)
    return action, state


def do(edit: IndexWriter, action: str, before: State, after: State) -> None:
    if action == "add":
        new = after[len(before) :]
        edit.add(new, np.stack([vector(c) for c in new]), [thumbnail(c) for c in new], np.zeros(len(new), np.float32))
    elif action == "remove":
        edit.remove({"patient": [next(c.patient for c in before if c not in after)]})
    elif action == "relabel":
        for study in {c.study for c in before if c not in after}:
            edit.relabel(study, 1)
    else:
        edit.compact()


def live(place: Path, number: int, state: State, told: int, end: float = float("inf"), ahead: bool = True) -> None:
    """Change the index until change `end`, three changes an edit, saying which change is done.

    Unless it may run `ahead` of who reads, it makes six changes for each byte on standard input.
    """
    while number < end:
        if not ahead and number % 6 == 4 and not os.read(0, 1):
            return  # nobody reads any longer
        with IndexWriter.open(place) as edit:
            for _ in range(3):
                action, after = step(number, state)
                do(edit, action, state, after)
                os.write(told, b"%d\n" % number)
                number, state = number + 1, after


def check(place: Path, state: State) -> None:
    with IndexReader.open(place) as folder:
        folder.verify()
        assert tuple(folder.cases()) == state
        assert folder.embeddings().tobytes() == b"".join(vector(c).tobytes() for c in state)
        assert [folder.thumbnail(c.case) for c in state] == [thumbnail(c) for c in state]
        assert all(hits[0].case == c for c, hits in zip(state, folder.search(folder.embeddings(), 1), strict=True))


def begin(root: Path) -> tuple[Path, State]:
    (root / "model").mkdir()
    place, state = root / "index", tuple(case(n) for n in range(40))
    with IndexBuilder.start(place, model=root / "model", dimension=16, fingerprint="f") as build:
        build.add(state, np.stack([vector(c) for c in state]), [thumbnail(c) for c in state], np.zeros(40, np.float32))
        build.finish()
    return place, state


def kill_again_and_again(root: Path) -> None:
    place, state = begin(root)
    moments, number, met = random.Random(1), 10, Counter[str]()
    for _ in range(KILLS):
        hears, tells = os.pipe()
        process = os.fork()
        if process == 0:
            live(place, number, state, tells)
        os.close(tells)
        with os.fdopen(hears) as lines:
            # Wait for some changes, and kill it within the next one.
            done = [int(lines.readline()) for _ in range(moments.randint(0, 3))]
            time.sleep(moments.uniform(0, 0.02))
            os.kill(process, signal.SIGKILL)
            # It did not fail before.
            assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
            done += [int(line) for line in lines]
        for reached in done:
            assert reached == number
            number, state = number + 1, step(number, state)[1]
        action, after = step(number, state)  # what it was at: done or not, but not half
        with IndexReader.open(place) as folder:
            found = tuple(folder.cases())
        assert found in {state, after}
        if found != state:
            met[f"{action} committed, not told"] += 1
            number, state = number + 1, after
        else:
            met[f"{action} not committed"] += 1
        met["told"] += len(done)
        check(place, state)
    with IndexWriter.open(place) as edit:
        edit.compact()
    check(place, state)
    assert sorted(path.name for path in place.iterdir()) == ["SHA256SUMS", "cases.sqlite", "model", "vectors.faiss"]
    print(met["told"], *sorted({text.split()[0] for text in met} - {"told"}))


@pytest.mark.repeated
def test_killed_at_random_moments_while_changing(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(index.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    told, *actions = done.stdout.split()
    assert int(told) >= KILLS  # it was killed at work, not at its start
    assert actions == ["add", "compact", "relabel", "remove"]  # in the midst of each


def test_killed_between_a_commit_and_the_cut_of_what_it_freed(tmp_path: Path) -> None:
    """SQLite shortens the file after the commit; until the next change it is longer than the database in it."""
    place, state = begin(tmp_path)
    file = place / "cases.sqlite"
    (place / "SHA256SUMS").unlink()  # as while it is changed
    with file.open("ab") as end:
        end.write(bytes(8192))
    check(place, state)
    with IndexWriter.open(place) as edit:
        action, after = step(10, state)
        do(edit, action, state, after)
        edit.compact()
    check(place, after)
    with closing(sqlite3.connect(file)) as database:
        ((pages, size),) = database.execute("SELECT page_count, page_size FROM pragma_page_count, pragma_page_size")
    assert file.stat().st_size == pages * size  # and is cut by it
    with IndexReader.open(place) as folder:
        assert folder.verify()


def test_readers_see_the_state_before_a_change_or_after_it(tmp_path: Path) -> None:
    place, state = begin(tmp_path)
    states = [state]
    for number in range(10, 10 + CHANGES):
        states.append(step(number, states[-1])[1])
    environment = os.environ | {"PYTHONPATH": str(Path(index.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    writer = subprocess.Popen(
        [sys.executable, __file__, str(tmp_path), "live"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        bufsize=0,
    )
    assert writer.stdin is not None
    shown = [frozenset((c.study, c.label) for c in cases) for cases in states]
    at, then, met, searched, old = 0, 0, set(), set(), IndexReader.open(place)
    with writer, old:
        while writer.poll() is None or (writer.returncode == 0 and at < CHANGES):
            (hits,) = old.search(vector(case(0))[None], 1000)  # all studies: a reader that was open all the time
            then = shown.index(frozenset((hit.case.study, hit.case.label) for hit in hits), then)
            searched.add(then)
            with IndexReader.open(place) as folder:
                try:
                    found = tuple(folder.cases())
                except IndexBusy:  # changed since it was opened
                    continue
                at = states.index(found, at)  # ValueError: half of a change, or one that was undone
                if at not in met:
                    with suppress(BrokenPipeError):  # it has made its last change
                        writer.stdin.write(b"+")
                met.add(at)
                assert folder.embeddings().tobytes() == b"".join(vector(c).tobytes() for c in found)
            if states[at:] == [states[-1]] * len(states[at:]):  # the last changes may change nothing
                at = CHANGES
        assert writer.stderr is not None
        assert (writer.stderr.read(), writer.wait()) == (b"", 0)
        assert not old.replaced()
    assert len(met) > CHANGES / 6  # it read while changes were made
    assert len(searched) > CHANGES / 12
    check(place, states[-1])


if __name__ == "__main__":
    if sys.argv[2:] == ["live"]:
        live(Path(sys.argv[1]) / "index", 10, tuple(case(n) for n in range(40)), 1, 10 + CHANGES, ahead=False)
    else:
        kill_again_and_again(Path(sys.argv[1]))
