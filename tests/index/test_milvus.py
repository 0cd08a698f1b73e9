"""The Milvus store against its definition, on Milvus Lite and on a real server."""

import itertools
import json
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.case import Case
from index.errors import (
    IndexBusy,
    IndexDamaged,
    IndexFailure,
    IndexMissing,
    IndexSchema,
    IndexUnreachable,
    MissingExtra,
)
from index.milvus import MilvusPlace, MilvusStore
from tests.index.milvus_server import TOKEN, MilvusServer
from tests.index.test_paging import World, oracle

D = 8
AWKWARD = (
    "",
    "wrist",
    'a"b',
    "a'b",
    "a\\b",
    "\\",
    '\\"',
    "a\nb\r",
    "\t",
    "élbow",
    "中文",
    "𠀀",
    "😀",
    "%_{x}",
    '"] or row >= 0',
    "\x00",
)
Places = Callable[..., MilvusPlace]
names = map("c{}".format, itertools.count())


def server_place(server: MilvusServer, **changes: Any) -> MilvusPlace:
    return MilvusPlace(
        **{"uri": server.uri, "token": TOKEN, "server_pem_path": str(server.certificate)}
        | {"server_name": "milvus.test", "collection": next(names)}
        | changes
    )


@pytest.fixture(scope="module", params=["lite", pytest.param("server", marks=[pytest.mark.server, pytest.mark.slow])])
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Makes places with nothing there yet."""
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    if request.param == "server":
        server = request.getfixturevalue("server")
        return lambda **changes: server_place(server, **changes)
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    folder = tmp_path_factory.mktemp("lite")
    return lambda **changes: MilvusPlace(str(folder / f"{next(names)}.db"), **changes)


@pytest.fixture(scope="module")
def kept(places: Places) -> Iterator[MilvusStore]:
    """One collection for tests that empty it again; making one takes a server seconds."""
    with MilvusStore.open(places(), D, create=True) as store:
        yield store
        store.drop()


@pytest.fixture
def store(kept: MilvusStore) -> MilvusStore:
    kept.delete(kept.rows().tolist())
    return kept


def unit(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Unit vectors of which many are equal and many are equally far from others."""
    pool = np.concatenate([np.eye(D), -np.eye(D), rng.normal(size=(30, D))])
    pool = pool / np.linalg.norm(pool, axis=1, keepdims=True)
    vectors: NDArray[np.float32] = pool[rng.integers(0, len(pool), count)].astype(np.float32)
    return vectors


def drawn(rng: np.random.Generator, rows: list[int]) -> World:
    """A case and a vector for each row, with few studies and patients and every awkward text there is."""

    def text() -> str:
        return AWKWARD[int(rng.integers(0, len(AWKWARD)))]

    cases = [
        Case(
            f"{text()}/{row}",
            f"{text()}{rng.integers(0, 30)}",
            text(),
            int(rng.integers(0, 2)),
            *(text() for _ in range(5)),
        )
        for row in rows
    ]
    return dict(zip(rows, zip(cases, unit(rng, len(rows)), strict=True), strict=True))


def write(store: MilvusStore, world: World) -> None:
    cases = [case for case, _ in world.values()]
    store.upsert(list(world), cases, np.array([vector for _, vector in world.values()], np.float32).reshape(-1, D))


def check_search(store: MilvusStore, world: World, rng: np.random.Generator) -> None:
    """One search for a few queries, with conditions and exclusions drawn at random."""
    queries = unit(rng, int(rng.integers(0, 4)))
    where = {
        str(name): [str(value) for value in rng.choice(AWKWARD, int(rng.integers(0, 12)))]
        for name in rng.permutation(["part", "view", "split", "path", "digest", "patient"])[: rng.integers(0, 3)]
    }
    if rng.random() < 0.3:
        where["label"] = [["normal", "abnormal"][int(rng.integers(0, 2))]]
    excluded = [[str(value) for value in rng.choice(AWKWARD, int(rng.integers(0, 4)))] for _ in queries]
    k = int(rng.choice([1, 2, 15, 100]))
    found = store.search(queries, k, where, excluded)
    assert found == [oracle(world, query, k, where, out) for query, out in zip(queries, excluded, strict=True)]


