import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest  # type: ignore[import-untyped]  # no stubs
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from retrieval.evaluation.metrics import (
    BINS,
    METRICS,
    Bootstrap,
    Confusion,
    Predictor,
    bin_of,
    bootstrap,
    bootstrap_ratios,
    confusion,
    measure,
)


def reader(scores: list[float], threshold: float = 0.5) -> Predictor:
    values = np.array(scores, np.float64)
    return Predictor(values, values > threshold)


def test_by_hand() -> None:
    # 4 abnormal, 6 normal; calls: 3 of 4 and 2 of 6. Accuracy 7/10; chance (4*5 + 6*5)/100 = 0.5; kappa 0.2/0.5.
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    calls = reader([0.9, 0.8, 0.7, 0.1, 0.9, 0.6, 0.2, 0.2, 0.1, 0.0])
    found = {name: float(value[0]) for name, value in measure(labels, calls).items()}
    # AUROC: 0.9 beats 5.5 of 6, 0.8 and 0.7 beat 5, 0.1 beats 1.5: 17 of 24 pairs.
    # Average precision: at 0.9 1 of 2 are abnormal, at 0.8 2 of 3, at 0.7 3 of 4, at 0.1 4 of 9 (the normal 0.1 ties).
    # Squared errors: 0.01 + 0.04 + 0.09 + 0.81, and 0.81 + 0.36 + 0.04 + 0.04 + 0.01 + 0. In the bin up to 0.1 lie 0.1
    # (abnormal), 0.1 and 0.0; the bin up to 0.9 has 0.9 and 0.9 of which one is abnormal; the others are 0.8, 0.7, 0.6
    # alone and 0.2 twice.
    wanted = {
        "kappa": 0.4,
        "accuracy": 0.7,
        "error": 0.3,
        "sensitivity": 0.75,
        "specificity": 4 / 6,
        "precision": 0.6,
        "npv": 4 / 5,
        "f1": 6 / 9,
        "auroc": 17 / 24,
        "average_precision": (1 / 2 + 2 / 3 + 3 / 4 + 4 / 9) / 4,
        "brier": 0.221,
        "calibration_error": (abs(0.2 - 1) + abs(1.8 - 1) + 0.2 + 0.3 + 0.6 + 0.4) / 10,
    }
    assert found == pytest.approx(wanted)
    assert list(found) == list(METRICS)
    assert confusion(labels, calls.predictions) == Confusion(3, 1, 2, 4)


# Few distinct scores, so that ties are common; weights from 0, as resampling gives them.
items = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.integers(0, 3)),
    min_size=2,
    max_size=30,
).filter(lambda rows: {row[0] for row in rows if row[2]} == {0, 1})


@given(items)
def test_weighted_figures_are_those_of_scikit_learn(rows: list[tuple[int, float, int]]) -> None:
    labels, scores, counts = (np.array(column) for column in zip(*rows, strict=True))
    found = measure(labels, reader(list(scores)), counts[:, None].astype(np.float64))
    labels, scores = np.repeat(labels, counts), np.repeat(scores, counts)
    calls = scores > 0.5
    shares, means = calibration_curve(labels, scores, n_bins=BINS)
    sizes = [count for count in np.bincount(bin_of(scores), minlength=BINS) if count]
    wanted = {
        "kappa": cohen_kappa_score(labels, calls),
        "accuracy": accuracy_score(labels, calls),
        "error": 1 - accuracy_score(labels, calls),
        "sensitivity": recall_score(labels, calls),
        "specificity": recall_score(labels, calls, pos_label=0),
        "precision": precision_score(labels, calls, zero_division=np.nan),
        "npv": precision_score(labels, calls, pos_label=0, zero_division=np.nan),
        "f1": f1_score(labels, calls),
        "auroc": roc_auc_score(labels, scores),
        "average_precision": average_precision_score(labels, scores),
        "brier": brier_score_loss(labels, scores),
        "calibration_error": np.average(np.abs(shares - means), weights=sizes),
    }
    assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(wanted, nan_ok=True)
    (tn, fp), (fn, tp) = confusion_matrix(labels, calls)
    assert confusion(labels, calls) == Confusion(tp, fn, fp, tn)


def test_many_rounds_at_once_are_those_one_by_one() -> None:
    labels, _, scores = sample(80, 40)
    counts = np.random.default_rng(5).integers(0, 4, (80, 6))
    together = measure(labels, reader(list(scores)), counts.astype(np.float32))
    for r in range(6):
        again = np.repeat(np.arange(80), counts[:, r])
        alone = measure(labels[again], reader(list(scores[again])))
        for metric in METRICS:
            assert together[metric][r] == pytest.approx(alone[metric][0], rel=1e-5)


