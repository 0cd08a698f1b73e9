"""How predictions change if radiographs are acquired, processed or exported otherwise than those of the index.

Each study of a collection is queried as it is, and again under each of `images.corruptions` at each strength. The
index, the model and the decision rules stay as they are.
"""

import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from retrieval.answer import IndexSource, ModelSource
from retrieval.datasets.collection import Collection
from retrieval.errors import EvaluationError
from retrieval.evaluation.evaluate import frozen, refuse_known, refuse_trained, require_comparable
from retrieval.evaluation.metrics import Estimate, bootstrap_ratios
from retrieval.evaluation.predictions import StudyPrediction, predict_studies
from retrieval.evaluation.summary import figures_of
from retrieval.formats.csv_format import Row, Tabular
from retrieval.formats.json_format import plain
from retrieval.images.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from retrieval.searcher import Searcher

__all__ = ["FIGURES", "Condition", "Robustness", "condition_of", "predict_changed", "robustness"]

SCHEMA = "mura-search/robustness/1"
FIGURES = ("kappa", "auroc", "sensitivity", "specificity")
_PREDICTORS = ("classifier", "knn")


@dataclass(frozen=True, slots=True)
class Condition:
    """The figures of all studies under one corruption at one strength; both are "" for the studies as they are.

    `figures` has FIGURES by predictor ("classifier", "knn"). `unfamiliar` is the share of the studies that are called
    unlike the index; `reasons` says how often each reason was given for it.
    """

    corruption: str
    strength: str
    amount: float | None
    studies: int
    figures: Mapping[str, Mapping[str, Estimate]]
    unfamiliar: Estimate
    reasons: Mapping[str, int]

    def loss(self, plain_condition: "Condition", predictor: str) -> float | None:
        """How much kappa is lost against the studies as they are; None where a kappa is undefined."""
        here, there = self.figures[predictor]["kappa"].value, plain_condition.figures[predictor]["kappa"].value
        return None if here is None or there is None else there - here


@dataclass(frozen=True, slots=True)
class Robustness(Tabular):
    """The figures under all conditions, those of the studies as they are first; as a table, a condition a line."""

    columns: ClassVar = (
        "corruption strength amount studies unfamiliar unfamiliar_low unfamiliar_high "
        + " ".join(
            f"{predictor}_{figure}{end}"
            for predictor in _PREDICTORS
            for figure in FIGURES
            for end in ("", "_low", "_high")
        )
        + " reasons"
    )

    conditions: tuple[Condition, ...]
    skipped: tuple[tuple[str, str], ...]
    rounds: int
    seed: int
    model: ModelSource
    index: IndexSource
    seconds: float

    def rows(self) -> Iterator[Row]:
        for condition in self.conditions:
            estimates = {"unfamiliar": condition.unfamiliar} | {
                f"{predictor}_{figure}": condition.figures[predictor][figure]
                for predictor in _PREDICTORS
                for figure in FIGURES
            }
            cells: dict[str, object] = {}
            for name, estimate in estimates.items():
                cells |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            yield {
                "corruption": condition.corruption,
                "strength": condition.strength,
                "amount": condition.amount,
                "studies": condition.studies,
                **cells,
                "reasons": "; ".join(f"{reason}: {count}" for reason, count in condition.reasons.items()),
            }

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/robustness/1"."""
        skipped = [{"case": case, "reason": reason} for case, reason in self.skipped]
        return {"schema": SCHEMA, **plain(self), "skipped": skipped}


def robustness(
    searcher: Searcher,
    collection: Collection,
    *,
    names: Sequence[str] = tuple(CORRUPTIONS),
    strengths: Sequence[str] = STRENGTHS,
    rounds: int = 10_000,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Robustness:
    """Measure classifier, vote and familiarity on the studies as they are, and under each corruption.

    names and strengths: which of CORRUPTIONS and STRENGTHS. seed: of the corruptions and of the resampled patients.
    `progress` is called with (radiographs done, all, under all conditions). Raises EvaluationError as
    `evaluate.evaluate` does.
    """
    started = time.perf_counter()
    searcher = frozen(searcher)
    require_comparable(searcher, collection)
    refuse_known(searcher, collection.cases)
    wanted = [("", "")] + [(name, strength) for name in names for strength in strengths]
    each = len(collection.cases)
    conditions: list[Condition] = []
    skipped: list[tuple[str, str]] = []
    for done, (name, strength) in enumerate(wanted):
        predictions, unreadable = predict_changed(
            searcher,
            collection,
            name,
            strength,
            seed=seed,
            workers=workers,
            progress=partial(_report, progress, done * each, each * len(wanted)),
        )
        if not predictions:
            raise EvaluationError(f"no radiograph of {each} could be read; see what the command audit says of them")
        if not name:
            refuse_trained(searcher, predictions)
            skipped = unreadable
        conditions.append(condition_of(name, strength, predictions, rounds=rounds, seed=seed))
    return Robustness(
        conditions=tuple(conditions),
        skipped=tuple(skipped),
        rounds=rounds,
        seed=seed,
        model=searcher.model,
        index=searcher.source,
        seconds=time.perf_counter() - started,
    )


def predict_changed(
    searcher: Searcher,
    collection: Collection,
    name: str,
    strength: str,
    *,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[StudyPrediction], list[tuple[str, str]]]:
    """Predictions on the studies under one of CORRUPTIONS, or as they are where `name` is ""; and the unreadable."""
    change = partial(_changed, name, strength, seed) if name else None
    return predict_studies(searcher, collection, workers=workers, progress=progress, change=change)


def _report(progress: Callable[[int, int], None] | None, before: int, total: int, done: int, _: int) -> None:
    if progress:
        progress(before + done, total)


def _changed(name: str, strength: str, seed: int, case: Case, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    case_seed = seed + zlib.crc32(f"{name} {case.case}".encode())  # each radiograph has its own noise and text
    return corrupt(pixels, name, STRENGTHS.index(strength), case_seed)


def condition_of(
    name: str, strength: str, predictions: Sequence[StudyPrediction], *, rounds: int = 10_000, seed: int = 0
) -> Condition:
    """The figures of studies that were predicted under one corruption."""
    figures = figures_of(predictions, rounds=rounds, seed=seed).study
    unfamiliar = np.array([prediction.familiar is False for prediction in predictions], np.float64)
    share = bootstrap_ratios(
        {"unfamiliar": (unfamiliar, np.ones(len(predictions), np.bool_))},
        [prediction.patient for prediction in predictions],
        rounds=rounds,
        seed=seed,
    )
    # A reason's figures in parentheses differ from study to study.
    reasons = Counter(reason.partition(" (")[0] for prediction in predictions for reason in set(prediction.reasons))
    return Condition(
        corruption=name,
        strength=strength,
        amount=CORRUPTIONS[name].amounts[STRENGTHS.index(strength)] if name else None,
        studies=len(predictions),
        figures={predictor: {figure: figures[predictor][figure] for figure in FIGURES} for predictor in _PREDICTORS},
        unfamiliar=share["unfamiliar"],
        reasons=dict(reasons.most_common()),
    )