@pytest.mark.parametrize("size", [0, 1, 2, 40, 1500])
def test_searches_give_the_definition_after_every_change(store: MilvusStore, size: int) -> None:
    rng = np.random.default_rng(size)
    rows = [int(row) for row in rng.permutation(5 * size)[:size]]
    world = dict(drawn(rng, rows))
    write(store, world)
    for _ in range(3):
        for _ in range(4):
            check_search(store, world, rng)
        changed = drawn(rng, [int(row) for row in rng.permutation(5 * size)[: size // 3]])
        write(store, changed)
        world |= changed
        removed = [row for row in world if rng.random() < 0.2]
        store.delete(removed)
        for row in removed:
            del world[row]
    assert store.rows().tolist() == sorted(world)
    assert store.count() == len(world)


@pytest.mark.slow
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=60), st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_text_is_taken_literally(store: MilvusStore, texts: list[str], data: st.DataObject) -> None:
    store.delete(store.rows().tolist())
    query = np.eye(D, dtype=np.float32)[:1]
    world = {row: (Case("c", text, text, 0, part=text), query[0]) for row, text in enumerate(texts)}
    write(store, world)
    chosen = data.draw(st.lists(st.sampled_from(texts), max_size=20))
    for where, excluded in (({"part": chosen}, []), ({}, chosen), ({"study": texts}, chosen)):
        assert store.search(query, 99, where, [excluded]) == [oracle(world, query[0], 99, where, excluded)]


def test_writing_and_deleting_twice_is_as_good_as_once(store: MilvusStore) -> None:
    world = drawn(np.random.default_rng(3), list(range(50)))
    write(store, world)
    write(store, world)
    store.delete([3, 4, 999])
    store.delete([3, 4, 999])
    assert store.count() == 48
    one, other = Case("c", "first", "p", 0), Case("c", "second", "p", 1)
    store.upsert([7, 7], [one, other], np.eye(D, dtype=np.float32)[:2])
    assert store.count() == 48
    assert store.vectors([7])[0].tolist() == np.eye(D)[1].tolist()
    assert store.search(np.eye(D, dtype=np.float32)[1:2], 1, {"study": ["second"], "label": ["abnormal"]}) == [
        [(1.0, 7)]
    ]
    assert store.search(np.eye(D, dtype=np.float32)[1:2], 1, {"study": ["first"]}) == [[]]


def test_vectors_come_back_bit_for_bit(store: MilvusStore) -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(5000, D))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    rows = rng.permutation(10**6)[:5000]
    store.upsert(rows.tolist(), [Case(f"c{row}", f"s{row}", "p", 0) for row in rows], vectors)
    store.flush()
    assert store.rows().tolist() == sorted(rows.tolist())
    order = rng.permutation(5000)
    assert store.vectors(rows[order].tolist()).tobytes() == vectors[order].tobytes()
    store.delete([int(rows[0])])
    with pytest.raises(IndexDamaged, match=f"lacks row {rows[0]};"):
        store.vectors(rows[:2].tolist())


@pytest.mark.slow
def test_a_study_with_more_cases_than_a_page_holds_hides_no_other(store: MilvusStore) -> None:
    rng = np.random.default_rng(5)
    query = np.eye(D, dtype=np.float32)[:1]
    near = query + 0.1 * rng.normal(size=(20_000, D))
    near[:17_000] = near[0]  # all the same: no page can show that nothing nearer follows
    far = rng.normal(size=(20, D)) - query
    vectors = np.concatenate([near, far])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    cases = [Case(f"c{row}", "big" if row < 20_000 else f"s{row}", "p", 0) for row in range(20_020)]
    store.upsert(range(20_020), cases, vectors)
    world = dict(enumerate(zip(cases, vectors, strict=True)))
    assert store.search(query, 15) == [oracle(world, query[0], 15, {}, [])]
    [[(similarity, row)]] = store.search(vectors[:1], 1)
    assert (similarity, world[row][0].study) == (oracle(world, vectors[0], 1, {}, [])[0][0], "big")


@pytest.mark.slow
def test_long_lists_of_values(store: MilvusStore) -> None:
    world = {row: (Case(f"c{row}", f"s{row}", f"p{row}", 0), np.eye(D, dtype=np.float32)[row % D]) for row in range(40)}
    write(store, world)
    query = np.eye(D, dtype=np.float32)[:1]
    studies = [f"s{3 * number}" for number in range(25_000)]
    excluded = [f"p{number}" for number in range(10, 20_000)]
    for where, out in (({"study": studies}, []), ({}, excluded), ({"study": studies}, excluded)):
        assert store.search(query, 15, where, [out]) == [oracle(world, query[0], 15, where, out)]


def test_a_collection_is_opened_as_it_was_made(places: Places) -> None:
    place = places()
    with pytest.raises(IndexMissing, match="no Milvus collection"):
        MilvusStore.open(place, D)
    world = drawn(np.random.default_rng(6), list(range(30)))
    with MilvusStore.open(place, D, create=True) as store:
        write(store, world)
        store.flush()
    with MilvusStore.open(place, D, create=True) as store:
        assert store.rows().tolist() == list(range(30))
        described = store.describe()
        assert (described["kind"], described["vectors"], described["exact"]) == ("milvus-flat", 30, True)
        with pytest.raises(IndexSchema, match="vectors of 9 numbers"):
            MilvusStore.open(place, D + 1, create=True)
        store.drop()
        store.drop()
    with pytest.raises(IndexMissing):
        MilvusStore.open(place, D)


def test_an_approximate_index_finds_nearly_all(places: Places) -> None:
    rng = np.random.default_rng(8)
    vectors = rng.normal(size=(3000, D))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    cases = [Case(f"c{row}", f"s{row // 3}", "p", 0) for row in range(3000)]
    world = dict(enumerate(zip(cases, vectors, strict=True)))
    params = {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 100}}
    with MilvusStore.open(places(), D, create=True, index_params=params) as store:
        store.upsert(range(3000), cases, vectors)
        store.flush()
        assert (store.describe()["kind"], store.describe()["exact"]) == ("milvus-hnsw", False)
        found = store.search(vectors[:20], 15)
        store.drop()
    right = [set(oracle(world, query, 15, {}, [])) for query in vectors[:20]]
    assert sum(len(set(answer) & truth) for answer, truth in zip(found, right, strict=True)) >= 0.95 * 20 * 15


