import json
from statistics import NormalDist

import numpy as np
import pytest

from retrieval.decision.measure_limits import FEWEST, MeasureLimits, learn_measure_limits
from retrieval.decision.tail_limit import normal_limit, tail_limit
from retrieval.images.measures import MEASURES
from retrieval.notices import Unlike


@pytest.mark.parametrize("count", [60, 400, 5000])
def test_a_new_value_exceeds_the_limit_as_often_as_asked(count: int) -> None:
    """Of exponential values, whose further ones exceed x with the probability exp(-x)."""
    generator = np.random.default_rng(count)
    beyond = [np.exp(-tail_limit(generator.exponential(size=count), 0.002)) for _ in range(400)]
    assert np.mean(beyond) == pytest.approx(0.002, rel=0.15)


def test_a_tail_limit_lies_above_the_quantile_of_a_short_tail_and_scales_with_its_values() -> None:
    values = np.random.default_rng(1).normal(size=300)
    limit = tail_limit(values, 0.001)
    assert 3.1 < limit < 6  # the quantile of the normal distribution is 3.09
    assert tail_limit(5 + 2 * values, 0.001) == pytest.approx(5 + 2 * limit)
    assert tail_limit(np.full(80, 7.0), 0.001) == 7


@pytest.mark.parametrize("count", [40, 62, 400])
def test_a_normal_limit_is_exceeded_as_often_as_wanted(count: int) -> None:
    generator = np.random.default_rng(count)
    known = 7 + 3 * generator.normal(size=(400, count))
    beyond = [1 - NormalDist(7, 3).cdf(normal_limit(values, 0.00125)) for values in known]
    assert np.mean(beyond) == pytest.approx(0.00125, rel=0.25)
    # A tail of so few values would reach much farther: what is unlike them would be taken for one of them.
    assert np.median([normal_limit(values, 0.00125) for values in known]) < 7 + 3 * 3.6


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Measures of radiographs that are much alike."""
    generator = np.random.default_rng(seed)
    usual = {
        "sharpness": 0.2,
        "noise": 2,
        "contrast": 50,
        "grey_range": 200,
        "size": 448,
        "saturated": 0,
        "background": 0.3,
        "blocking": 0.4,
    }
    spread = {"sharpness": 0.05, "noise": 0.1, "contrast": 3, "grey_range": 8}
    columns = [usual[name] + spread.get(name, 0) * generator.normal(size=count) for name in MEASURES]
    return np.column_stack(columns)


def study_names(count: int) -> list[str]:
    return [f"s{number // 2}" for number in range(count)]


@pytest.mark.parametrize(
    ("reason", "measure", "value"),
    [
        (Unlike.SOFTER, "sharpness", -0.4),
        (Unlike.SHARPER, "sharpness", 0.8),
        (Unlike.NOISIER, "noise", 6),
        (Unlike.NARROWER, "grey_range", 100),
        (Unlike.FAINTER, "contrast", 20),
        (Unlike.WHITER, "saturated", 0.1),
        (Unlike.SMALLER, "size", 200),
        (Unlike.COMPRESSED, "blocking", 0.9),
    ],
)
def test_the_side_that_is_exceeded_is_named(reason: Unlike, measure: str, value: float) -> None:
    limits = learn_measure_limits(study_names(400), rows(400))
    query = rows(3, seed=9)
    assert limits.beyond(query) == []
    query[1, MEASURES.index(measure)] = value
    assert [found[:3] for found in limits.beyond(query)] == [(reason, measure, value)]


def test_known_studies_are_rarely_beyond_any_limit() -> None:
    limits = learn_measure_limits(study_names(400), rows(400))
    new = rows(4000, seed=5).reshape(2000, 2, -1)
    assert sum(bool(limits.beyond(study)) for study in new) <= 20  # 1 %


def test_what_hardly_differs_from_an_index_of_equals_is_not_flagged() -> None:
    alike = np.tile(rows(1), (200, 1))
    limits = learn_measure_limits(study_names(200), alike)
    near = alike[:1].copy()
    near[0, MEASURES.index("size")] -= 20
    near[0, MEASURES.index("sharpness")] -= 0.05
    near[0, MEASURES.index("grey_range")] -= 5
    near[0, MEASURES.index("blocking")] += 0.25
    assert limits.beyond(near) == []


def test_too_few_studies_flag_nothing() -> None:
    count = 2 * (FEWEST - 1)
    limits = learn_measure_limits(study_names(count), rows(count))
    assert limits == MeasureLimits(FEWEST - 1, {}, count)
    assert limits.beyond(np.zeros((1, len(MEASURES)))) == []
    assert learn_measure_limits(study_names(count + 2), rows(count + 2)).limits


def test_measures_that_are_unknown_do_not_count() -> None:
    known, names = rows(200), study_names(200)
    half = np.vstack([known, np.full((100, len(MEASURES)), np.nan)])
    every = [*names, *(f"other{n}" for n in range(100))]
    assert learn_measure_limits(every, half).limits == learn_measure_limits(names, known).limits


def test_limits_survive_json_and_anything_else_is_none() -> None:
    limits = learn_measure_limits(study_names(200), rows(200))
    assert MeasureLimits.from_dict(json.loads(json.dumps(limits.to_dict()))) == limits
    others: tuple[object, ...] = (
        None,
        [],
        {"studies": 3, "limits": {}},
        {"studies": "many", "radiographs": 1, "limits": {}},
        {"studies": 3, "radiographs": 6, "limits": {"softer": "x"}},
    )
    for other in others:
        assert MeasureLimits.from_dict(other) is None