def test_scores_that_are_no_probabilities_have_no_calibration() -> None:
    found = bootstrap(np.array([0, 1]), ["a", "b"], {"x": reader([-3.0, 2.0], threshold=0)}, rounds=5).estimates()["x"]
    assert found["auroc"].value == 1
    for metric in ("brier", "calibration_error"):
        assert (found[metric].value, found[metric].low) == (None, None)
        assert "not probabilities" in found[metric].reason


@pytest.mark.parametrize(
    ("labels", "undefined"),
    [
        ([1, 1, 1], {"kappa", "specificity", "auroc"}),
        ([0, 0, 0], {"kappa", "sensitivity", "auroc", "average_precision"}),
        ([1], {"kappa", "specificity", "auroc", "precision"}),
        ([], set(METRICS)),
    ],
)
def test_what_a_label_alone_cannot_tell_is_none_with_a_reason(labels: list[int], undefined: set[str]) -> None:
    scores = [0.1, 0.6, 0.7][: len(labels)]
    patients = ["a", "b", "c"][: len(labels)]
    found = bootstrap(np.array(labels, np.int64), patients, {"x": reader(scores)}, rounds=50)
    estimates = found.estimates()["x"]
    assert {name for name, estimate in estimates.items() if estimate.value is None} == undefined
    assert all(estimates[name].reason and estimates[name].low is None for name in undefined)
    assert found.difference("x", "x", "auroc").value is None
    json.dumps({name: estimate.to_dict() for name, estimate in estimates.items()}, allow_nan=False)