def test_what_makes_no_sense_is_refused(store: MilvusStore) -> None:
    two, case = np.eye(D, dtype=np.float32)[:2], Case("c", "s", "p", 0)
    with pytest.raises(ValueError, match="one case and one vector"):
        store.upsert([1], [case, case], two)
    with pytest.raises(ValueError, match="of length 1"):
        store.upsert([1, 2], [case, case], 2 * two)
    with pytest.raises(IndexFailure, match="the path of case 'c' is no text of at most 4096 bytes"):
        store.upsert([1], [Case("c", "s", "p", 0, path="é" * 2049)], two[:1])
    with pytest.raises(IndexFailure, match="the view of case 'c'"):
        store.upsert([1], [Case("c", "s", "p", 0, view="\udcff")], two[:1])
    with pytest.raises(ValueError, match="at least 1, not 0"):
        store.search(two, 0)
    with pytest.raises(ValueError, match="one each"):
        store.search(two, 1, None, [["p"]])
    with pytest.raises(ValueError, match="no field 'colour'"):
        store.search(two, 1, {"colour": ["red"]})
    assert store.count() == 0


WRITER = """
import json, sys
import numpy as np
from index.case import Case
from index.milvus import MilvusPlace, MilvusStore

with MilvusStore.open(MilvusPlace(**json.loads(sys.argv[1])), 8, create=True) as store:
    for start in range(0, int(sys.argv[2]), 10):
        rows = range(start, start + 10)
        store.upsert(rows, [Case(f"c{row}", f"s{row}", "p", 0) for row in rows], np.eye(8, dtype=np.float32)[[0] * 10])
        store.flush()
        print(start + 10, flush=True)
"""


def writer(place: MilvusPlace, count: int) -> list[str]:
    """The command of a process that writes so many cases, ten at a time, and says how many are flushed."""
    return [sys.executable, "-c", WRITER, json.dumps(asdict(place)), str(count)]


