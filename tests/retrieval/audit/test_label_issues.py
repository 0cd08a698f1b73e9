"""Labels that look wrong: by hand, against plain loops, and by drawing lots."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.case import Case
from retrieval.audit.label_issues import LabelCheck, chance_of_error, check_labels
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import LabelledStudies

RULES = Rules(k=5, temperature=0.1)
Table = tuple[list[Case], np.ndarray, np.ndarray]


def table(studies: int = 60, seed: int = 0) -> Table:
    """Two clusters, one for each label; studies of one or two radiographs, patients of one or two studies."""
    dice = np.random.default_rng(seed)
    cases: list[Case] = []
    vectors, logits = [], []
    for study in range(studies):
        label = study % 2
        for view in range(1 + study % 3 // 2):
            name = f"s{study:02}-{view}"
            cases.append(
                Case(name, f"s{study:02}", f"p{study // 3:02}", label, digest=f"{len(cases) + 1:016x}{0:048x}")
            )
            vectors.append([1, 0.5 if label else -0.5, 0] + 0.1 * dice.standard_normal(3))
            logits.append(4 * label - 2)
    rows = np.array(vectors)
    return (
        cases,
        np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32),
        np.array(logits, np.float32),
    )


def turned(cases: list[Case], *studies: str) -> list[Case]:
    return [replace(case, label=1 - case.label) if case.study in studies else case for case in cases]


def test_turned_labels_lead_the_list() -> None:
    cases, embeddings, logits = table()
    check = check_labels(LabelledStudies(turned(cases, "s10", "s31"), embeddings, logits), RULES)
    assert check.calibrated
    assert check.studies == 60
    assert {one.study for one in check.issues} == {"s10", "s31"}
    for one in check.issues:
        assert one.chance > 0.5
        assert one.seconded
        assert all(near.label != one.label for near in one.neighbours)
    assert check.expected == pytest.approx(sum(one.chance for one in check.issues))
    first = next(one for one in check.issues if one.study == "s10")
    assert (first.label, first.patient) == ("abnormal", "p03")
    assert first.vote < 0.05
    assert first.other > 0.9
    assert first.classifier == pytest.approx(1 / (1 + np.exp(2)))


def test_votes_are_those_of_a_plain_loop() -> None:
    cases, embeddings, logits = table(24, seed=3)
    check = check_labels(LabelledStudies(cases, embeddings, logits), RULES, least=0.0)
    assert len(check.issues) == 24
    label_of = {case.study: case.label for case in cases}
    for one in check.issues:
        votes = []
        for row in [row for row, case in enumerate(cases) if case.study == one.study]:
            best: dict[str, float] = {}
            for other, case in enumerate(cases):
                if case.patient != one.patient:
                    best[case.study] = max(best.get(case.study, -2.0), float(embeddings[row] @ embeddings[other]))
            near = sorted(best.items(), key=lambda pair: -pair[1])[: RULES.k]
            weights = np.exp(np.array([similarity for _, similarity in near]) / RULES.temperature)
            votes.append(float(weights @ [label_of[study] for study, _ in near] / weights.sum()))
        assert one.vote == pytest.approx(np.mean(votes), abs=1e-5)
        parts = [near.weight for near in one.neighbours]
        assert parts == sorted(parts, reverse=True)
        assert sum(parts) <= 1 + 1e-9


def test_whoever_shares_a_radiograph_has_no_vote() -> None:
    """A study whose only near neighbour is its own copy under another patient, with the wrong label too."""
    cases, embeddings, logits = table()
    twin = next(row for row, case in enumerate(cases) if case.study == "s31")
    source = next(row for row, case in enumerate(cases) if case.study == "s10")
    embeddings[twin] = embeddings[source]
    wrong = turned(cases, "s10")
    owners = [("one" if case.study in ("s10", "s31") else case.patient) for case in wrong]
    rules = replace(RULES, k=1, temperature=0.01)
    fooled, told = (
        check_labels(LabelledStudies(wrong, embeddings, logits), rules, owners=own, least=0.0) for own in (None, owners)
    )

    def vote(check: LabelCheck) -> float:
        return next(one.vote for one in check.issues if one.study == "s10")

    assert vote(fooled) == pytest.approx(1)
    assert vote(told) == pytest.approx(0)


def test_the_classifier_has_no_say_where_it_learned() -> None:
    cases, embeddings, logits = table()
    learned = next(case for case in cases if case.study == "s10")
    seen = {int(learned.digest[:16], 16)}
    check = check_labels(LabelledStudies(turned(cases, "s10", "s31"), embeddings, logits, seen), RULES, least=0.0)
    by_study = {one.study: one for one in check.issues}
    silent = {study for study, one in by_study.items() if one.classifier is None}
    assert silent == {case.study for case in cases if case.patient == learned.patient}
    assert check.trained_on == len(silent)
    assert by_study["s10"].seconded is None
    assert by_study["s31"].seconded


def test_too_few_studies_are_not_calibrated() -> None:
    cases, embeddings, logits = table(12)
    check = check_labels(LabelledStudies(cases, embeddings, logits), RULES, least=0.0)
    assert not check.calibrated
    assert len(check.issues) == 12
    for one in check.issues:
        assert one.other == pytest.approx(1 - one.vote if one.label == "abnormal" else one.vote)


def test_nobody_to_ask() -> None:
    cases = [Case("a", "a", "p", 0), Case("b", "b", "p", 1)]
    check = check_labels(LabelledStudies(cases, np.eye(2, dtype=np.float32), np.zeros(2, np.float32)), RULES)
    assert (check.studies, check.issues, check.expected) == (0, (), 0)


def test_embeddings_that_say_nothing_accuse_nobody() -> None:
    cases, embeddings, logits = table()
    shuffled = embeddings[np.random.default_rng(5).permutation(len(embeddings))]
    assert check_labels(LabelledStudies(cases, shuffled, logits), RULES).issues == ()


@given(st.floats(0, 1), st.floats(0.01, 0.4))
def test_a_chance_lies_between_0_and_1_and_that_of_no_evidence_is_the_share(other: float, assumed: float) -> None:
    chance = float(chance_of_error(np.array(other), assumed))
    assert 0 < chance < 1
    assert float(chance_of_error(np.array(0.5), assumed)) == pytest.approx(assumed)


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_chances_are_borne_out_by_lots(share: float) -> None:
    """Truths drawn from known probabilities, labels turned at random: as many are wrong as the chances say."""
    dice = np.random.default_rng(7)
    truth_is_one = dice.uniform(0.02, 0.98, 1_000_000)
    truth = dice.random(len(truth_is_one)) < truth_is_one
    wrong = dice.random(len(truth)) < share
    written = truth ^ wrong
    says_one = truth_is_one * (1 - share) + (1 - truth_is_one) * share
    chances = chance_of_error(np.where(written, 1 - says_one, says_one), share)
    for some in np.array_split(np.argsort(chances), 8):
        assert wrong[some].mean() == pytest.approx(chances[some].mean(), rel=0.1, abs=0.001)


def test_the_order_does_not_depend_on_the_assumed_share() -> None:
    cases, embeddings, logits = table()
    studies = LabelledStudies(cases, embeddings, logits)
    checks = [check_labels(studies, RULES, assumed=share, least=0.0) for share in (0.01, 0.05)]
    orders = [[issue.study for issue in check.issues][:5] for check in checks]
    assert orders[0] == orders[1]
