"""An evaluation as CSV: one line a study, one line a figure, or MURA's file of predictions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from index.case import LABEL_NAMES
from retrieval.csv_format import call, number, table, yes
from retrieval.evaluation.evaluate import Evaluation
from retrieval.evaluation.metrics import Estimate
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.summary import PartFigures

__all__ = ["PREDICTORS", "figure_table", "prediction_table", "study_table"]

PREDICTORS = ("classifier", "vote", "mean")

_STUDY = (
    "study",
    "patient",
    "part",
    "label",
    "lesion",
    "radiographs",
    "classifier",
    "vote",
    "mean",
    "classifier_call",
    "vote_call",
    "mean_call",
    "agreement",
    "similarity",
    "familiar",
    "nearest_study",
    "nearest_label",
    "nearest_similarity",
    "indexed_copy",
)
_FIGURE = ("level", "part", "reader", "figure", "value", "low", "high", "chance", "reason")

Row = Sequence[object]


def study_table(evaluation: Evaluation) -> str:
    """One line a study, in the order of the collection; probabilities are of abnormality, similarities are cosines.

    `similarity` is that of the least familiar radiograph to its nearest indexed radiograph, `nearest_*` the nearest
    study, `indexed_copy` the indexed radiographs that are near duplicates of one of the study.
    """
    rows = (
        [*_study(study), "; ".join(evaluation.leakage.indexed_cases(study.study))] for study in evaluation.predictions
    )
    return table([_STUDY, *rows])


def figure_table(evaluation: Evaluation) -> str:
    """All figures of an evaluation, one a line; an empty part means all parts."""
    return table([_FIGURE, *_figures(evaluation)])


def prediction_table(studies: Sequence[StudyPrediction], layout: str, predictor: str = "classifier") -> str:
    """The input of MURA's official evaluation: `MURA-v1.1/valid/XR_WRIST/patient11185/study1_positive/,1` and so on.

    One line a study, no header, 1 for abnormal. predictor: one of PREDICTORS. A study of another layout, which has no
    such folder, is named by its own name.
    """
    rows = []
    for study in studies:
        folder = PurePosixPath(study.cases[0].case).parent
        name = f"MURA-v1.1/{folder}/" if layout == "mura" else study.study
        rows.append((name, int(_predictions(study)[predictor])))
    return table(rows)


def _study(study: StudyPrediction) -> Row:
    predictions = _predictions(study)
    nearest: Row = ("", "", "")
    if study.neighbours:
        hit = study.neighbours[0]
        nearest = (hit.case.study, hit.case.label_name, number(hit.similarity))
    return (
        study.study,
        study.patient,
        study.part,
        LABEL_NAMES[study.label],
        study.lesion,
        len(study.cases),
        *map(number, (study.probability, study.vote_probability, study.mean)),
        *(call(predictions[predictor]) for predictor in PREDICTORS),
        yes(predictions["classifier"] == predictions["vote"]),
        number(study.similarity),
        yes(study.familiar),
        *nearest,
    )


def _figures(evaluation: Evaluation) -> Iterator[Row]:
    """The rows of all figures. In some rows the predictor says which figures they are, such as "retrieval"."""
    yield from _levels("", evaluation)
    for part, figures in evaluation.parts.items():
        yield from _levels(part, figures)
    yield from _rows(("study", "", "knn minus classifier"), _plain(evaluation.difference))
    yield from _rows(("study", "", "retrieval"), _plain(evaluation.retrieval))
    yield from _rows(("study", "", "agreement"), evaluation.agreement.to_dict())
    for predictor, triage in evaluation.worklist.items():
        worklist = {f"worklist {name}": figure for name, figure in triage.to_dict().items()}
        yield from _rows(("study", "", predictor), worklist)
    if evaluation.leakage.without:
        yield from _levels("", evaluation.leakage.without, " without copies")
    for kind, lesions in evaluation.lesions.items():
        yield from _rows(("study", "", f"retrieval of {kind}"), _plain(lesions.retrieval))
        for predictor, estimate in lesions.sensitivity.items():
            yield from _rows(("study", "", predictor), {f"sensitivity to {kind}": estimate.to_dict()})
    for point in evaluation.sweep:
        yield from _rows(("study", "", f"knn with k {point.k}"), _plain({"kappa": point.kappa, "auroc": point.auroc}))


def _levels(part: str, figures: Evaluation | PartFigures, suffix: str = "") -> Iterator[Row]:
    """The rows of each predictor, by study and by image."""
    for level, predictors in (("study", figures.study), ("image", figures.image)):
        for predictor, estimates in predictors.items():
            yield from _rows((level, part, f"{predictor}{suffix}"), _plain(estimates))


def _rows(about: Row, figures: Mapping[str, object]) -> Iterator[Row]:
    """A row for each figure that is an estimate, as `Estimate.to_dict` gives it."""
    for name, figure in figures.items():
        if isinstance(figure, dict) and "value" in figure:
            numbers = (figure.get(key) for key in ("value", "low", "high", "chance"))
            yield (*about, name, *map(number, numbers), figure.get("reason", ""))


def _plain(estimates: Mapping[str, Estimate]) -> dict[str, object]:
    return {name: estimate.to_dict() for name, estimate in estimates.items()}


def _predictions(study: StudyPrediction) -> dict[str, bool]:
    return dict(zip(PREDICTORS, (*study.predictions, study.mean_prediction), strict=True))
