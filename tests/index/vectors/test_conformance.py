"""One suite for every store: whatever holds the vectors, an index answers by the definition, and changes alike.

The oracle is NumPy over the cases that should be there. Approximate search is held to its recall, all else exactly.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.builder import IndexBuilder
from index.case import Case
from index.errors import IndexDamaged, IndexMissing, IndexUnreachable
from index.hits import Hit
from index.milvus import sync
from index.reader import IndexReader
from index.sqlite.reader import CaseReader
from index.writer import IndexWriter
from tests.index.milvus.server import TOKEN, MilvusServer

D = 16
Vectors = NDArray[np.float32]


@dataclass
class World:
    """What an index should hold: cases in row order with their vectors."""

    cases: list[Case]
    vectors: Vectors

    def nearest(self, query: Vectors, k: int, where: dict[str, list[str]], excluded: set[str]) -> list[Hit]:
        similarities = (self.vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32).tolist()
        hits: dict[str, Hit] = {}
        for row in sorted(range(len(self.cases)), key=lambda row: (-similarities[row], row)):
            case = self.cases[row]
            values = {name: case.label_name if name == "label" else getattr(case, name) for name in where}
            if case.patient not in excluded and all(values[name] in where[name] for name in where):
                hits.setdefault(case.study, Hit(similarities[row], case))
        return list(hits.values())[:k]


def drawn(rng: np.random.Generator, count: int, first: int = 0) -> World:
    """Clusters, many equal vectors, studies of one to five views, texts with quotes and other scripts."""
    pool = rng.normal(size=(max(4, count // 3), D))
    vectors = pool[rng.integers(0, len(pool), count)]
    vectors[: count // 2] += 0.2 * rng.normal(size=(count // 2, D))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    studies = rng.integers(0, max(2, count // 3), count)
    cases = [
        Case(
            f"{first}/{n} ü '\".png",
            f"s{first}-{study}",
            f"p{first}-{study // 2}",
            int(study % 2),
            ("finger", 'wr"ist', "élbow\\")[study % 3],
            ("pa", "")[n % 2],
            digest=f"{1000 * first + n:064x}",
        )
        for n, study in enumerate(studies.tolist())
    ]
    return World(cases, vectors)


@dataclass
class Store:
    """A way of holding vectors: what is stored in the index for it, and whether it finds everything."""

    settings: dict[str, object]
    exact: bool = True
    size: int = 200


def milvus_lite(tmp_path: Path, _: pytest.FixtureRequest) -> Store:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    return Store({"store": {"kind": "milvus", "uri": str(tmp_path / "milvus.db")}})


def milvus_server(_: Path, request: pytest.FixtureRequest) -> Store:
    server = request.getfixturevalue("server")
    settings = {"kind": "milvus", "uri": server.uri, "server_pem_path": str(server.certificate)}
    return Store({"store": settings | {"server_name": "milvus.test"}})


STORES: dict[str, Callable[[Path, pytest.FixtureRequest], Store]] = {
    "faiss exact": lambda *_: Store({}),
    "faiss approximate": lambda *_: Store({"demand": {"latency": 1e3, "memory": 3_000 * (D + 8)}}, False, 3_000),
    "milvus lite": milvus_lite,
    "milvus server": milvus_server,
}
MARKS = {"milvus server": [pytest.mark.server]}


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, [])) for name in STORES])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("MURA_SEARCH_MILVUS_TOKEN", TOKEN)
    monkeypatch.setattr("index.vectors.faiss._ALWAYS_EXACT", 0)
    return STORES[request.param](tmp_path, request)


@pytest.fixture
def start(store: Store, tmp_path: Path, model: Path) -> Callable[[World], Path]:
    def build(world: World) -> Path:
        with IndexBuilder.start(tmp_path / "index", model=model, dimension=D, fingerprint="f", replace=True) as index:
            if world.cases:
                index.add(world.cases, world.vectors, pictures(world.cases), np.zeros(len(world.cases), np.float32))
            for key, value in store.settings.items():
                index.set_metadata(key, value)
            index.finish()
        return tmp_path / "index"

    return build


def pictures(cases: list[Case]) -> list[bytes]:
    return [case.case.encode() for case in cases]


def questions(rng: np.random.Generator, world: World) -> Iterator[tuple[int, dict[str, list[str]], list[set[str]]]]:
    """k, a filter and the excluded patients of three queries."""
    patients = sorted({case.patient for case in world.cases}) or ["nobody"]
    filters: list[dict[str, list[str]]] = [
        {},
        {"part": ['wr"ist']},
        {"part": ["finger", "élbow\\"], "label": ["abnormal"]},
        {"view": [""], "label": ["normal", "abnormal"]},
        {"study": [case.study for case in world.cases[:7]] or ["none"]},
        {"part": ["toe"]},
        {"label": []},
    ]
    for where in filters:
        excluded = [set(rng.choice(patients, rng.integers(0, min(4, len(patients)) + 1))) for _ in range(3)]
        yield int(rng.choice([1, 4, 15, 500])), where, [{str(patient) for patient in some} for some in excluded]


def assert_answers(folder: IndexReader, world: World, exact: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries = drawn(rng, 3).vectors
    if world.cases:
        queries[0] = world.vectors[int(rng.integers(len(world.cases)))]  # one that is there, perhaps several times
    shares = []
    for k, where, excluded in questions(rng, world):
        found = folder.search(queries, k, where=where, exclude_patients=excluded)
        wanted = [world.nearest(query, k, where, patients) for query, patients in zip(queries, excluded, strict=True)]
        if exact:
            assert found == wanted
            continue
        for hits, truth, patients in zip(found, wanted, excluded, strict=True):
            assert len(hits) == len(truth)  # k studies whenever there are k
            assert len({hit.case.study for hit in hits}) == len(hits)
            assert not {hit.case.patient for hit in hits} & patients
            assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
            if truth:
                shares.append(len({h.case.study for h in hits} & {h.case.study for h in truth}) / len(truth))
    assert exact or np.mean(shares) > 0.95


def test_it_answers_by_the_definition(store: Store, start: Callable[[World], Path]) -> None:
    world = drawn(np.random.default_rng(1), store.size)
    with IndexReader.open(start(world)) as folder:
        assert folder.cases() == world.cases
        assert folder.embeddings().tobytes() == world.vectors.tobytes()
        assert folder.info()["store"]["exact"] == store.exact  # type: ignore[index]
        for seed in range(4):
            assert_answers(folder, world, store.exact, seed)
        assert folder.verify()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_tiny_indexes(store: Store, start: Callable[[World], Path], count: int) -> None:
    if not store.exact:
        pytest.skip("so few are never approximated")
    world = drawn(np.random.default_rng(2), count)
    with IndexReader.open(start(world)) as folder:
        assert_answers(folder, world, True, 5)


def test_it_follows_every_change(store: Store, start: Callable[[World], Path]) -> None:
    """Added, removed and relabelled, by an edit beside a reader where the store allows that."""
    world = drawn(np.random.default_rng(3), store.size)
    place = start(world)
    more = drawn(np.random.default_rng(4), 30, first=9)
    extra = [replace(case, study=world.cases[5].study, patient=world.cases[5].patient, label=world.cases[5].label)
             if n < 3 else case for n, case in enumerate(more.cases)]  # fmt: skip
    gone, relabelled = world.cases[0].patient, world.cases[-1].study
    with IndexWriter.open(place) as edit:
        edit.add(extra, more.vectors, pictures(extra), np.zeros(30, np.float32))
        edit.remove({"patient": [gone]})
        if relabelled in {case.study for case in edit.cases()}:
            edit.relabel(relabelled, 1)
    kept = [n for n, case in enumerate([*world.cases, *extra]) if case.patient != gone]
    cases = [[*world.cases, *extra][n] for n in kept]
    cases = [replace(case, label=1) if case.study == relabelled else case for case in cases]
    after = World(cases, np.vstack((world.vectors, more.vectors))[kept])
    with IndexReader.open(place) as folder:
        assert folder.cases() == after.cases
        for seed in range(2):
            assert_answers(folder, after, store.exact, 20 + seed)
        folder.verify()
    with IndexWriter.open(place) as edit:
        edit.compact()
    with IndexReader.open(place) as folder:
        assert folder.verify()
        assert_answers(folder, after, store.exact, 30)


@pytest.mark.server
@pytest.mark.slow
def test_a_server_that_dies_loses_nothing(
    server: MilvusServer, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes made while Milvus is down are in cases.sqlite, and reach it when it is back."""
    monkeypatch.setenv("MURA_SEARCH_MILVUS_TOKEN", TOKEN)
    world, more = drawn(np.random.default_rng(6), 60), drawn(np.random.default_rng(7), 20, first=4)
    settings = {"kind": "milvus", "uri": server.uri, "server_pem_path": str(server.certificate)}
    place = tmp_path / "index"
    with IndexBuilder.start(place, model=model, dimension=D, fingerprint="f") as index:
        index.add(world.cases, world.vectors, pictures(world.cases), np.zeros(60, np.float32))
        index.set_metadata("store", settings | {"server_name": "milvus.test", "patience": 1.0, "timeout": 20.0})
        index.finish()
    server.kill()
    with IndexWriter.open(place) as edit:
        edit.add(more.cases, more.vectors, pictures(more.cases), np.zeros(20, np.float32))
        edit.remove({"study": [world.cases[0].study]})
    gone = [case for case in world.cases if case.study == world.cases[0].study]
    assert edit.behind == 20 + len(gone)
    with pytest.raises(IndexUnreachable, match="does not answer"):
        IndexReader.open(place)
    server.start()
    IndexWriter.open(place).close()  # any edit brings it up to date
    kept = [n for n, case in enumerate([*world.cases, *more.cases]) if case not in gone]
    after = World([[*world.cases, *more.cases][n] for n in kept], np.vstack((world.vectors, more.vectors))[kept])
    with IndexReader.open(place) as folder:
        assert folder.verify()
        assert_answers(folder, after, True, 40)


