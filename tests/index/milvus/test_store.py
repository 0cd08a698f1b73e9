"""The Milvus store against its definition, on Milvus Lite and on a real server."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.case import Case
from index.errors import IndexDamaged, IndexFailure, IndexMissing, IndexSchema
from index.milvus.store import MilvusSettings, MilvusStore
from tests.index.milvus.test_study_search import World, oracle

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
Places = Callable[..., MilvusSettings]


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


def test_an_approximate_index_finds_nearly_all(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    vectors = rng.normal(size=(3000, D))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    cases = [Case(f"c{row}", f"s{row // 3}", "p", 0) for row in range(3000)]
    world = dict(enumerate(zip(cases, vectors, strict=True)))
    params = {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 100}}
    place = places()
    with MilvusStore.open(place, D, create=True, index_params=params) as store:
        store.upsert(range(3000), cases, vectors)
        store.flush()
        assert (store.describe()["kind"], store.describe()["exact"]) == ("milvus-hnsw", False)
        asked: list[object] = []
        search = store._client.search

        def noted(*given: Any, **options: Any) -> Any:
            asked.append(options.get("group_by_field"))
            return search(*given, **options)

        monkeypatch.setattr(store._client, "search", noted)
        found = store.search(vectors[:20], 15)
        assert asked == [None if str(store.describe()["server"]).lstrip("v").startswith("2.3") else "study"]
        # Of one study so many cases that grouping, where the server has it, gives too few studies.
        order = np.argsort(-(vectors @ vectors[0]))
        crowd = [Case(f"c{row}", "crowd", "p", 0) for row in order[:1000].tolist()]
        store.upsert(order[:1000].tolist(), crowd, vectors[order[:1000]])
        # HNSW may lose its way among so many replaced vectors; visiting all of them, it cannot.
        with MilvusStore.open(place, D, search_params={"ef": 4000}) as thorough:
            crowded = thorough.search(vectors[:1], 15)
        store.drop()
    right = [set(oracle(world, query, 15, {}, [])) for query in vectors[:20]]
    assert sum(len(set(answer) & truth) for answer, truth in zip(found, right, strict=True)) >= 0.95 * 20 * 15
    assert all(len(answer) == 15 for answer in found)
    world |= {row: (case, vectors[row]) for row, case in zip(order[:1000].tolist(), crowd, strict=True)}
    assert len(set(crowded[0]) & set(oracle(world, vectors[0], 15, {}, []))) >= 14


def test_what_makes_no_sense_is_refused(store: MilvusStore) -> None:
    two, case = np.eye(D, dtype=np.float32)[:2], Case("c", "s", "p", 0)
    with pytest.raises(ValueError, match="one case and one vector"):
        store.upsert([1], [case, case], two)
    with pytest.raises(ValueError, match="of length 1"):
        store.upsert([1, 2], [case, case], 2 * two)
    with pytest.raises(IndexFailure, match="the path of case 'c' is not text of at most 4096 bytes"):
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
