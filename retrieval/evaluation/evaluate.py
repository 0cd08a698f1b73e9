"""Evaluation of an index and its model on studies that neither has seen. Nothing is tuned here."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from index.case import Case
from index.frozen import FrozenReader
from index.reader import IndexReader
from retrieval.answer import IndexSource, ModelSource
from retrieval.datasets.collection import Collection
from retrieval.decision.kept_evaluation import EvaluatedFigure, KeptEvaluation
from retrieval.decision.operating_point import Thresholds, learn_thresholds
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.bundle import digest_number
from retrieval.encoding.picture_hash import picture_hashes, same_picture
from retrieval.errors import EvaluationError
from retrieval.evaluation.drift import Drift, Scored, drift_between
from retrieval.evaluation.finding_figures import FindingFigures, findings_of
from retrieval.evaluation.index_leakage import IndexLeakage, index_leakage
from retrieval.evaluation.predictions import StudyPrediction, predict_studies
from retrieval.evaluation.summary import (
    LesionFigures,
    OperatingPoint,
    Summary,
    SweepPoint,
    lesions_of,
    operating_point,
    summarise,
    sweep_of,
)
from retrieval.evaluation.tables import FIGURE_COLUMNS, STUDY_COLUMNS, figure_rows, study_row
from retrieval.evaluation.triage import Triage, triage
from retrieval.formats.csv_format import Row, Tabular
from retrieval.formats.data_frames import frame_of
from retrieval.formats.json_format import plain
from retrieval.images.radiograph import file_digest
from retrieval.notices import Code, Notice
from retrieval.searcher import Searcher
from retrieval.wording import PREDICTORS, estimate_text, listed, metric_title, sentence

if TYPE_CHECKING:
    from retrieval.formats.data_frames import DataFrame

__all__ = ["Evaluation", "evaluate", "frozen", "refuse_known", "refuse_trained", "require_comparable"]

SCHEMA = "mura-search/evaluation/1"
KEPT = ("auroc", "sensitivity", "specificity")


@dataclass(frozen=True, slots=True)
class Evaluation(Summary, Tabular):
    """A `Summary`, and what it rests on; as a table, a study a line. `operating_point` is None if none was asked for.

    `sweep` has the vote with each number of voting studies, `lesions` the figures by kind of lesion, `findings` how
    often the tally of findings is right, by finding, `leakage` the near duplicates in the index, with the figures of
    the studies without them. `drift` compares the scores with those of the index's own studies, None where it does not
    know them. `unfamiliar` is the number of studies unlike the index, `reasons` how many there are for each of
    `notices.Unlike`, `borderline` the number of studies of which a probability or the similarity is borderline, None
    where the rules do not say. `worklist` says how early abnormal studies come in a list sorted by each predictor's
    probability. `skipped` has (case, reason) of each unreadable radiograph; `predictions` has the other radiographs by
    study.
    """

    columns: ClassVar = STUDY_COLUMNS

    operating_point: OperatingPoint | None
    sweep: tuple[SweepPoint, ...]
    lesions: Mapping[str, LesionFigures]
    findings: Mapping[str, FindingFigures]
    worklist: Mapping[str, Triage]
    leakage: IndexLeakage
    drift: Drift | None
    unfamiliar: int
    reasons: Mapping[str, int]
    borderline: int | None
    skipped: tuple[tuple[str, str], ...]
    rules: Rules
    notices: tuple[Notice, ...]
    model: ModelSource
    index: IndexSource
    seconds: float
    predictions: tuple[StudyPrediction, ...] = field(repr=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notices as sentences."""
        return tuple(map(sentence, self.notices))

    @property
    def title(self) -> str:
        figures = (
            f"{metric_title(metric)} of the {PREDICTORS[name]} {estimate_text(self.study[name][metric])}"
            for metric in ("kappa", "auroc")
            for name in ("classifier", "knn")
        )
        return f"{self.studies:,} studies: {', '.join(figures)}."

    def figures_frame(self) -> "DataFrame":
        """All figures, one a line, as a DataFrame; `to_frame` has the studies."""
        return frame_of(figure_rows(self), FIGURE_COLUMNS.split())

    def rows(self) -> list[Row]:
        """The studies in the order of the collection."""
        return [study_row(study, self.leakage.indexed_cases(study.study)) for study in self.predictions]

    def keep(self, index: IndexReader) -> None:
        """Leave the main figures in the index that was evaluated, so that its answers show them. Raises OSError."""
        estimates = [(name, metric, self.study[name][metric]) for name in ("classifier", "knn") for metric in KEPT]
        KeptEvaluation(
            studies=self.studies,
            abnormal=self.abnormal_studies,
            made=datetime.now(UTC).date().isoformat(),
            generation=self.index.generation,
            figures=tuple(
                EvaluatedFigure(name, metric, estimate.value, estimate.low, estimate.high)
                for name, metric, estimate in estimates
            ),
            index=index.identity,
            model=self.model.sha256,
        ).write(index.path)

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/evaluation/1"; only the CSV table has single studies."""
        return {
            "schema": SCHEMA,
            **Summary.to_dict(self),
            "copies": self.leakage.to_dict(),
            "drift": None if self.drift is None else self.drift.to_dict(),
            "unfamiliar": self.unfamiliar,
            "reasons": dict(self.reasons),
            "borderline": self.borderline,
            "worklist": plain(self.worklist),
            "operating_point": plain(self.operating_point),
            "sweep": plain(self.sweep),
            "lesions": plain(self.lesions),
            "findings": plain(self.findings),
            "skipped": [{"case": case, "reason": reason} for case, reason in self.skipped],
            "rules": self.rules.to_dict(),
            "notes": list(self.notes),
            "notices": plain(self.notices),
            "model": plain(self.model),
            "index": plain(self.index),
            "seconds": self.seconds,
        }


