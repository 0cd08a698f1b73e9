import dataclasses
import json

import numpy as np
import pytest

from index.case import Case
from retrieval.decision.fit_rules import learn_rules
from retrieval.decision.leave_patient_out import ranked_studies
from retrieval.decision.rules import DEFAULTS, Rules
from retrieval.decision.tail_limit import tail_limit
from retrieval.decision.teachers import LabelledStudies

Arrays = tuple[list[Case], np.ndarray, np.ndarray]


def unit(vectors: np.ndarray) -> np.ndarray:
    rows: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return rows


def collection(studies: int = 120, seed: int = 0, spread: float = 0.6) -> Arrays:
    """Studies of one to three views around one centre for each label, some patients with two studies."""
    generator = np.random.default_rng(seed)
    cases: list[Case] = []
    vectors, logits = [], []
    for study in range(studies):
        label = int(generator.random() < 0.4)
        centre = np.array([1.0, 0.4 if label else -0.4, 0, 0]) + spread * generator.standard_normal(4) / 2
        for view in range(int(generator.integers(1, 4))):
            name = f"s{study:03}/{view}"
            cases.append(
                Case(name, f"s{study:03}", f"p{study // 2:03}", label, digest=f"{len(cases) + 1:016x}{0:048x}")
            )
            vectors.append(centre + 0.1 * generator.standard_normal(4))
            logits.append(2 * label - 1 + generator.standard_normal() * 2)
    return cases, unit(np.array(vectors)), np.array(logits, np.float32)


def naive_neighbours(cases: list[Case], embeddings: np.ndarray, row: int, k: int) -> list[tuple[float, str]]:
    best: dict[str, float] = {}
    for other, case in enumerate(cases):
        if case.patient != cases[row].patient:
            best[case.study] = max(best.get(case.study, -2), float(embeddings[row] @ embeddings[other]))
    return sorted(((s, study) for study, s in best.items()), key=lambda pair: (-pair[0], pair[1]))[:k]


@pytest.mark.parametrize("chunk_bytes", [1, 32 << 20])
def test_nearest_studies_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    monkeypatch.setattr("retrieval.decision.leave_patient_out._CHUNK_BYTES", chunk_bytes)
    cases, embeddings, _ = collection(30)
    rows = np.arange(0, len(cases), 3)
    ranked = ranked_studies(cases, embeddings, rows, 7)
    label_of = {case.study: case.label for case in cases}
    for row, found, found_labels in zip(rows, ranked.similarities, ranked.neighbour_labels, strict=True):
        wanted = naive_neighbours(cases, embeddings, int(row), 7)
        assert found == pytest.approx([similarity for similarity, _ in wanted], abs=1e-6)
        assert found_labels.tolist() == [label_of[study] for _, study in wanted]


def test_too_few_studies_are_filled_up() -> None:
    cases = [Case("a", "a", "p", 0), Case("b", "b", "p", 1), Case("c", "c", "q", 1)]
    ranked = ranked_studies(cases, unit(np.eye(3)), np.array([0, 2]), 5)
    similarities, labels = ranked.similarities, ranked.neighbour_labels
    assert similarities.shape == labels.shape == (2, 3)
    assert similarities[0].tolist() == [0.0, -np.inf, -np.inf]
    assert labels[0, 0] == 1
    assert similarities[1].tolist() == [0.0, 0.0, -np.inf]


def test_rules_are_learned_from_informative_studies() -> None:
    cases, embeddings, logits = collection()
    rules = learn_rules(LabelledStudies(cases, embeddings, logits))
    assert rules != DEFAULTS
    studies = len({case.study for case in cases})
    assert f"learned on {studies} studies" in rules.source
    assert 0 < rules.vote_threshold < 1
    # Logits are 2 y - 1 with noise of deviation 2: the posterior's slope is 2 * 1 / 4, its intercept ln(0.4 / 0.6).
    assert rules.slope == pytest.approx(0.5, abs=0.2)
    assert rules.intercept == pytest.approx(np.log(0.4 / 0.6), abs=0.3)


def test_the_familiarity_limit_lies_at_the_tail_of_least_familiar_views() -> None:
    cases, embeddings, logits = collection()
    nearest = {case.study: 2.0 for case in cases}
    for row, case in enumerate(cases):
        nearest[case.study] = min(nearest[case.study], naive_neighbours(cases, embeddings, row, 1)[0][0])
    limit = learn_rules(LabelledStudies(cases, embeddings, logits)).familiarity_limit
    assert limit == pytest.approx(-tail_limit(-np.array(list(nearest.values())), 0.005), abs=1e-6)


def test_separable_studies_give_a_threshold_between_the_labels() -> None:
    cases, embeddings, _ = collection(100, spread=0.01)
    logits = np.array([5.0 if case.label else -5.0 for case in cases], np.float32)
    rules = learn_rules(LabelledStudies(cases, embeddings, logits))
    assert rules.probabilities(np.array([-5.0, 5.0])).tolist() == pytest.approx([0, 1], abs=0.05)
    assert rules.classifier_threshold == pytest.approx(0.5, abs=0.02)
    assert rules.vote_threshold == pytest.approx(0.5, abs=0.1)


