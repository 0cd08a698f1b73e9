"""How many labels does a vote need, in the order of `mura-search label` and in others? A simulation on open data.

    python -m experiments.label_order INDEX [--seeds N]

INDEX holds labelled radiographs with the bundled model's embeddings. Only patients count on whom no weight of the model
was trained. The simulation sees a label only when it asks for it. Half of the patients, drawn by a seed, are the pool,
the others the test. 10 studies of the pool, drawn at random, are labelled first, then 5 at a time, chosen by an order.
After each step the labelled studies vote on the test studies, and a logistic regression is fitted to their embeddings.
All orders have the same patients and the same first studies.

The criterion was written before the first figures: the order of `mura-search label` is that whose mean kappa of the
vote, over all steps up to half of the pool, is highest on seeds 0 to 19. It is then reported on seeds 20 to 99. Where
its interval against random labelling includes 0, no gain is claimed.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from index.case import Case
from retrieval.decision.vote import vote_weights
from retrieval.encoding.bundle import digest_number
from retrieval.searcher import Searcher
from retrieval.worklist.label_queue import ORDERS, Teaching, teaching_order

Floats = NDArray[np.float32]
FIRST, STEP = 10, 5  # studies labelled before the first choice, and by each choice
CHOSEN, REPORTED = range(20), range(20, 100)  # seeds
FITS = 2  # the regression is fitted after every second step


@dataclass(frozen=True)
class Studies:
    """N labelled studies: mean embeddings (N, D) of unit length; probabilities, labels and patients (N,)."""

    embeddings: Floats
    classifier: NDArray[np.float64]
    labels: NDArray[np.int64]
    patients: NDArray[np.str_]

    @classmethod
    def of(cls, cases: Sequence[Case], embeddings: Floats, probabilities: NDArray[np.float64]) -> "Studies":
        names = sorted({case.study for case in cases})
        rows = [[row for row, case in enumerate(cases) if case.study == name] for name in names]
        means = np.stack([embeddings[study_rows].mean(0) for study_rows in rows])
        first = [cases[study_rows[0]] for study_rows in rows]
        return cls(
            np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32),
            np.array([probabilities[study_rows].mean() for study_rows in rows]),
            np.array([case.label for case in first]),
            np.array([case.patient for case in first]),
        )


def unseen_studies(searcher: Searcher) -> Studies:
    """The index's studies of patients on whom the model was not trained."""
    cases, seen = searcher.index.cases(), searcher.encoder.bundle.seen()
    trained = {case.patient for case in cases if digest_number(case.digest) in seen}
    kept = [row for row, case in enumerate(cases) if case.patient not in trained]
    probabilities = searcher.rules.probabilities(searcher.index.logits())
    return Studies.of([cases[row] for row in kept], searcher.index.embeddings()[kept], probabilities[kept])


def votes(labelled: Floats, labels: NDArray[np.int64], asked: Floats) -> NDArray[np.float64]:
    """The vote (N,) of the nearest of the labelled studies, as many as the root of their number, at temperature 0.1."""
    similarities = asked @ labelled.T
    nearest = np.argsort(-similarities, 1, kind="stable")[:, : max(3, round(len(labels) ** 0.5))]
    weights = vote_weights(np.take_along_axis(similarities, nearest, 1), 0.1)
    return np.asarray((weights * labels[nearest]).sum(1))


def regression(labelled: Floats, labels: NDArray[np.int64], asked: Floats) -> NDArray[np.float64]:
    """The probabilities (N,) of a logistic regression on the labelled studies; with one label alone, that label."""
    if len(np.unique(labels)) < 2:
        return np.full(len(asked), float(labels.mean()))
    fitted = LogisticRegression(C=10.0, class_weight="balanced", max_iter=500).fit(labelled, labels)
    return np.asarray(fitted.predict_proba(asked)[:, 1])


def kappa(labels: NDArray[np.int64], called: NDArray[np.bool_]) -> float:
    """Cohen's kappa of calls (N,); 0 if labels and calls are all alike."""
    agreed = float((labels == called).mean())
    expected = float(labels.mean() * called.mean() + (1 - labels.mean()) * (1 - called.mean()))
    return 0.0 if expected == 1 else (agreed - expected) / (1 - expected)


