"""An evaluation as one page of HTML: figures, curves, a map, and the worst errors with their pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.case import LABEL_NAMES
from index.hits import Hit
from retrieval.evaluation.evaluate import Evaluation
from retrieval.evaluation.metrics import METRICS
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.summary import AT_THRESHOLD
from retrieval.evaluation.tables import figure_rows
from retrieval.reports.evaluation_charts import (
    forest_chart,
    map_chart,
    precision_recall_chart,
    reliability_chart,
    roc_chart,
    sweep_chart,
)
from retrieval.reports.pictures import Picture, file_thumbnail
from retrieval.reports.templating import render
from retrieval.searcher import Searcher
from retrieval.wording import PREDICTORS, metric_title

__all__ = ["MOST", "evaluation_report", "wrong_predictions"]


MOST = 12  # studies, and pairs
_VIEWS, _NEIGHBOURS = 4, 5  # pictures of each


@dataclass(frozen=True, slots=True)
class _ErrorCard:
    """A study with a wrong prediction: its first radiographs, how many are hidden, and its nearest indexed studies."""

    prediction: StudyPrediction
    label: str
    words: str
    pictures: Sequence[Picture]
    hidden: int
    neighbours: Sequence[Picture]


def evaluation_report(evaluation: Evaluation, searcher: Searcher) -> str:
    """The report. It holds pictures of radiographs, of those evaluated and of those in the index."""
    both_labels = 0 < evaluation.abnormal_studies < evaluation.studies
    labels = np.array([case.label for case in searcher.index.cases()], np.int64)
    map_svg, shares = map_chart(evaluation, searcher.index.embeddings(), labels)
    wrong = wrong_predictions(evaluation.predictions)
    sections = [
        ("by-study", "By study"),
        ("operating-point", "For a wanted sensitivity"),
        ("near-duplicates", "Near duplicates"),
        ("by-image", "By radiograph"),
        ("by-part", "By body part"),
        ("curves", "Curves and calibration"),
        ("agreement", "Classifier and vote"),
        ("worklist", "As a worklist"),
        ("retrieval", "Retrieval"),
        ("findings", "Findings"),
        ("sweep", "Number of voting studies"),
        ("map", "Map of the embeddings"),
        ("errors", "Worst errors"),
        ("method", "Method"),
    ]
    shown: dict[str, object] = {
        "near-duplicates": evaluation.leakage.pairs,
        "operating-point": evaluation.operating_point,
        "findings": evaluation.findings,
    }
    hidden = [name for name, content in shown.items() if not content]
    return render(
        "evaluation.html",
        title=f"Evaluation of {evaluation.model.name}",
        sections=[section for section in sections if section[0] not in hidden],
        at_threshold=AT_THRESHOLD,
        reasons=_reasons(evaluation),
        evaluation=evaluation,
        metrics=METRICS,
        predictors=PREDICTORS,
        titles={name: metric_title(name) for name in [*METRICS, *evaluation.retrieval]},
        warnings=_warnings(evaluation),
        roc=roc_chart(evaluation) if both_labels else "",
        precision_recall=precision_recall_chart(evaluation) if both_labels else "",
        reliability={name: reliability_chart(evaluation, name) for name in ("classifier", "knn") if both_labels},
        forest=forest_chart(evaluation),
        sweep=sweep_chart(evaluation.sweep),
        map=map_svg,
        shares=sum(shares),
        near_duplicates=_near_duplicate_pictures(evaluation, searcher),
        wrong=len(wrong),
        errors=[_error_card(study, searcher) for study in wrong[:MOST]],
        most=MOST,
    )


def _reasons(evaluation: Evaluation) -> list[str]:
    """What is special about the intervals that are marked with a star, each once."""
    rows = figure_rows(evaluation)
    return list(dict.fromkeys(str(row["reason"]) for row in rows if row.get("reason") and row["value"] is not None))


def _warnings(evaluation: Evaluation) -> list[str]:
    warnings = [f"{note}." for note in evaluation.notes]
    if evaluation.leakage.studies:
        count = f"{len(evaluation.leakage.studies):,} of {evaluation.studies:,}"
        warnings.append(f"Studies with a near duplicate in the index: {count}. Figures without them stand below.")
    if evaluation.drift and evaluation.drift.sentence:
        warnings.append(f"{evaluation.drift.sentence}.")
    if evaluation.unfamiliar:
        why = ", ".join(f"{code} {count:,}" for code, count in evaluation.reasons.items())
        warnings.append(f"Studies unlike the index: {evaluation.unfamiliar:,} of {evaluation.studies:,} ({why}).")
    if evaluation.borderline:
        warnings.append(f"Borderline studies: {evaluation.borderline:,} of {evaluation.studies:,}.")
    if evaluation.skipped:
        warnings.append(f"Radiographs that could not be read, listed at the end: {len(evaluation.skipped):,}.")
    return warnings


def wrong_predictions(predictions: Sequence[StudyPrediction]) -> list[StudyPrediction]:
    """The studies that classifier or vote predicts wrong, those of the worst mean probability first."""
    wrong = [study for study in predictions if any(abnormal != study.label for abnormal in study.predictions)]
    return sorted(wrong, key=lambda study: (-abs(study.mean - study.label), study.study))


def _near_duplicate_pictures(evaluation: Evaluation, searcher: Searcher) -> list[Picture]:
    """The first MOST pairs, for the reader to judge: each evaluated radiograph, then its match in the index."""
    thumbnails = {
        case.case: thumbnail
        for prediction in evaluation.predictions
        for case, thumbnail in zip(prediction.cases, prediction.thumbnails, strict=True)
    }
    pictures = []
    for pair in evaluation.leakage.pairs[:MOST]:
        labels = ", different labels" if pair.across_labels else ""
        alike = f"match {pair.match:.3f}{f', {pair.change}' if pair.change else ''}{labels}"
        stored = (thumbnails[pair.cases[0]], searcher.index.thumbnail(pair.cases[1]))
        for side, case, study, data in zip(("evaluated", "indexed"), pair.cases, pair.studies, stored, strict=True):
            missing = "no picture of the " if data is None else ""
            alt = f"{missing}{side} radiograph {case} of study {study}"
            pictures.append(Picture(data, alt, (f"{side}: {study}", alike)))
    return pictures


def _error_card(study: StudyPrediction, searcher: Searcher) -> _ErrorCard:
    predictions = [
        f"{name} {probability:.3f}, predicts {LABEL_NAMES[abnormal]}{'' if abnormal == study.label else ' (wrong)'}"
        for name, probability, abnormal in zip(
            ("classifier", "vote"), (study.probability, study.vote_probability), study.predictions, strict=True
        )
    ]
    about = ", ".join(text for text in (study.part, study.lesion) if text)
    pictures = []
    for number, case in enumerate(study.cases[:_VIEWS], 1):
        words = f"radiograph {number}{f', {case.view}' if case.view else ''}"
        data = file_thumbnail(case.path)
        alt = f"{words} of study {case.study}{' can no longer be read' if data is None else ''}"
        pictures.append(Picture(data, alt, (words,)))
    return _ErrorCard(
        study,
        LABEL_NAMES[study.label],
        f"{f' ({about})' if about else ''}; {'; '.join(predictions)}.",
        pictures,
        len(study.cases) - len(pictures),
        [_neighbour(hit, searcher) for hit in study.neighbours[:_NEIGHBOURS]],
    )


def _neighbour(hit: Hit, searcher: Searcher) -> Picture:
    case, data = hit.case, searcher.index.thumbnail(hit.case.case)
    missing = "no picture of the " if data is None else ""
    alt = f"{missing}nearest radiograph of study {case.study}, labelled {case.label_name}"
    return Picture(data, alt, ("", f"similarity {hit.similarity:.3f}", case.study), case.label_name)