def test_processed_copies_teach_thresholds_but_not_familiarity() -> None:
    cases, embeddings, logits = collection()
    plain = learn_rules(LabelledStudies(cases, embeddings, logits))
    same = learn_rules(LabelledStudies(cases, embeddings, logits), copies=[(embeddings, logits)])
    assert same.slope == pytest.approx(plain.slope, abs=0.03)  # twice the studies weigh twice against the prior
    assert same.k == plain.k
    assert same.vote_threshold == pytest.approx(plain.vote_threshold)

    # Copies that look one step more abnormal: the boundary moves half a step, in logits and in votes.
    towards = unit(embeddings + np.array([0.4, 0.2, 0, 0], np.float32))
    moved = learn_rules(LabelledStudies(cases, embeddings, logits), copies=[(towards, logits + 2)])
    boundary, former = (-rules.intercept / rules.slope for rules in (moved, plain))
    assert boundary - former == pytest.approx(1, abs=0.5)
    assert moved.vote_threshold > plain.vote_threshold
    assert moved.familiarity_limit == plain.familiarity_limit
    assert "2 copies" in learn_rules(LabelledStudies(cases, embeddings, logits), copies=[(towards, logits)] * 2).source


def test_what_the_model_was_trained_on_does_not_teach_but_votes() -> None:
    cases, embeddings, logits = collection()
    trained = {int(case.digest[:16], 16) for case in cases if case.patient < "p020" and case.case.endswith("/0")}
    rules = learn_rules(LabelledStudies(cases, embeddings, logits, trained))
    teachers = {case.study for case in cases if case.patient >= "p020"}
    assert f"learned on {len(teachers)} studies" in rules.source
    # Without the trained-on studies among the voters the neighbours, and so the limit, would be others.
    rest = [row for row, case in enumerate(cases) if case.patient >= "p020"]
    alone = learn_rules(LabelledStudies([cases[row] for row in rest], embeddings[rest], logits[rest]))
    assert alone.familiarity_limit < rules.familiarity_limit
    assert alone.slope == rules.slope


def test_a_radiograph_under_two_patients_does_not_teach() -> None:
    cases, embeddings, logits = collection()
    twin = dataclasses.replace(cases[-1], case="twin", study="twin", patient="twin")
    twice = np.vstack([embeddings, embeddings[-1:]]), np.append(logits, logits[-1])
    rules = learn_rules(LabelledStudies([*cases, twin], *twice))
    others = {case.study for case in cases if case.patient != cases[-1].patient}
    assert f"learned on {len(others)} studies" in rules.source


@pytest.mark.parametrize("labels", ["few", "one label", "one patient", "nobody"])
def test_too_little_to_learn_from_gives_the_fallback(labels: str) -> None:
    cases, embeddings, logits = collection(40)
    if labels == "one label":
        cases = [dataclasses.replace(case, label=0) for case in cases]
    elif labels == "one patient":
        cases, embeddings, logits = collection(200)
        cases = [dataclasses.replace(case, patient="p", digest="") for case in cases]
    elif labels == "nobody":
        cases, embeddings, logits = [], embeddings[:0], logits[:0]
    fallback = Rules(k=9, source="the bundle's")
    assert learn_rules(LabelledStudies(cases, embeddings, logits), fallback=fallback) is fallback


def test_logits_that_say_the_contrary_keep_the_former_calibration() -> None:
    cases, embeddings, logits = collection()
    rules = learn_rules(LabelledStudies(cases, embeddings, -logits), fallback=Rules(slope=0.7, intercept=0.1))
    assert (rules.slope, rules.intercept) == (0.7, 0.1)
    assert "former calibration" in rules.source


def test_many_studies_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.decision.teachers.MOST", 80)
    cases, embeddings, logits = collection()
    assert "learned on 80 studies" in learn_rules(LabelledStudies(cases, embeddings, logits)).source


def test_rules_survive_json() -> None:
    cases, embeddings, logits = collection()
    rules = learn_rules(LabelledStudies(cases, embeddings, logits))
    assert Rules.from_dict(json.loads(json.dumps(rules.to_dict(), allow_nan=False))) == rules


@pytest.mark.parametrize(
    "change",
    [
        {"k": 0},
        {"temperature": 0.0},
        {"slope": -1.0},
        {"intercept": float("nan")},
        {"k": "5"},
        {"k": 5.0},
        {"extra": 1},
        {"k": None},
    ],
)
def test_rules_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="decision rules"):
        Rules.from_dict({**DEFAULTS.to_dict(), **change})
    values = DEFAULTS.to_dict()
    del values["k"]
    with pytest.raises(ValueError, match="decision rules"):
        Rules.from_dict(values)
