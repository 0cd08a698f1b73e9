import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.extmath import softmax

from index.case import Case
from index.hits import Hit
from retrieval.decision.vote import merged, study_vote, vote_weights


def hit(similarity: float, study: str, label: int, case: str = "") -> Hit:
    return Hit(similarity, Case(case or f"{study}/1", study, f"patient of {study}", label))


def test_weights_by_hand() -> None:
    # At temperature 0.1 a similarity of 0.1 ln 3 more counts three times as much.
    assert vote_weights([0.5 + 0.1 * math.log(3), 0.5], 0.1) == pytest.approx([0.75, 0.25])
    assert vote_weights([[1.0, -np.inf], [0.2, 0.2]], 0.1).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert vote_weights([[-np.inf, -np.inf]], 0.1).tolist() == [[0.0, 0.0]]
    assert vote_weights(np.empty((2, 0)), 0.1).shape == (2, 0)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.sampled_from([0.001, 0.03, 1.0]))
def test_weights_are_a_softmax(similarities: list[float], temperature: float) -> None:
    assert vote_weights(similarities, temperature) == pytest.approx(softmax([np.array(similarities) / temperature])[0])


def test_one_view_by_hand() -> None:
    found = study_vote([[hit(0.9, "a", 1), hit(0.9, "b", 0), hit(0.9, "c", 0), hit(0.9, "d", 1)]], 0.1)
    assert found.probability == pytest.approx(0.5)
    assert found.voters == 4
    assert dict(found.weights) == pytest.approx(dict.fromkeys("abcd", 0.25))


def test_views_have_one_voice_each() -> None:
    # View 1: a (abnormal) 3/4, b 1/4. View 2: b and c (abnormal) 1/2 each.
    far = 0.5
    near = far + 0.1 * math.log(3)
    views = [[hit(near, "a", 1), hit(far, "b", 0)], [hit(far, "b", 0), hit(far, "c", 1)]]
    found = study_vote(views, 0.1)
    assert found.views == pytest.approx((0.75, 0.5))
    assert found.probability == pytest.approx(0.625)
    assert dict(found.weights) == pytest.approx({"a": 0.375, "b": 0.375, "c": 0.25})


def test_a_low_temperature_leaves_the_vote_to_the_nearest() -> None:
    views = [[hit(0.9, "a", 1), hit(0.8, "b", 0), hit(0.7, "c", 0)]]
    assert study_vote(views, 1e-3).probability == pytest.approx(1.0)
    assert study_vote(views, 1e3).probability == pytest.approx(1 / 3, abs=1e-3)


def test_nothing_to_vote() -> None:
    for empty in range(3):
        views: list[list[Hit]] = [[] for _ in range(empty)]
        found = study_vote(views, 0.1)
        assert (found.probability, found.views, found.voters, dict(found.weights)) == (None, (), 0, {})
        assert merged(views) == []


views_of_hits = st.lists(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(-10, 10)), min_size=1, max_size=9, unique_by=lambda pair: pair[0]
    ),
    min_size=1,
    max_size=4,
)


@given(views_of_hits)
def test_weights_sum_to_one_and_explain_the_vote(rows: list[list[tuple[int, int]]]) -> None:
    views = [[hit(similarity / 10, f"s{study}", study % 2) for study, similarity in row] for row in rows]
    found = study_vote(views, 0.2)
    assert sum(found.weights.values()) == pytest.approx(1)
    assert found.probability == pytest.approx(sum(w for study, w in found.weights.items() if int(study[1:]) % 2))
    assert found.probability is not None
    assert 0 <= found.probability <= 1


@given(views_of_hits)
def test_merged_has_each_study_once_by_its_nearest_hit(rows: list[list[tuple[int, int]]]) -> None:
    views = [
        [hit(similarity / 10, f"s{study}", 0, f"s{study}/{view}") for study, similarity in row]
        for view, row in enumerate(rows)
    ]
    best: dict[str, float] = {}
    for row in views:
        for one in row:
            best[one.case.study] = max(best.get(one.case.study, -2), one.similarity)
    found = merged(views)
    assert [(one.similarity, one.case.study) for one in found] == sorted(
        ((similarity, study) for study, similarity in best.items()), key=lambda pair: (-pair[0], pair[1])
    )
    assert all(one in [h for row in views for h in row] for one in found)
