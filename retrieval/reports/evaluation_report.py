"""An evaluation as one page of HTML: figures, curves, a map, and the worst errors with their pictures."""

import numpy as np

from retrieval.evaluation.evaluate import Evaluation
from retrieval.evaluation.metrics import METRICS
from retrieval.reports.evaluation_charts import (
    PREDICTOR_NAMES,
    forest_chart,
    map_chart,
    precision_recall_chart,
    reliability_chart,
    roc_chart,
    sweep_chart,
)
from retrieval.reports.evaluation_gallery import MOST, error_cards, near_duplicate_pictures, wrong_predictions
from retrieval.reports.templating import render
from retrieval.searcher import Searcher

__all__ = ["evaluation_report"]

_TITLES = {
    "kappa": "Cohen's kappa",
    "sensitivity": "sensitivity (recall)",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_error": "expected calibration error",
    "map_at_r": "mAP at R",
}


def evaluation_report(evaluation: Evaluation, searcher: Searcher) -> str:
    """The report. It holds pictures of radiographs, of those evaluated and of those in the index."""
    both_labels = 0 < evaluation.abnormal_studies < evaluation.studies
    labels = np.array([case.label for case in searcher.index.cases()], np.int64)
    map_svg, shares = map_chart(evaluation, searcher.index.embeddings(), labels)
    wrong = wrong_predictions(evaluation.predictions)
    sections = [
        ("by-study", "By study"),
        ("near-duplicates", "Near duplicates"),
        ("by-image", "By radiograph"),
        ("by-part", "By body part"),
        ("curves", "Curves and calibration"),
        ("agreement", "Classifier and vote"),
        ("worklist", "As a worklist"),
        ("retrieval", "Retrieval"),
        ("sweep", "Number of voting studies"),
        ("map", "Map of the embeddings"),
        ("errors", "Worst errors"),
        ("method", "Method"),
    ]
    return render(
        "evaluation.html",
        title=f"Evaluation of {evaluation.model.name}",
        sections=[section for section in sections if evaluation.leakage.pairs or section[0] != "near-duplicates"],
        evaluation=evaluation,
        metrics=METRICS,
        predictors=PREDICTOR_NAMES,
        titles={name: _title(name) for name in [*METRICS, *evaluation.retrieval]},
        warnings=_warnings(evaluation),
        roc=roc_chart(evaluation) if both_labels else "",
        precision_recall=precision_recall_chart(evaluation) if both_labels else "",
        reliability={name: reliability_chart(evaluation, name) for name in ("classifier", "knn") if both_labels},
        forest=forest_chart(evaluation),
        sweep=sweep_chart(evaluation.sweep),
        map=map_svg,
        shares=sum(shares),
        near_duplicates=near_duplicate_pictures(evaluation, searcher),
        wrong=len(wrong),
        errors=error_cards(wrong, searcher),
        most=MOST,
    )


def _warnings(evaluation: Evaluation) -> list[str]:
    warnings = [f"{note}." for note in evaluation.notes]
    if evaluation.leakage.studies:
        count = f"{len(evaluation.leakage.studies):,} of {evaluation.studies:,}"
        warnings.append(f"Studies with a near duplicate in the index: {count}. Figures without them stand below.")
    if evaluation.unfamiliar:
        warnings.append(f"Studies unlike the index: {evaluation.unfamiliar:,} of {evaluation.studies:,}.")
    if evaluation.skipped:
        warnings.append(f"Radiographs that could not be read, listed at the end: {len(evaluation.skipped):,}.")
    return warnings


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " "))
