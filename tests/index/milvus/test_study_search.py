"""Paging against its definition, on a server of NumPy that rounds badly and gives few cases at a time."""

import ast
import math
import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.case import Case
from index.milvus.study_search import Hit, Page, page_studies
from index.vectors.study_search import Neighbour

World = Mapping[int, tuple[Case, NDArray[np.float32]]]  # by row


def oracle(
    world: World, query: NDArray[np.float32], k: int, where: Mapping[str, Collection[str]], excluded: Collection[str]
) -> list[Neighbour]:
    """The definition, one case after the other, with exact sums."""
    found = []
    for row, (case, vector) in world.items():
        values = {name: case.label_name if name == "label" else getattr(case, name) for name in where}
        if case.patient not in excluded and all(values[name] in where[name] for name in where):
            exact = math.fsum(x * y for x, y in zip(vector.tolist(), query.tolist(), strict=True))
            found.append((-float(np.float32(exact)), row, case.study))
    best: dict[str, Neighbour] = {}
    for negative, row, study in sorted(found):
        best.setdefault(study, (-negative, row))
    return list(best.values())[:k]


class Server:
    """Answers as Milvus does, with similarities wrong by up to `slack`."""

    def __init__(self, world: World, slack: float, seed: int) -> None:
        self.world = world
        self.errors = dict(zip(world, np.random.default_rng(seed).uniform(-slack, slack, len(world)), strict=True))
        self.asked = 0

    def ask(self, queries: NDArray[np.float32], count: int, expression: str) -> list[Page]:
        self.asked += 1
        matching = {row for row, (case, _) in self.world.items() if matches(case, expression)}
        pages = []
        for query in queries:
            told = [(float(self.world[row][1] @ query) + self.errors[row], row) for row in matching]
            nearest = sorted(told, reverse=True)[:count]
            hits = [(row, self.world[row][0].study, self.world[row][1].tolist()) for _, row in nearest]
            pages.append(Page(hits, nearest[-1][0] if nearest else 0.0))
        return pages

    def groups(self, queries: NDArray[np.float32], count: int, expression: str) -> list[Page]:
        """The nearest case of each study among three times as many cases: too few studies where some have many."""
        pages = []
        for page in self.ask(queries, 3 * count, expression):
            first: dict[str, Hit] = {}
            for hit in page.hits:
                first.setdefault(hit[1], hit)
            pages.append(Page(list(first.values())[:count], page.last))
        return pages


def matches(case: Case, expression: str) -> bool:
    for condition in filter(None, expression.split(" and ")):
        name, negated, values = re.fullmatch(r"(\w+) (not )?in (\[.*\])", condition).groups()  # type: ignore[union-attr]
        if (getattr(case, name) in ast.literal_eval(values)) == bool(negated):
            return False
    return True


@st.composite
def worlds(draw: st.DrawFn) -> tuple[World, NDArray[np.float32]]:
    """Few distinct vectors and few studies, so that many similarities tie and some studies have very many cases."""
    D = draw(st.integers(1, 5))
    N = draw(st.integers(0, 150))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pool = np.concatenate([np.eye(D), -np.eye(D), rng.normal(size=(draw(st.integers(0, 20)), D))])
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    vectors = pool[rng.integers(0, len(pool), N)].astype(np.float32)
    studies = (draw(st.integers(1, 80)) * rng.random(N) ** draw(st.sampled_from([1, 4]))).astype(int)
    cases = [Case(f"c{i}", f"s{study}", f"p{study % 7}", int(study) % 2) for i, study in enumerate(studies)]
    rows = rng.permutation(2 * N)[:N].tolist()
    queries = pool[rng.integers(0, len(pool), draw(st.integers(0, 6)))].astype(np.float32)
    return dict(zip(rows, zip(cases, vectors, strict=True), strict=True)), queries


@given(worlds(), st.integers(1, 40), st.booleans(), st.sampled_from([1e-6, 0.1]), st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_the_definition_is_found(
    drawn: tuple[World, NDArray[np.float32]], k: int, filtered: bool, slack: float, seed: int
) -> None:
    world, queries = drawn
    where: Mapping[str, Sequence[str]] = {"patient": ["p1", "p2", "p5"]} if filtered else {}
    excluded = [["p2"] if number % 2 else [] for number in range(len(queries))]
    found = page_studies(Server(world, slack, seed).ask, queries, k, where, excluded, slack=slack + 1e-6)
    assert found == [oracle(world, query, k, where, out) for query, out in zip(queries, excluded, strict=True)]


@given(worlds(), st.integers(1, 40), st.integers(1, 30))
@settings(max_examples=200, deadline=None)
def test_few_cases_at_a_time_give_every_study_all_the_same(
    drawn: tuple[World, NDArray[np.float32]], k: int, top: int
) -> None:
    # More cases tie than a page holds, so that which of them is found is open, but not how similar they are.
    world, queries = drawn
    found = page_studies(Server(world, 0.0, 0).ask, queries, k, None, None, slack=1e-6, top=top)
    for query, answer in zip(queries, found, strict=True):
        expected = oracle(world, query, k, {}, [])
        assert [similarity for similarity, _ in answer] == [similarity for similarity, _ in expected]
        assert len({world[row][0].study for _, row in answer}) == len(answer)


@given(worlds(), st.integers(1, 40), st.booleans())
@settings(max_examples=200, deadline=None)
def test_groups_of_the_server_give_the_same_studies(
    drawn: tuple[World, NDArray[np.float32]], k: int, filtered: bool
) -> None:
    # Studies tie, so that which of them come last is open, but not how similar they are.
    world, queries = drawn
    where: Mapping[str, Sequence[str]] = {"patient": ["p1", "p2", "p5"]} if filtered else {}
    server = Server(world, 0.0, 0)
    found = page_studies(server.ask, queries, k, where, None, slack=1e-6, groups=server.groups)
    for query, answer in zip(queries, found, strict=True):
        expected = oracle(world, query, k, where, [])
        assert [similarity for similarity, _ in answer] == [similarity for similarity, _ in expected]
        assert len({world[row][0].study for _, row in answer}) == len(answer)


def test_where_the_server_groups_one_request_is_enough() -> None:
    angles = np.linspace(0.1, 1.5, 60)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    world = {row: (Case(f"c{row}", f"s{row // 2}", "p", 0), vectors[row]) for row in range(60)}
    query = np.array([[1, 0]], np.float32)
    server = Server(world, 0.0, 0)
    found = page_studies(server.ask, query, 5, None, None, slack=1e-6, groups=server.groups)
    assert found == [oracle(world, query[0], 5, {}, [])]
    assert server.asked == 1


def test_a_study_of_very_many_cases_does_not_fill_page_after_page() -> None:
    rng = np.random.default_rng(0)
    angles = np.concatenate([0.3 + 0.3 * rng.random(3000), 1 + rng.random(20)])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    studies = ["big"] * 3000 + [f"s{number}" for number in range(20)]
    world = {row: (Case(f"c{row}", studies[row], "p", 0), vectors[row]) for row in range(3020)}
    query = np.array([[1, 0]], np.float32)
    server = Server(world, 0.0, 0)
    assert page_studies(server.ask, query, 15, None, None, slack=1e-6) == [oracle(world, query[0], 15, {}, [])]
    assert server.asked == 2