@pytest.mark.parametrize("consistency", ["Strong", "Session"])
def test_what_was_written_is_found_by_the_next_search(places: Places, consistency: str) -> None:
    place = places(consistency=consistency)
    query = np.eye(D, dtype=np.float32)[:1]
    subprocess.run(writer(place, 20), check=True, capture_output=True)
    with MilvusStore.open(place, D) as store, MilvusStore.open(place, D) as other:
        assert len(store.search(query, 99)[0]) == 20
        for row in range(100, 104):
            store.upsert([row], [Case("c", f"s{row}", "p", 0)], query)
            assert [len(one.search(query, 99)[0]) for one in (store, other)] == [21, 21]
            store.delete([row])
            assert [len(one.search(query, 99)[0]) for one in (other, store)] == [20, 20]
        store.drop()


def test_a_file_outlives_the_process_that_is_killed_while_it_writes(tmp_path: Path) -> None:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    place = MilvusPlace(str(tmp_path / "vectors.db"))
    with subprocess.Popen(writer(place, 10**6), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        written = [int(line) for line in itertools.islice(process.stdout, 5)][-1]
        with pytest.raises(IndexBusy, match="open in another process"):
            MilvusStore.open(place, D)
        process.kill()
        written = max([written, *(int(line) for line in process.stdout if line.endswith("\n"))])
    with MilvusStore.open(place, D) as store:
        assert set(range(written)) <= set(store.rows().tolist())
        assert len(store.search(np.eye(D, dtype=np.float32)[:1], written)[0]) == written


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    (tmp_path / "other.db").write_text("of something else")
    with pytest.raises(IndexFailure, match="no database of Milvus Lite"):
        MilvusStore.open(MilvusPlace(str(tmp_path / "other.db")), D, create=True)
    assert (tmp_path / "other.db").read_text() == "of something else"
    with pytest.raises(IndexMissing):
        MilvusStore.open(MilvusPlace(str(tmp_path / "nothing.db")), D)
    assert not (tmp_path / "nothing.db").exists()
    with pytest.raises(IndexFailure, match="Milvus Lite cannot use"):
        MilvusStore.open(MilvusPlace(str(tmp_path / "nowhere" / "new.db")), D, create=True)


@pytest.mark.server
@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_an_ingest_loses_nothing_acknowledged(server: MilvusServer) -> None:
    place = server_place(server, patience=240.0)
    rng = np.random.default_rng(9)
    vectors = rng.normal(size=(60_000, D))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    cases = [Case(f"c{row}", f"s{row // 3}", f"p{row // 5}", row // 3 % 2) for row in range(60_000)]
    flushed, written = 0, 0
    failed: list[BaseException] = []

    def ingest(store: MilvusStore) -> None:
        nonlocal flushed, written
        try:
            for start in range(written, 60_000, 500):
                rows = range(start, start + 500)
                store.upsert(rows, cases[start : start + 500], vectors[start : start + 500])
                written = start + 500
                if start % 10_000 == 9_500:
                    store.flush()
                    flushed = start + 500
        except BaseException as error:
            failed.append(error)

    impatient = MilvusStore.open(server_place(server, collection=place.collection, patience=0.0), D, create=True)
    writer = threading.Thread(target=ingest, args=[impatient])
    writer.start()
    while flushed < 20_000 or written < flushed + 3_000:
        time.sleep(0.01)
    server.kill()
    writer.join()
    assert [type(error) for error in failed] == [IndexUnreachable]
    assert written < 60_000
    server.start()
    with MilvusStore.open(place, D) as store:
        held = store.rows()
        print(f"flushed {flushed}, written {written}, held after the kill {len(held)}")
        assert set(range(flushed)) <= set(held.tolist())
        assert store.vectors(held.tolist()).tobytes() == vectors[held].tobytes()
        # The rest is written while the server is killed once more: the writer waits for it.
        failed.clear()
        second = threading.Thread(target=ingest, args=[store])
        second.start()
        before = written
        while written < before + 3_000:
            time.sleep(0.01)
        server.kill()
        server.start()
        second.join()
        assert failed == []
        store.flush()
        assert store.rows().tolist() == list(range(60_000))
        world = dict(enumerate(zip(cases, vectors, strict=True)))
        for query in vectors[:3]:
            where = {"label": ["normal"]}
            assert store.search(query[None], 15, where, [["p0"]]) == [oracle(world, query, 15, where, ["p0"])]
        store.drop()
    impatient.close()


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token": "root:Sesame77"}, "refuses the token"),
        ({"token": ""}, "refuses the token"),
        ({"server_pem_path": ""}, "does not answer .*CERTIFICATE_VERIFY_FAILED"),
        ({"server_name": "other.test"}, "does not answer .*Hostname Verification"),
        ({"database": "nowhere"}, "database.* not found"),
    ],
)
def test_a_server_that_refuses_is_told(server: MilvusServer, changes: dict[str, str], message: str) -> None:
    with pytest.raises(IndexFailure, match=message) as raised:
        MilvusStore.open(server_place(server, **changes), D, create=True)
    assert "Sesame77" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "http://no.such.host.invalid:19530", "https://127.0.0.1:1"])
