"""How many labels does a vote need, in the order of `mura-search label` and in others? A simulation on open data.

    python -m experiments.label_order INDEX [--seeds N]

INDEX holds labelled radiographs with the bundled model's embeddings. Only patients count on whom no weight of the model
was trained. The simulation sees a label only when it asks for it. Half of the patients, drawn by a seed, are the pool,
the others the test. 10 studies of the pool, drawn at random, are labelled first, then 5 at a time, chosen by an order.
After each step the labelled studies vote on the test studies, and a logistic regression is fitted to their embeddings.
All orders have the same patients and the same first studies.

The criterion was written before the first figures: the order of `mura-search label` is that whose mean kappa of the
vote, over all steps up to half of the pool, is highest on seeds 0 to 39. It is then reported on seeds 40 to 199. Where
its interval against random labelling includes 0, no gain is claimed.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

from index.case import Case
from retrieval.decision.vote import vote_weights
from retrieval.encoding.bundle import digest_number
from retrieval.labelling import ORDERS, Teaching, teaching_order
from retrieval.searcher import Searcher

Floats = NDArray[np.float32]
FIRST, STEP = 10, 5  # studies labelled before the first choice, and by each choice
CHOSEN, REPORTED = range(40), range(40, 200)  # seeds


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
        means = np.stack([embeddings[own].mean(0) for own in rows])
        first = [cases[own[0]] for own in rows]
        return cls(
            np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32),
            np.array([probabilities[own].mean() for own in rows]),
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


def simulate(studies: Studies, seed: int, order: str) -> tuple[list[int], list[list[float]]]:
    """The numbers of labels, and the kappas of vote and regression on the test patients after each step."""
    rng = np.random.default_rng(seed)
    patients = rng.permutation(np.unique(studies.patients))
    in_pool = np.isin(studies.patients, patients[: len(patients) // 2])
    pool, test = rng.permutation(np.flatnonzero(in_pool)), np.flatnonzero(~in_pool)
    known, unknown = list(pool[:FIRST]), list(pool[FIRST:])
    counts, kappas = [], []
    while len(known) <= len(pool) // 2:
        own = studies.embeddings[known], studies.labels[known]
        asked = studies.embeddings[test]
        counts.append(len(known))
        kappas.append([cohen_kappa_score(studies.labels[test], p(*own, asked) > 0.5) for p in (votes, regression)])
        left = studies.embeddings[unknown]
        if order == "random":
            chosen = list(range(STEP))  # they are permuted already
        else:
            teaching = Teaching(left, studies.classifier[unknown], votes(*own, left), (left @ own[0].T).max(1))
            chosen = [ranked.row for ranked in teaching_order(teaching, order, most=STEP)]
        known += [unknown[row] for row in chosen]
        unknown = [study for row, study in enumerate(unknown) if row not in set(chosen)]
    return counts, kappas


def labels_needed(counts: Sequence[int], kappas: NDArray[np.float64], goal: float) -> str:
    """The smallest number of labels whose mean kappa over the seeds reaches the goal."""
    reached = np.flatnonzero(kappas.mean(0) >= goal)
    return str(counts[reached[0]]) if len(reached) else f"more than {counts[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--seeds", type=int, default=200)
    options = parser.parse_args()
    with Searcher.open(options.index) as searcher:
        studies = unseen_studies(searcher)
    patients, abnormal = len(set(studies.patients)), int(studies.labels.sum())
    print(f"{len(studies.labels)} studies of {patients} patients, {abnormal} abnormal")
    found: dict[str, tuple[list[int], NDArray[np.float64]]] = {}
    for order in ("random", *ORDERS):
        runs = [simulate(studies, seed, order) for seed in range(options.seeds)]
        steps = min(len(counts) for counts, _ in runs)
        found[order] = runs[0][0][:steps], np.array([kappas[:steps] for _, kappas in runs])
    base = found["random"][1]
    for name, seeds in (("seeds 0 to 39, to choose", CHOSEN), ("seeds 40 to 199, to report", REPORTED)):
        rows = [seed for seed in seeds if seed < options.seeds]
        goal = base[rows, :, 0].mean(0).max() if rows else 0.0
        print(f"{name}; the goal is the vote's kappa that random labelling reaches at last, {goal:.3f}")
        for order, (counts, kappas) in found.items() if rows else ():
            words = [f"{order}: labels for the goal {labels_needed(counts, kappas[rows, :, 0], goal)}"]
            for kind, reader in enumerate(("vote", "regression")):
                gains = (kappas[rows, :, kind] - base[rows, :, kind]).mean(1)
                draws = np.random.default_rng(0).choice(gains, (2000, len(gains))).mean(1)
                low, high = np.quantile(draws, (0.025, 0.975))
                mean = kappas[rows, :, kind].mean()
                words.append(f"{reader} {mean:.3f}, gain {gains.mean():+.3f} ({low:+.3f} to {high:+.3f})")
            print("; ".join(words))
    for order, (counts, kappas) in found.items():
        curve = kappas[[seed for seed in REPORTED if seed < options.seeds]].mean(0)
        print(order, *(f"{count}:{vote:.3f}/{own:.3f}" for count, (vote, own) in zip(counts, curve, strict=True)))


if __name__ == "__main__":
    main()