def naive_bootstrap(labels: np.ndarray, patients: list[str], scores: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """The same by a plain loop over rounds, patients and scikit-learn, with draws of its own."""
    generator = np.random.default_rng(99)
    names = sorted(set(patients))
    members = {name: [i for i, patient in enumerate(patients) if patient == name] for name in names}
    found: dict[str, list[float]] = {"kappa": [], "auroc": []}
    for _ in range(rounds):
        drawn = [i for name in generator.choice(names, len(names)) for i in members[name]]
        found["kappa"].append(cohen_kappa_score(labels[drawn], scores[drawn] > 0.5))
        found["auroc"].append(roc_auc_score(labels[drawn], scores[drawn]))
    return found


def sample(studies: int, patients: int, seed: int = 0) -> tuple[np.ndarray, list[str], np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=studies)
    owners = [f"patient{i:05}" for i in generator.integers(patients, size=studies)]
    scores = np.clip(0.5 + 0.2 * (labels - 0.5) + 0.2 * generator.standard_normal(studies), 0, 1).round(2)
    return labels, owners, scores


def test_intervals_are_those_of_a_plain_loop_over_patients() -> None:
    labels, owners, scores = sample(60, 15)
    naive = naive_bootstrap(labels, owners, scores, 400)
    found = bootstrap(labels, owners, {"x": reader(list(scores))}, rounds=4000).estimates()["x"]
    for metric, rounds in naive.items():
        low, high = np.quantile(rounds, (0.025, 0.975))
        estimate = found[metric]
        assert estimate.low == pytest.approx(low, abs=0.12 * (high - low))
        assert estimate.high == pytest.approx(high, abs=0.12 * (high - low))
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.value is not None
        assert estimate.low < estimate.value < estimate.high


def test_chunks_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, owners, scores = sample(40, 40)

    def rounds_of(chunk_bytes: int) -> Bootstrap:
        monkeypatch.setattr("retrieval.evaluation.metrics._CHUNK_BYTES", chunk_bytes)
        return bootstrap(labels, owners, {"x": reader(list(scores))}, rounds=1003)

    small, one = rounds_of(40 * 4 * 100), rounds_of(40 * 4 * 2000)
    for metric in METRICS:
        assert len(small.rounds["x"][metric]) == 1003
        assert small.rounds["x"][metric] == pytest.approx(one.rounds["x"][metric], rel=1e-5, nan_ok=True)


def test_seed_fixes_the_interval() -> None:
    labels, owners, scores = sample(40, 20)
    one, same, other = (
        bootstrap(labels, owners, {"x": reader(list(scores))}, rounds=500, seed=seed).estimates()["x"]["auroc"]
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other
    assert one.value == other.value


def test_a_paired_difference_of_a_reader_with_itself_is_exactly_zero() -> None:
    labels, owners, scores = sample(50, 30)
    found = bootstrap(labels, owners, {"x": reader(list(scores)), "y": reader(list(scores))}, rounds=300)
    difference = found.difference("x", "y", "kappa")
    assert (difference.value, difference.low, difference.high) == (0.0, None, None)
    assert difference.reason == "no interval: all resamplings give the same figure"


def test_a_paired_difference_is_narrower_than_unpaired_ones_of_like_readers() -> None:
    labels, owners, scores = sample(200, 100)
    near = np.where(np.arange(200) % 10 == 0, 1 - scores, scores)
    found = bootstrap(labels, owners, {"x": reader(list(scores)), "y": reader(list(near))}, rounds=2000)
    difference, x = found.difference("x", "y", "kappa"), found.estimates()["x"]["kappa"]
    assert difference.low is not None
    assert difference.high is not None
    assert x.low is not None
    assert x.high is not None
    assert difference.high - difference.low < x.high - x.low


def test_one_patient_gives_a_value_without_interval() -> None:
    found = bootstrap(np.array([0, 1]), ["a", "a"], {"x": reader([0.1, 0.9])}, rounds=10).estimates()["x"]["auroc"]
    assert (found.value, found.low, found.high) == (1.0, None, None)
    assert "one patient" in found.reason


def test_rounds_without_a_label_are_left_out_and_counted() -> None:
    # Two patients of one label each: a round draws both of them, or one label alone, with chance 1/2.
    found = bootstrap(np.array([0, 1]), ["a", "b"], {"x": reader([0.1, 0.9])}, rounds=1000).estimates()["x"]["auroc"]
    assert (found.value, found.low, found.high) == (1.0, None, None)  # a round of both has an AUROC of 1
    found = bootstrap(np.array([0, 1, 1]), ["a", "b", "c"], {"x": reader([0.5, 0.9, 0.1])}, rounds=1000).estimates()[
        "x"
    ]["auroc"]
    assert (found.low, found.high) == (0, 1)
    left = float(found.reason.split()[4])
    assert 0.27 < left < 0.39  # a alone with chance 1/27, and no a with chance 8/27


@pytest.mark.parametrize(
    ("labels", "wrong", "metric", "value", "counted"),
    [
        ([1, 0, 0, 0], [], "sensitivity", 1, 1),
        ([1, 1, 1, 0], [], "sensitivity", 1, 3),
        ([1, 0], [0, 1], "sensitivity", 0, 1),
        ([1, 0, 0], [], "specificity", 1, 2),
        ([1, 0, 0, 0], [], "accuracy", 1, 4),
        ([1, 0, 0, 0], [], "error", 0, 4),
        ([1, 0, 0], [], "precision", 1, 1),
        ([1, 0, 0], [], "npv", 1, 2),
        ([1], [], "sensitivity", 1, 1),
    ],
)
def test_a_share_that_no_round_changes_has_its_exact_interval(
    labels: list[int], wrong: list[int], metric: str, value: int, counted: int
) -> None:
    scores = [0.9 if label ^ (item in wrong) else 0.1 for item, label in enumerate(labels)]
    patients = [f"p{item}" for item in range(len(labels))]
    estimates = bootstrap(np.array(labels), patients, {"x": reader(scores)}, rounds=200).estimates()["x"]
    exact = binomtest(value * counted, counted).proportion_ci(method="exact")
    found = estimates[metric]
    assert (found.value, found.low, found.high) == pytest.approx((value, exact.low, exact.high))
    assert found.reason.startswith(f"exact interval for {counted} patient")
    assert estimates["auroc"].low is None
    assert estimates["brier"].low is None


def test_patients_count_once_for_an_exact_interval() -> None:
    estimates = bootstrap(np.ones(6, np.int64), ["a", "a", "a", "b", "b", "b"], {"x": reader([0.9] * 6)}, rounds=50)
    assert estimates.estimates()["x"]["sensitivity"].low == pytest.approx(0.025**0.5)


def test_ratios_over_patients() -> None:
    # The patients' totals are 0 of 2 and 2 of 2: the mean of a round is 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    ones, patients = np.ones(4), ["a", "a", "b", "b"]
    shares = np.array([0.0, 0.0, 1.0, 1.0])
    figures = {"mean": (shares, ones), "of b": (shares, shares), "of none": (shares, 0 * ones)}
    found = bootstrap_ratios(figures, patients, chances={"mean": 0.25}, rounds=2000)
    mean, of_b, of_none = found["mean"], found["of b"], found["of none"]
    assert (mean.value, mean.low, mean.high, mean.chance) == (0.5, 0.0, 1.0, 0.25)
    assert (of_b.value, of_b.low, of_b.high, of_b.chance) == (1.0, 0.025, 1.0, None)  # of one patient
    assert of_none.value is None
    assert bootstrap_ratios({"mean": (np.empty(0), np.empty(0))}, [])["mean"].value is None
