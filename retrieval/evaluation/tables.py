"""An evaluation as tables: a study a line, a figure a line, or MURA's file of predictions."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from index.case import LABEL_NAMES
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.summary import PartFigures
from retrieval.formats.csv_format import Row, records_table, table
from retrieval.formats.json_format import plain

if TYPE_CHECKING:
    from retrieval.evaluation.evaluate import Evaluation

__all__ = [
    "FIGURE_COLUMNS",
    "PREDICTORS",
    "STUDY_COLUMNS",
    "figure_rows",
    "figure_table",
    "prediction_table",
    "study_row",
]

PREDICTORS = ("classifier", "vote", "mean")
STUDY_COLUMNS = (
    "study patient part label lesion radiographs classifier vote mean classifier_call vote_call mean_call agreement "
    "similarity familiar unlike borderline nearest_study nearest_label nearest_similarity indexed_copy"
)
FIGURE_COLUMNS = "level part reader figure value low high chance reason"


def study_row(study: StudyPrediction, copies: Sequence[str]) -> Row:
    """The line of a study; probabilities are of abnormality, similarities are cosines.

    `similarity` is that of the least familiar radiograph to its nearest indexed radiograph, `nearest_*` the nearest
    study; `unlike` has the codes of the reasons why a study is not familiar; `copies` are the indexed radiographs that
    are near duplicates of one of the study.
    """
    predictions = _predictions(study)
    nearest = study.neighbours[0] if study.neighbours else None
    return {
        "study": study.study,
        "patient": study.patient,
        "part": study.part,
        "label": LABEL_NAMES[study.label],
        "lesion": study.lesion,
        "radiographs": len(study.cases),
        "classifier": study.probability,
        "vote": study.vote_probability,
        "mean": study.mean,
        **{f"{predictor}_call": LABEL_NAMES[abnormal] for predictor, abnormal in predictions.items()},
        "agreement": predictions["classifier"] == predictions["vote"],
        "similarity": study.similarity,
        "familiar": study.familiar,
        "unlike": "; ".join(study.codes),
        "borderline": study.borderline,
        "nearest_study": nearest and nearest.case.study,
        "nearest_label": nearest and nearest.case.label_name,
        "nearest_similarity": nearest and nearest.similarity,
        "indexed_copy": "; ".join(copies),
    }


def figure_table(evaluation: "Evaluation") -> str:
    """All figures of an evaluation as CSV, one a line; an empty part means all parts."""
    return records_table(figure_rows(evaluation), FIGURE_COLUMNS)


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


def figure_rows(evaluation: "Evaluation") -> Iterator[Row]:
    """The rows of all figures. In some rows the reader says which figures they are, such as "retrieval"."""
    yield from _levels("", evaluation)
    for part, figures in evaluation.parts.items():
        yield from _levels(part, figures)
    yield from _rows("study", "", "knn minus classifier", evaluation.difference)
    yield from _rows("study", "", "retrieval", evaluation.retrieval)
    yield from _rows("study", "", "agreement", evaluation.agreement)
    for predictor, triage in evaluation.worklist.items():
        yield from _rows(
            "study", "", predictor, {f"worklist {name}": value for name, value in triage.to_dict().items()}
        )
    if evaluation.leakage.without:
        yield from _levels("", evaluation.leakage.without, " without copies")
    for kind, lesions in evaluation.lesions.items():
        yield from _rows("study", "", f"retrieval of {kind}", lesions.retrieval)
        for predictor, estimate in lesions.sensitivity.items():
            yield from _rows("study", "", predictor, {f"sensitivity to {kind}": estimate})
    for finding, own_figures in evaluation.findings.items():
        named = {f"{name} of {finding}": getattr(own_figures, name) for name in ("auroc", "precision")}
        yield from _rows("study", "", "findings", named)
    if operating := evaluation.operating_point:
        for predictor, estimates in operating.study.items():
            yield from _rows("study", "", f"{predictor} at sensitivity {operating.wanted:g}", estimates)
    for point in evaluation.sweep:
        yield from _rows("study", "", f"knn with k {point.k}", {"kappa": point.kappa, "auroc": point.auroc})


def _levels(part: str, figures: "Evaluation | PartFigures", suffix: str = "") -> Iterator[Row]:
    """The rows of each predictor, by study and by image."""
    for level, predictors in (("study", figures.study), ("image", figures.image)):
        for predictor, estimates in predictors.items():
            yield from _rows(level, part, f"{predictor}{suffix}", estimates)


def _rows(level: str, part: str, reader: str, figures: Any) -> Iterator[Row]:
    """A row for each figure that is an estimate; figures: a mapping or dataclass of them."""
    for name, figure in plain(figures).items():
        if isinstance(figure, dict) and "value" in figure:
            yield {"level": level, "part": part, "reader": reader, "figure": name, **figure}


def _predictions(study: StudyPrediction) -> dict[str, bool]:
    return dict(zip(PREDICTORS, (*study.predictions, study.mean_prediction), strict=True))
