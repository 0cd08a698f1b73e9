"""The time that an evaluation's intervals take: 10,000 rounds over 175 studies, against a loop with scikit-learn.

    python benchmarks/bootstrap.py [--studies 175] [--radiographs 461] [--patients 160] [--parts 1] [--runs 5]

The predictions are drawn at random, as many as MURA's validation fingers. Ours is all that `mura-search evaluate`
computes from them: eleven metrics of three readers by study, by image and by part, differences, agreement, retrieval
and the sweep of k. The alternative is the obvious loop: each round draws patients, and computes kappa and AUROC of
two readers by study. It runs for a hundredth of the rounds, and the ratio takes a hundred times as much.
"""

import argparse
import time

import numpy as np
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from benchmarks._timing import alternate, machine, ratio, show
from index.case import Case
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.retrieval_metrics import SWEEP, retrieved
from retrieval.evaluation.summary import summarise, sweep_of

THRESHOLD = 0.5


def drawn(studies: int, radiographs: int, patients: int, parts: int) -> list[StudyPrediction]:
    """Random predictions whose classifier and vote are right more often than not."""
    rng = np.random.default_rng(0)
    views = 1 + rng.multinomial(radiographs - studies, np.full(studies, 1 / studies))
    readings = []
    for number, count in enumerate(views.tolist()):
        label = int(rng.random() < 0.5)

        def scores(label: int = label, count: int = count) -> tuple[float, ...]:
            values = 0.5 + 0.3 * (label - 0.5) + 0.25 * rng.standard_normal(count)
            return tuple(np.clip(values, 0, 1).tolist())

        patient, part = f"p{number * patients // studies}", f"part{number % parts}"
        readings.append(
            StudyPrediction(
                cases=tuple(Case(f"{number}/{view}", f"s{number}", patient, label, part) for view in range(count)),
                classifier=scores(),
                vote=scores(),
                classifier_threshold=THRESHOLD,
                vote_threshold=THRESHOLD,
                retrieved=retrieved(rng.random(1_935) < 0.5),
                embeddings=np.zeros((count, 2), np.float32),
                sweep={k: scores() for k in SWEEP},
            )
        )
    return readings


def loop(readings: list[StudyPrediction], rounds: int) -> None:
    labels = np.array([reading.label for reading in readings])
    readers = [np.array([getattr(r, name) for r in readings]) for name in ("probability", "vote_probability")]
    members: dict[str, list[int]] = {}
    for row, reading in enumerate(readings):
        members.setdefault(reading.patient, []).append(row)
    names = list(members)
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(rounds):
        rows = [row for name in rng.integers(len(names), size=len(names)) for row in members[names[name]]]
        for scores in readers:
            kappa = cohen_kappa_score(labels[rows], scores[rows] > THRESHOLD)
            estimates.append((kappa, roc_auc_score(labels[rows], scores[rows])))
    np.quantile(estimates, (0.025, 0.975), axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--studies", type=int, default=175)
    parser.add_argument("--radiographs", type=int, default=461)
    parser.add_argument("--patients", type=int, default=160)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    machine("numpy", "scikit-learn")
    readings = drawn(options.studies, options.radiographs, options.patients, options.parts)
    few = max(1, options.rounds // 100)

    def ours() -> float:
        started = time.perf_counter()
        summarise(readings, rounds=options.rounds)
        sweep_of(readings, 15, rounds=options.rounds)
        return time.perf_counter() - started

    def theirs() -> float:
        started = time.perf_counter()
        loop(readings, few)
        return time.perf_counter() - started

    samples, reference = alternate(options.runs, ours, theirs)
    print(f"\n{options.studies} studies, {options.radiographs} radiographs, {options.parts} part(s)")
    show(f"mura-search, everything, {options.rounds:,} rounds", samples, "s")
    show(f"loop with scikit-learn, kappa and AUROC of two readers, {few:,} rounds", reference, "s")
    whole = [seconds * options.rounds / few for seconds in reference]
    ratio(f"loop, were it run for all {options.rounds:,}, / mura-search", whole, samples)


if __name__ == "__main__":
    main()