def test_a_server_that_is_not_there_is_told_soon(uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    place = MilvusPlace(uri, token="root:Sesame77")
    started = time.monotonic()
    with pytest.raises(IndexUnreachable, match=f"{uri} does not answer") as raised:
        MilvusStore.open(place, D)
    assert time.monotonic() - started < 15
    told = "".join(traceback.format_exception(raised.value)) + repr(place) + str(place) + "".join(capfd.readouterr())
    assert "Sesame77" not in told
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"uri": "localhost:19530"}, "no address of Milvus"),
        ({"uri": "ftp://host"}, "no address of Milvus"),
        ({"uri": "http://"}, "no address of Milvus"),
        ({"uri": "http://host:99999"}, "no address of Milvus"),
        ({"uri": ""}, "no address of Milvus"),
        ({"uri": "http://root:Sesame77@host:19530"}, "must not hold a password"),
        ({"uri": "http://host", "collection": "a b"}, "cannot name a collection"),
        ({"uri": "http://host", "collection": ""}, "cannot name a collection"),
        ({"uri": "http://host", "consistency": "Total"}, "Strong, Session, Bounded or Eventually"),
        ({"uri": "http://host", "server_name": "n"}, "begins with https"),
        ({"uri": "https://host", "server_pem_path": "nowhere.pem"}, "nowhere.pem is no file"),
        ({"uri": "https://host", "client_pem_path": "a"}, "needs its key and a CA"),
    ],
)
def test_a_place_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(IndexFailure, match=message) as raised:
        MilvusPlace(**arguments)
    assert "Sesame77" not in str(raised.value)


class Fake:
    """A client whose `upsert` fails with the errors given, one after the other, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.written: list[dict[str, Any]] = []

    def upsert(self, collection: str, data: list[dict[str, Any]], timeout: float) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.written += data


def write_to(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> float:
    """The seconds waited for 2500 entities to be written."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: sum(slept))
    store = MilvusStore(fake, MilvusPlace("http://host", token="root:Sesame77"), D, {})
    store.upsert(range(2500), [Case("c", "s", "p", 0)] * 2500, np.eye(D, dtype=np.float32)[[0] * 2500])
    return sum(slept)


def test_what_passes_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    grpc = pytest.importorskip("grpc")
    exceptions = pytest.importorskip("pymilvus.exceptions")

    class Down(grpc.RpcError):  # type: ignore[misc, name-defined]
        def code(self) -> Any:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return "gone for root:Sesame77"

    limit = exceptions.MilvusException(8, "rate limit exceeded")
    starting = exceptions.MilvusException(1, "Milvus Proxy is not ready yet. please wait")
    told = exceptions.MilvusException(65535, "once more", retriable=True)
    fake = Fake(Down(), limit, starting, told)
    assert 0 < write_to(fake, monkeypatch) < 2
    assert [entity["row"] for entity in fake.written] == list(range(2500))

    with pytest.raises(IndexUnreachable, match=r"http://host does not answer \(gone for \*\*\*\)") as raised:
        write_to(Fake(*(Down() for _ in range(100))), monkeypatch)
    assert "Sesame77" not in str(raised.value)
    refusal = Fake(exceptions.MilvusException(1100, "invalid parameter"), Down())
    with pytest.raises(IndexFailure, match="cannot do this: invalid parameter"):
        write_to(refusal, monkeypatch)
    assert len(refusal.errors) == 1


def test_without_pymilvus_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtra, match=r"pymilvus is not installed; run: pip install \"mura-search\[milvus\]\""):
        MilvusStore.open(MilvusPlace("http://127.0.0.1:1"), D)
