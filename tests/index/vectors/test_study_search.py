import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.vectors.faiss import FaissStore
from index.vectors.study_search import Neighbour, nearest_studies


def oracle(
    vectors: NDArray[np.float32],
    query: NDArray[np.float32],
    k: int,
    studies: NDArray[np.int64],
    allowed: NDArray[np.bool_] | None,
) -> list[Neighbour]:
    """The definition, one case after the other, with exact sums."""
    cases = []
    for position, vector in enumerate(vectors.tolist()):
        if allowed is None or allowed[position]:
            exact = math.fsum(x * y for x, y in zip(vector, query.tolist(), strict=True))
            cases.append((-float(np.float32(exact)), position))
    best: dict[int, Neighbour] = {}
    for negative, position in sorted(cases):
        best.setdefault(int(studies[position]), (-negative, position))
    return list(best.values())[:k]


class Shaky:
    """A store whose similarities are wrong by up to its slack; without slack they are right, and ties are ties."""

    exact = True

    def __init__(self, vectors: NDArray[np.float32], slack: float, seed: int) -> None:
        self.vectors = vectors
        self.slack = slack
        self.errors = (slack * np.random.default_rng(seed).uniform(-0.99, 0.99, len(vectors))).astype(np.float32)

    def search(
        self, queries: NDArray[np.float32], count: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        similarities = (queries.astype(np.float64) @ self.vectors.T).astype(np.float32) + self.errors
        if allowed is not None:
            similarities[:, ~allowed] = -np.inf
        order = np.argsort(-similarities, axis=1)[:, :count]
        return np.take_along_axis(similarities, order, axis=1), order

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.vectors[positions]

    def describe(self) -> dict[str, object]:
        return {}


Search = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]


@st.composite
def searches(draw: st.DrawFn) -> Search:
    """Vectors, queries, studies, allowed: few distinct vectors, so that many are equal and many similarities tie."""
    D = draw(st.integers(1, 9))
    N = draw(st.integers(0, 150))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pool = np.concatenate([np.eye(D), -np.eye(D), rng.normal(size=(draw(st.integers(0, 20)), D))])
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    vectors = pool[rng.integers(0, len(pool), N)].astype(np.float32)
    queries = pool[rng.integers(0, len(pool), draw(st.integers(0, 25)))].astype(np.float32)
    studies = rng.integers(0, draw(st.integers(1, 80)), N)
    allowed = rng.random(N) < draw(st.sampled_from([0.0, 0.1, 0.7, 1.0]))
    return vectors, queries, studies, allowed


@given(searches(), st.integers(1, 100), st.booleans(), st.sets(st.integers(0, 160)))
@settings(max_examples=150, deadline=None)
def test_faiss_gives_the_definition(search: Search, k: int, filtered: bool, excluded: set[int]) -> None:
    vectors, queries, studies, mask = search
    allowed = mask if filtered else None
    found = nearest_studies(FaissStore(vectors), queries, k, studies, allowed, excluded=excluded)
    left = (mask if filtered else np.ones_like(mask)) & ~np.isin(np.arange(len(mask)), list(excluded))
    assert found == [oracle(vectors, query, k, studies, left) for query in queries]


@given(searches(), st.integers(1, 20), st.sampled_from([0.0, 0.1]), st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_a_store_may_be_wrong_within_its_slack(search: Search, k: int, slack: float, seed: int) -> None:
    vectors, queries, studies, allowed = search
    found = nearest_studies(Shaky(vectors, slack, seed), queries, k, studies, allowed)
    assert found == [oracle(vectors, query, k, studies, allowed) for query in queries]


def test_a_query_alone_and_among_others_find_the_same() -> None:
    # FAISS multiplies matrices from 20 queries on, and rounds differently there.
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(3000, 128))
    vectors[1500:] = vectors[:1500] + 1e-7 * rng.normal(size=(1500, 128))  # closer than float32 can tell
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    store, studies = FaissStore(vectors), rng.permutation(3000)
    together = nearest_studies(store, vectors[:40], 10, studies)
    alone = [nearest_studies(store, vectors[i : i + 1], 10, studies)[0] for i in range(40)]
    assert together == alone
    assert together[:6] == [oracle(vectors, query, 10, studies, None) for query in vectors[:6]]


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_the_similarities_of_faiss_are_within_its_slack(D: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(60, D))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    store = FaissStore(vectors)
    for queries in (vectors[:1], vectors):
        similarities, positions = store.search(queries, 60, None)
        exact = np.take_along_axis(queries.astype(np.float64) @ vectors.astype(np.float64).T, positions, axis=1)
        assert np.abs(similarities - exact).max() <= store.slack