def simulate(studies: Studies, seed: int, order: str) -> tuple[list[int], list[float], list[float]]:
    """The numbers of labels, the kappas of the vote on the test patients, and at every FITS-th of the regression."""
    rng = np.random.default_rng(seed)
    patients = rng.permutation(np.unique(studies.patients))
    in_pool = np.isin(studies.patients, patients[: len(patients) // 2])
    pool, test = rng.permutation(np.flatnonzero(in_pool)), np.flatnonzero(~in_pool)
    known, unknown = list(pool[:FIRST]), list(pool[FIRST:])
    labels, asked = studies.labels[test], studies.embeddings[test]
    counts, of_vote, of_regression = list[int](), list[float](), list[float]()
    while len(known) <= len(pool) // 2:
        labelled = studies.embeddings[known], studies.labels[known]
        of_vote.append(kappa(labels, votes(*labelled, asked) > 0.5))
        if len(counts) % FITS == 0:
            of_regression.append(kappa(labels, regression(*labelled, asked) > 0.5))
        counts.append(len(known))
        left = studies.embeddings[unknown]
        if order == "random":
            chosen = list(range(STEP))  # they are permuted already
        else:
            teaching = Teaching(
                left, studies.classifier[unknown], votes(*labelled, left), (left @ labelled[0].T).max(1)
            )
            chosen = [ranked.row for ranked in teaching_order(teaching, order, most=STEP)]
        known += [unknown[row] for row in chosen]
        unknown = [study for row, study in enumerate(unknown) if row not in set(chosen)]
    return counts, of_vote, of_regression


def gain(kappas: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    """The mean kappa over steps and seeds (S, T), and its gain over `base` with a bootstrap interval over seeds."""
    gains = (kappas - base).mean(1)
    draws = np.random.default_rng(0).choice(gains, (2000, len(gains))).mean(1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{kappas.mean():.3f}, gain {gains.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def labels_needed(counts: Sequence[int], kappas: NDArray[np.float64], goal: float) -> str:
    """The smallest number of labels whose mean kappa over the seeds reaches the goal."""
    reached = np.flatnonzero(kappas.mean(0) >= goal)
    return str(counts[reached[0]]) if len(reached) else f"more than {counts[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--seeds", type=int, default=100)
    options = parser.parse_args()
    with Searcher.open(options.index) as searcher:
        studies = unseen_studies(searcher)
    patients, abnormal = len(set(studies.patients)), int(studies.labels.sum())
    print(f"{len(studies.labels)} studies of {patients} patients, {abnormal} abnormal")
    curves: dict[str, tuple[list[int], NDArray[np.float64], NDArray[np.float64]]] = {}
    for order in ("random", *ORDERS):
        runs = [simulate(studies, seed, order) for seed in range(options.seeds)]
        steps, fits = min(len(run[0]) for run in runs), min(len(run[2]) for run in runs)
        curves[order] = (
            runs[0][0][:steps],
            np.array([run[1][:steps] for run in runs]),
            np.array([run[2][:fits] for run in runs]),
        )
    _, base, base_of_regression = curves["random"]
    for name, seeds in (("seeds 0 to 19, to choose", CHOSEN), ("seeds 20 to 99, to report", REPORTED)):
        rows = [seed for seed in seeds if seed < options.seeds]
        if not rows:
            continue
        goal = base[rows].mean(0).max()
        print(f"{name}; the goal is the highest kappa of the vote that random labelling reaches, {goal:.3f}")
        for order, (counts, of_vote, of_regression) in curves.items():
            print(
                f"{order}: labels for the goal {labels_needed(counts, of_vote[rows], goal)}; "
                f"vote {gain(of_vote[rows], base[rows])}; "
                f"regression {gain(of_regression[rows], base_of_regression[rows])}"
            )
    for order, (counts, of_vote, _) in curves.items():
        curve = of_vote[[seed for seed in REPORTED if seed < options.seeds]].mean(0)
        print(order, *(f"{count}:{value:.3f}" for count, value in zip(counts, curve, strict=True)))


if __name__ == "__main__":
    main()
