"""Figures of retrieval: by hand, against scikit-learn, against the average over all orders, and against the search."""

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from index.case import Case
from retrieval.datasets.collection import Collection
from retrieval.decision.rules import Rules
from retrieval.encoding.encoder import Encoded
from retrieval.evaluation.retrieval_metrics import DEPTHS, Ranking, retrieved
from retrieval.indexing.build import build_index
from retrieval.query import Scope
from retrieval.searcher import Searcher


def test_by_hand() -> None:
    # R = 4: at places 1, 3 and 4 stand relevant ones, with precisions 1, 2/3 and 3/4; the last lies beyond.
    found = retrieved(np.array([1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1], bool))
    assert found.figures == pytest.approx(
        {
            "precision_at_1": 1,
            "precision_at_5": 3 / 5,
            "precision_at_10": 3 / 10,
            "recall_at_1": 1,
            "recall_at_5": 1,
            "recall_at_10": 1,
            "map_at_r": (1 + 2 / 3 + 3 / 4) / 4,
        }
    )
    late = retrieved(np.array([0, 0, 1, 1], bool)).figures
    assert (late["recall_at_1"], late["recall_at_5"], late["map_at_r"]) == (0, 1, 0)


@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any))
def test_map_at_r_is_average_precision_cut_at_r(relevant: list[bool]) -> None:
    R = sum(relevant)
    # What lies beyond the R nearest counts as never found: it is put after as many irrelevant ones as can be.
    ranked = relevant[:R]
    found = sum(ranked)
    ours = retrieved(np.array(relevant)).figures["map_at_r"]
    if found:
        assert ours == pytest.approx(average_precision_score(ranked, -np.arange(R)) * found / R)
    else:
        assert ours == 0


@pytest.mark.parametrize(("S", "R"), [(1, 1), (5, 2), (6, 5), (7, 1), (6, 3)])
def test_chance_is_the_average_over_all_orders(S: int, R: int) -> None:
    orders = set(permutations([True] * R + [False] * (S - R)))
    all_found = [retrieved(np.array(order)) for order in orders]
    for name, chance in all_found[0].chance.items():
        assert chance == pytest.approx(np.mean([found.figures[name] for found in all_found])), name


def test_an_index_without_the_label_has_nothing_to_find() -> None:
    found = retrieved(np.zeros(4, bool))
    assert np.isnan(found.figures["map_at_r"])
    assert (found.figures["precision_at_5"], found.chance["precision_at_5"], found.chance["recall_at_5"]) == (0, 0, 0)


def test_a_study_is_as_near_as_its_nearest_radiograph() -> None:
    cases = [Case("1", "b", "p", 1), Case("2", "a", "q", 0), Case("3", "b", "p", 1)]
    embeddings = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    ranking = Ranking(cases, embeddings)
    similarities = ranking.similarities(np.array([[0, 1], [0.6, 0.8]], np.float32))
    assert similarities == pytest.approx(np.array([[0.8, 1.0], [1.0, 0.8]]))  # a before b
    assert ranking.labels.tolist() == [0, 1]
    # Over both views the two tie, and a comes first by its name.
    assert ranking.retrieved(similarities, 0).figures["precision_at_1"] == 1
    assert ranking.sweep(similarities, 0.1, (1, 2, 3))[1] == (1.0, 0.0)
    assert set(ranking.sweep(similarities, 0.1, (1, 2, 3))) == {1, 2}


def test_it_ranks_and_votes_as_the_search_does(
    squares: Callable[..., Collection], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", rules=Rules(k=5, temperature=0.1).to_dict())
    indexed = [(f"p{n}", f"s{n}", n % 2, [30 + 17 * n, 25 + 15 * n]) for n in range(13)]
    build_index(squares(indexed), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as searcher:
        ranking = Ranking(searcher.index.cases(), searcher.index.embeddings())
        for row in range(0, 26, 2):
            views = Encoded(searcher.index.embeddings()[row : row + 2], searcher.index.logits()[row : row + 2])
            judged = searcher.scores(views, Scope(k=max(DEPTHS)))
            similarities = ranking.similarities(views.embeddings)
            found = ranking.retrieved(similarities, 1)
            for depth in DEPTHS:
                nearest = [hit.case.label for hit in judged.neighbours[:depth]]
                assert found.figures[f"precision_at_{depth}"] == pytest.approx(np.mean(nearest))
            swept = ranking.sweep(similarities, 0.1, (1, 5, 99))
            assert set(swept) == {1, 5}
            assert swept[5] == pytest.approx(judged.vote.views)
