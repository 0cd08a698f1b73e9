"""How many local studies bring an index back to its figures at another hospital?

    python -m experiments.local_calibration DATA [--model MODEL] [--out FILE.csv] [--changes blurred:0.9 ...]

DATA is a case table with the splits `train` and `valid`, such as fracatlas/fracatlas-upper-limb.csv. The index holds
`train`; the studies of `valid`, on which the model was not trained, stand for another hospital: one of
`evaluation.corruptions` is applied to all of their radiographs. N of these studies, of whole patients drawn at random,
calibrate the index as `mura-search index calibrate` does; the others are predicted before and after. This is repeated
--draws times (seeds 0, 1, ...), and the kappa of a draw is averaged over the draws. A draw whose local studies
`index calibrate` would refuse is drawn again.

MODEL is a bundle, by default the bundled model. Its split `valid` has 120 studies, so 100 local ones leave 20 to be
predicted, and 200 cannot be drawn: a number that leaves fewer than 15 is left out.

One line a change, number of local studies, predictor: kappa, specificity and AUROC of the unchanged studies, of the
changed ones before, and after, with the 10th and the 90th percentile of kappa over the draws, and how often a local
classifier was kept. Print the same table with --out as CSV; the encoded radiographs are kept in --cache.
"""

import argparse
import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.datasets.collection import Collection, read_collection
from retrieval.decision.fit_rules import learn_rules, study_votes
from retrieval.decision.leave_patient_out import ranked_queries
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.batches import Batch, encode_all
from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder
from retrieval.evaluation.metrics import Predictor, measure
from retrieval.images.corruptions import STRENGTHS, corrupt
from retrieval.indexing.build import bundle_rules
from retrieval.indexing.calibrate import FEWEST_PATIENTS, calibrated

CHANGES = ("blurred:medium", "shrunk:medium", "edge-enhanced:medium", "unsharp-masked:strong", "brighter:strong")
LOCAL = (50, 100, 200)
METRICS = ("kappa", "specificity", "auroc")
COLUMNS = (
    "change", "local", "predictor", "tested", "draws", "kept",
    *(f"{name}_{when}" for when in ("unchanged", "before", "after") for name in METRICS), "low", "high",
)  # fmt: skip

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Encoding:
    """Encoded radiographs: cases N, embeddings (N, D), logits (N,)."""

    cases: tuple[Case, ...]
    embeddings: NDArray[np.float32]
    logits: NDArray[np.float32]

    def of(self, patients: set[str]) -> LabelledStudies:
        rows = [row for row, case in enumerate(self.cases) if case.patient in patients]
        return LabelledStudies([self.cases[row] for row in rows], self.embeddings[rows], self.logits[rows])


def encoded(cases: Sequence[Case], encoder: Encoder, change: str, cache: Path) -> Encoding:
    """The radiographs of cases under a change, "" for none; from the cache if they were encoded before."""
    names = repr([case.case for case in cases]).encode()
    file = cache / f"{encoder.bundle.sha256[:8]}-{change.replace(':', '-') or 'unchanged'}-{zlib.crc32(names):08x}.npz"
    if not file.exists():
        parts: list[Batch] = []

        def store(batch: Batch) -> bool:
            parts.append(batch)
            return False

        encode_all(cases, encoder, store, change=partial(changed, change) if change else None)
        assert sum(len(batch.cases) for batch in parts) == len(cases), "a radiograph cannot be read"
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(
            file,
            embeddings=np.concatenate([batch.embeddings for batch in parts]),
            logits=np.concatenate([batch.logits for batch in parts]),
            digests=[case.digest for batch in parts for case in batch.cases],
        )
    with np.load(file) as stored:
        known = tuple(replace(case, digest=str(digest)) for case, digest in zip(cases, stored["digests"], strict=True))
        return Encoding(known, stored["embeddings"], stored["logits"])


