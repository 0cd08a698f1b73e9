"""Drift by hand, against SciPy where it is installed, and without false alarms."""

from dataclasses import replace

import numpy as np
import pytest

from retrieval.decision.reference import Distribution, Reference
from retrieval.evaluation.drift import (
    FEWEST,
    DriftMonitor,
    Scored,
    _holm,
    drift_between,
    ks_chance,
    ks_statistic,
    population_stability_index,
)
from retrieval.images.measures import MEASURES


def scored(values: np.ndarray, threshold: float = 0.5) -> list[Scored]:
    return [Scored(v, v, v, (v > threshold, v > threshold)) for v in map(float, values)]


def reference(values: np.ndarray) -> Reference:
    own = Distribution.of(values)
    share = float((values > 0.5).mean())
    return Reference(
        len(values), dict.fromkeys(("classifier", "knn", "similarity"), own), {"classifier": share, "knn": share}
    )


def test_the_index_of_equal_shares_is_nought() -> None:
    values = np.arange(100) / 100
    assert population_stability_index(values, values) == pytest.approx(0)


def test_the_index_by_hand() -> None:
    """Of 100 values 10 lie in each bin; of the others 50 lie in the first and 50 in the last."""
    values = np.arange(100) / 100
    other = np.repeat([0.0, 0.99], 50)
    p, low, high = 10.5 / 105, 0.5 / 105, 50.5 / 105
    by_hand = 8 * (low - p) * np.log(low / p) + 2 * (high - p) * np.log(high / p)
    assert population_stability_index(values, other) == pytest.approx(by_hand)


def test_ties_in_the_reference_make_fewer_bins() -> None:
    assert population_stability_index(np.zeros(50), np.zeros(50)) == pytest.approx(0)
    assert population_stability_index(np.zeros(50), np.ones(50)) == pytest.approx(0)  # one bin holds everything
    assert population_stability_index(np.repeat([0.0, 1.0], 25), np.ones(50)) > 1


@pytest.mark.parametrize(("n", "m"), [(20, 30), (100, 40), (500, 500)])
@pytest.mark.parametrize("shift", [0.0, 0.2, 0.6])
def test_the_test_agrees_with_scipy(n: int, m: int, shift: float) -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    generator = np.random.default_rng(n + m)
    one, other = generator.normal(0, 1, n), generator.normal(shift, 1, m)
    exact = stats.ks_2samp(one, other, method="exact")
    statistic = ks_statistic(one, other)
    assert statistic == pytest.approx(exact.statistic)
    assert ks_chance(statistic, n, m) == pytest.approx(exact.pvalue, abs=0.04)


def test_chances_are_corrected_by_holm() -> None:
    assert _holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert _holm([0.9, 0.8]) == [1.0, 1.0]


def test_alike_scores_give_no_alarm() -> None:
    """Of 400 draws from the reference itself fewer than 1 % may part."""
    generator = np.random.default_rng(3)
    own = reference(generator.beta(2, 3, 300))
    alarms = sum(
        bool(drift.parted)
        for _ in range(400)
        if (drift := drift_between(own, scored(generator.beta(2, 3, 60)))) is not None
    )
    assert alarms <= 4


def test_scores_that_part_are_said_with_their_shares() -> None:
    generator = np.random.default_rng(4)
    own = reference(generator.beta(2, 4, 300))
    drift = drift_between(own, scored(generator.beta(9, 2, 138)))
    assert drift is not None
    assert drift.parted == ("classifier", "knn", "similarity")
    assert drift.sentence.startswith("The scores of these studies differ from those of the index: of 138 studies ")
    assert "are called abnormal by the classifier, of the indexed ones" in drift.sentence
    assert drift.to_dict()["parted"] == ["classifier", "knn", "similarity"]
    assert [row["score"] for row in drift.rows()] == ["classifier", "knn", "similarity"]


def test_measures_are_compared_beside_scores() -> None:
    """Softer radiographs of the same patients: the scores are alike, the sharpness is not."""
    generator = np.random.default_rng(6)
    scores = generator.beta(2, 3, 200)
    rows = generator.normal(0, 1, (200, len(MEASURES)))
    own = reference(scores).with_measures([f"s{n}" for n in range(200)], rows)
    asked = [
        replace(study, measures=dict(zip(MEASURES, row - 2 * (np.arange(len(MEASURES)) == 0), strict=True)))
        for study, row in zip(scored(scores), rows, strict=True)
    ]
    drift = drift_between(own, asked)
    assert drift is not None
    assert len(drift.comparisons) == 3 + len(MEASURES)
    assert drift.parted == (MEASURES[0],)
    assert f"They differ in: {MEASURES[0]} (PSI " in drift.sentence


def test_few_studies_conclude_nothing() -> None:
    own = reference(np.linspace(0, 0.4, 100))
    few = drift_between(own, scored(np.full(FEWEST - 1, 0.95)))
    assert few is not None
    assert (few.enough, few.parted, few.sentence) == (False, (), "")
    enough = drift_between(own, scored(np.full(FEWEST, 0.95)))
    assert enough is not None
    assert enough.parted


def test_without_a_reference_or_studies_there_is_none() -> None:
    assert drift_between(None, scored(np.ones(50))) is None
    assert drift_between(reference(np.ones(50)), []) is None


def test_a_reference_of_many_studies_keeps_their_quantiles() -> None:
    values = np.random.default_rng(5).random(5_000)
    own = Distribution.of(values)
    assert (own.count, len(own.values)) == (5_000, 201)
    assert own.values[100] == pytest.approx(np.median(values), abs=1e-3)
    stored = reference(values)
    assert Reference.from_dict(stored.to_dict()) == stored
    assert ks_statistic(own.values, values) < 0.01


@pytest.mark.parametrize("broken", [None, 3, {}, {"studies": 3, "scores": {"a": 1}, "abnormal": {}}])
def test_a_damaged_reference_is_none(broken: object) -> None:
    assert Reference.from_dict(broken) is None


def test_a_monitor_speaks_once() -> None:
    class Given:
        def __init__(self, value: float) -> None:
            self.classifier = self.knn = self
            self.familiarity = self
            self.probability = self.similarity = value
            self.abnormal = value > 0.5
            self.views = ()

    monitor, own = DriftMonitor(), reference(np.linspace(0, 0.4, 100))
    said = [monitor.add(Given(0.95), own) for _ in range(100)]  # type: ignore[arg-type]  # what an answer has of it
    assert [number for number, sentence in enumerate(said, 1) if sentence] == [30]
    assert monitor.drift is not None
    assert monitor.drift.studies == 100
    for _ in range(500):
        monitor.add(Given(0.2), own)  # type: ignore[arg-type]
    assert monitor.drift.studies == 500  # it remembers no more