@pytest.mark.parametrize("store", ["milvus lite"], indirect=True)
def test_changes_that_have_not_reached_milvus_are_found(
    store: Store, start: Callable[[World], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that cannot reach Milvus leaves its changes pending; readers search them in cases.sqlite."""

    def refuse(*_: object, **__: object) -> None:
        raise IndexUnreachable("Milvus does not answer")

    world, more = drawn(np.random.default_rng(8), store.size), drawn(np.random.default_rng(9), 20, first=4)
    path, gone = start(world), world.cases[0].patient
    relabelled = next(case.study for case in world.cases if case.patient != gone and case.label == 0)
    with monkeypatch.context() as patched:
        patched.setattr(sync, "open_remote", refuse)
        with IndexWriter.open(path) as writer:
            writer.add(more.cases, more.vectors, pictures(more.cases), np.zeros(20, np.float32))
            writer.remove({"patient": [gone]})
            writer.relabel(relabelled, 1)
    assert writer.behind > 20
    kept = [n for n, case in enumerate([*world.cases, *more.cases]) if case.patient != gone]
    cases = [[*world.cases, *more.cases][n] for n in kept]
    cases = [replace(case, label=1) if case.study == relabelled else case for case in cases]
    after = World(cases, np.vstack((world.vectors, more.vectors))[kept])
    with IndexReader.open(path) as reader:
        for seed in range(4):
            assert_answers(reader, after, True, seed)
    with IndexWriter.open(path):
        pass
    with IndexReader.open(path) as reader:
        assert reader.info()["store"]["vectors"] == len(after.cases)  # type: ignore[index]
        assert_answers(reader, after, True, 5)
        reader.verify()
    with monkeypatch.context() as patched:
        patched.setattr(sync, "open_remote", refuse)
        with IndexWriter.open(path) as writer:  # now only removed cases are pending
            writer.remove({"patient": [after.cases[0].patient]})
    left = [n for n, case in enumerate(after.cases) if case.patient != after.cases[0].patient]
    with IndexReader.open(path) as reader:
        assert_answers(reader, World([after.cases[n] for n in left], after.vectors[left]), True, 6)


@pytest.mark.parametrize("store", ["milvus lite"], indirect=True)
def test_a_collection_that_was_changed_by_others_is_noticed_and_written_again(
    store: Store, start: Callable[[World], Path]
) -> None:
    world = drawn(np.random.default_rng(10), 30)
    path = start(world)
    with closing(CaseReader(path / "cases.sqlite")) as database, sync.open_remote(database.metadata()) as collection:
        collection.delete([3])
    with IndexReader.open(path) as reader, pytest.raises(IndexDamaged, match="does not hold 1 of the cases"):
        reader.verify()
    with IndexWriter.open(path) as writer:
        writer.compact()
    with IndexReader.open(path) as reader:
        assert reader.verify()
        assert_answers(reader, world, True, 1)


@pytest.mark.parametrize("store", ["milvus lite"], indirect=True)
def test_the_collection_of_a_replaced_index_is_dropped(store: Store, start: Callable[[World], Path]) -> None:
    first, second = drawn(np.random.default_rng(11), 20), drawn(np.random.default_rng(12), 30)
    path = start(first)
    with closing(CaseReader(path / "cases.sqlite")) as database:
        former = database.metadata()
    assert start(second) == path
    with pytest.raises(IndexMissing):
        sync.open_remote(former)
    with IndexReader.open(path) as reader:
        assert_answers(reader, second, True, 1)