def changed(change: str, case: Case, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    name, _, strength = change.partition(":")
    return corrupt(pixels, name, STRENGTHS.index(strength), zlib.crc32(f"{name} {case.case}".encode()))


def predict(index: Encoding, asked: LabelledStudies, rules: Rules) -> tuple[NDArray[np.int64], dict[str, Predictor]]:
    """The labels (S,) of the studies asked about, and what classifier and vote say of them."""
    teachers = asked.everyone()
    study_of, labels = teachers.study_of, teachers.labels
    ranked = ranked_queries(index.cases, index.embeddings, asked.embeddings, rules.k)
    vote = study_votes(ranked, study_of, rules.k, rules.temperature)
    probabilities = rules.probabilities(asked.logits, asked.embeddings)
    classifier = np.bincount(study_of, probabilities) / np.bincount(study_of)
    return labels, {
        "classifier": Predictor(classifier, classifier > rules.classifier_threshold),
        "vote": Predictor(vote, vote > rules.vote_threshold),
    }


def figures(index: Encoding, asked: LabelledStudies, rules: Rules) -> dict[str, dict[str, float]]:
    labels, predictors = predict(index, asked, rules)
    return {
        name: {metric: float(value[0]) for metric, value in measure(labels, predictor).items() if metric in METRICS}
        for name, predictor in predictors.items()
    }


def drawn(patients: Sequence[str], cases: Sequence[Case], wanted: int, seed: int) -> set[str] | None:
    """Patients with `wanted` studies together, about; None where `index calibrate` refuses them or too few are left."""
    studies: dict[str, set[str]] = {}
    for case in cases:
        studies.setdefault(case.patient, set()).add(case.study)
    chosen: set[str] = set()
    count = 0
    for number in np.random.default_rng(seed).permutation(len(patients)):
        if count >= wanted:
            break
        chosen.add(patients[number])
        count += len(studies[patients[number]])
    rest = [case for case in cases if case.patient not in chosen]
    sides = [{case.label for case in cases if case.patient in chosen}, {case.label for case in rest}]
    usable = len(chosen) >= FEWEST_PATIENTS and all(len(labels) == 2 for labels in sides)
    return chosen if usable and count >= wanted and len({case.study for case in rest}) >= 15 else None


@dataclass(frozen=True)
class Known:
    """An index with its rules, and the encoder that made it."""

    index: Encoding
    rules: Rules
    encoder: Encoder


def curve(known: Known, unchanged: Encoding, changed: Encoding, wanted: int, draws: int) -> list[dict[str, object]]:
    """The lines of the table for a hospital and a number of local studies; none where they cannot be drawn."""
    index, rules, encoder = known.index, known.rules, known.encoder
    patients = sorted({case.patient for case in changed.cases})
    draws_done: list[tuple[dict[str, dict[str, float]], ...]] = []
    kept = tested = 0
    for seed in range(20 * draws):
        if len(draws_done) == draws:
            break
        local = drawn(patients, changed.cases, wanted, seed)
        if local is None:
            continue
        rest = set(patients) - local
        learned = calibrated(index.cases, index.embeddings, changed.of(local), rules, encoder.appearance)
        kept += learned.rules.local is not None
        tested += len({case.study for case in changed.of(rest).cases})
        draws_done.append(
            (
                figures(index, unchanged.of(rest), rules),
                figures(index, changed.of(rest), rules),
                figures(index, changed.of(rest), learned.rules),
            )
        )
    if not draws_done:
        return []
    lines = []
    for name in ("classifier", "vote"):
        line: dict[str, object] = {"local": wanted, "predictor": name, "draws": len(draws_done)}
        line |= {"tested": round(tested / len(draws_done)), "kept": round(kept / len(draws_done), 3)}
        for number, when in enumerate(("unchanged", "before", "after")):
            for metric in METRICS:
                values = [result[number][name][metric] for result in draws_done]
                line[f"{metric}_{when}"] = round(float(np.nanmean(values)), 3)
        after = [result[2][name]["kappa"] for result in draws_done]
        line["low"], line["high"] = (round(float(np.nanpercentile(after, q)), 3) for q in (10, 90))
        lines.append(line)
    return lines


def index_rules(index: Encoding, encoder: Encoder) -> Rules:
    """The rules that `index build` learns."""
    studies = LabelledStudies(index.cases, index.embeddings, index.logits, encoder.bundle.seen())
    return learn_rules(studies, fallback=bundle_rules(encoder.bundle), appearance=encoder.appearance)


def split_cases(collection: Collection) -> tuple[list[Case], list[Case]]:
    cases = collection.divided().cases
    return [case for case in cases if case.split == "train"], [case for case in cases if case.split == "valid"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("runs/local-calibration"))
    parser.add_argument("--changes", nargs="*", default=list(CHANGES), help="NAME:STRENGTH, of the suite")
    parser.add_argument("--local", nargs="*", type=int, default=list(LOCAL))
    parser.add_argument("--draws", type=int, default=50)
    arguments = parser.parse_args()
    encoder = Encoder.open(arguments.model)
    train, valid = split_cases(read_collection(arguments.data))
    index = encoded(train, encoder, "", arguments.cache)
    unchanged = encoded(valid, encoder, "", arguments.cache)
    known = Known(index, index_rules(index, encoder), encoder)
    lines: list[dict[str, object]] = []
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for change in ["", *arguments.changes]:
        changed = encoded(valid, encoder, change, arguments.cache)
        for wanted in arguments.local:
            for line in curve(known, unchanged, changed, wanted, arguments.draws):
                lines.append({"change": change or "none", **line})
                print(f"| {' | '.join(str(lines[-1].get(name, '')) for name in COLUMNS)} |", flush=True)
    if arguments.out:
        with arguments.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