def evaluate(
    searcher: Searcher,
    collection: Collection,
    *,
    sensitivity: float | None = None,
    rounds: int = 10_000,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Query each study of a collection as a user would, and measure the answers.

    sensitivity: also measure at thresholds that reach this sensitivity on the index's own studies.

    Raises EvaluationError where the index holds a patient or a file of the collection, where the model was trained on
    such a file, and where no radiograph can be read. Near duplicates of indexed radiographs are evaluated and reported,
    since only a person who sees them can decide whether they are copies.
    """
    started = time.perf_counter()
    searcher = frozen(searcher)
    require_comparable(searcher, collection)
    refuse_known(searcher, collection.cases)
    thresholds = None if sensitivity is None else _thresholds(searcher, sensitivity)
    predictions, skipped = predict_studies(searcher, collection, workers=workers, progress=progress)
    refuse_trained(searcher, predictions)
    if not predictions:
        reason = skipped[0][1] if skipped else "there are none"
        raise EvaluationError(f"no radiograph of {len(collection.cases)} could be read; the first error: {reason}")
    summary = summarise(predictions, rounds=rounds, seed=seed)
    return Evaluation(
        **{field.name: getattr(summary, field.name) for field in fields(summary)},
        operating_point=(
            operating_point(predictions, sensitivity, thresholds, rounds=rounds, seed=seed)
            if sensitivity is not None and thresholds
            else None
        ),
        sweep=sweep_of(predictions, searcher.rules.k, rounds=rounds, seed=seed),
        lesions=lesions_of(predictions, rounds=rounds, seed=seed),
        findings=findings_of(predictions, rounds=rounds, seed=seed),
        worklist=_worklist(predictions, rounds, seed),
        leakage=index_leakage(searcher.index, predictions, workers=workers, rounds=rounds, seed=seed),
        drift=drift_between(searcher.reference, [_scored(prediction) for prediction in predictions]),
        unfamiliar=sum(prediction.familiar is False for prediction in predictions),
        reasons=dict(Counter(code for prediction in predictions for code in prediction.codes).most_common()),
        borderline=(
            sum(bool(prediction.borderline) for prediction in predictions) if searcher.rules.borderline else None
        ),
        skipped=tuple(skipped),
        rules=searcher.rules,
        notices=_notices(searcher, collection),
        model=searcher.model,
        index=searcher.source,
        seconds=time.perf_counter() - started,
        predictions=tuple(predictions),
    )


def _scored(prediction: StudyPrediction) -> Scored:
    """The scores of a study, for comparison with those of the index."""
    return Scored(
        prediction.probability,
        prediction.vote_probability,
        prediction.similarity,
        prediction.predictions,
        prediction.measures,
    )


def require_comparable(searcher: Searcher, collection: Collection) -> None:
    """Raise EvaluationError for other site keys, and for an index that is empty or has one label alone."""
    hashed = searcher.site or searcher.layout == "dicom"
    if collection.layout == "dicom" and hashed and collection.site != searcher.site:
        raise EvaluationError(
            "the index and the collection name patients with different site keys, so it is unknown whether they share "
            "a patient; use the same site key for both"
        )
    if not len(searcher.index.embeddings()):
        raise EvaluationError(f"the index {searcher.index.path} is empty; add radiographs, or name another index")
    if len(searcher.labels) < 2:
        raise EvaluationError(
            f"all studies of the index {searcher.index.path} are {searcher.labels[0]}, so they do not vote; "
            "build an index with normal and abnormal studies"
        )


def _worklist(predictions: Sequence[StudyPrediction], rounds: int, seed: int) -> dict[str, Triage]:
    return triage(
        np.array([prediction.label for prediction in predictions]),
        [prediction.patient for prediction in predictions],
        {
            "classifier": np.array([prediction.probability for prediction in predictions]),
            "knn": np.array([prediction.vote_probability for prediction in predictions]),
            "mean": np.array([prediction.mean for prediction in predictions]),
        },
        rounds=rounds,
        seed=seed,
    )


def _thresholds(searcher: Searcher, sensitivity: float) -> Thresholds:
    index = searcher.index
    seen = searcher.encoder.bundle.seen()
    studies = LabelledStudies(index.cases(), index.embeddings(), index.logits(), seen)
    return learn_thresholds(studies, searcher.rules, sensitivity)


def frozen(searcher: Searcher) -> Searcher:
    """A searcher of the index as it is now: what is changed during an evaluation does not count."""
    if isinstance(searcher.index, FrozenReader):
        return searcher
    searcher.refresh()  # so that the rules are those of the frozen index
    return Searcher(searcher.encoder, FrozenReader(searcher.index), searcher.rules)


def refuse_known(searcher: Searcher, cases: Sequence[Case]) -> None:
    """Raise EvaluationError where the index holds a patient or file of the cases, or the model was trained on it."""
    _refuse_known_patients(searcher, cases)
    _refuse_known_radiographs(searcher, cases)


def _refuse_known_patients(searcher: Searcher, cases: Sequence[Case]) -> None:
    patients = {case.patient for case in cases}
    known = sorted(patients & {case.patient for case in searcher.index.cases()})
    if known:
        raise EvaluationError(
            f"{len(known)} of {len(patients)} patients are in the index ({listed(known)}): the figures would say "
            "nothing about new patients; evaluate another split, or build an index without these patients"
        )


def _refuse_known_radiographs(searcher: Searcher, cases: Sequence[Case]) -> None:
    indexed = {case.digest for case in searcher.index.cases()}
    trained = searcher.encoder.bundle.seen()
    in_index: list[str] = []
    in_training: list[str] = []
    for case in cases:
        try:
            digest = file_digest(Path(case.path))
        except OSError:
            continue  # reported when it is read
        if digest in indexed:
            in_index.append(case.case)
        if digest_number(digest) in trained:
            in_training.append(case.case)
    if in_index:
        raise EvaluationError(
            f"{len(in_index)} of {len(cases)} radiographs are in the index under another patient ({listed(in_index)}); "
            "remove them from the index or from the collection (the command audit lists duplicates)"
        )
    _refuse_trained_on(in_training, len(cases))


def refuse_trained(searcher: Searcher, predictions: Sequence[StudyPrediction]) -> None:
    """Raise EvaluationError where the model was trained on evaluated radiographs in other bytes, by their pictures."""
    pictures = [
        (case.case, thumbnail)
        for prediction in predictions
        for case, thumbnail in zip(prediction.cases, prediction.thumbnails, strict=True)
    ]
    hashes = picture_hashes(thumbnail for _, thumbnail in pictures)
    same = same_picture(hashes, searcher.encoder.bundle.seen_hashes())
    _refuse_trained_on([case for (case, _), seen in zip(pictures, same, strict=True) if seen], len(pictures))


def _refuse_trained_on(cases: Sequence[str], number: int) -> None:
    if cases:
        raise EvaluationError(
            f"the model was trained on {len(cases)} of {number} radiographs ({listed(cases)}): the figures would say "
            "nothing about new radiographs; evaluate other radiographs, or use another model"
        )


def _notices(searcher: Searcher, collection: Collection) -> tuple[Notice, ...]:
    notices = list(collection.notices)
    if collection.synthetic or searcher.source.synthetic:
        notices.append(Notice(Code.SYNTHETIC_FIGURES))
    if searcher.prefixes:
        notices.append(Notice(Code.MERGED_PATIENTS, detail={"names": ", ".join(searcher.prefixes)}))
    return tuple(notices)
