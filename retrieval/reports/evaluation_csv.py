"""An evaluation as CSV: a study a line, a figure a line, or MURA's own file of predictions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from index.case import LABEL_NAMES
from retrieval.csv_format import call, number, table, yes
from retrieval.evaluation.evaluate import Evaluation
from retrieval.evaluation.metrics import Estimate
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.evaluation.summary import Figures

__all__ = ["PREDICTORS", "figure_table", "predictions", "study_table"]

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
    """One line a study, in the order of the collection; probabilities are of abnormality, similarities cosines.

    `similarity` is that of the least familiar radiograph to anything indexed, `nearest_*` the study most like any of
    them, `indexed_copy` the radiographs of the index that one of the study is a near duplicate of.
    """
    copies = evaluation.copies
    rows = ([*_study(reading), "; ".join(copies.of_study(reading.study))] for reading in evaluation.readings)
    return table([_STUDY, *rows])


def figure_table(evaluation: Evaluation) -> str:
    """Every figure of an evaluation, one a line; an empty part means all of them."""
    return table([_FIGURE, *_figures(evaluation)])


def predictions(readings: Sequence[StudyPrediction], layout: str, predictor: str = "classifier") -> str:
    """What MURA's official evaluation takes: `MURA-v1.1/valid/XR_WRIST/patient11185/study1_positive/,1` and so on.

    One line a study, no header, 1 for abnormal. predictor: one of PREDICTORS. A collection in another layout has no
    such folders; there a study is called by its name.
    """
    rows = []
    for reading in readings:
        folder = PurePosixPath(reading.cases[0].case).parent
        name = f"MURA-v1.1/{folder}/" if layout == "mura" else reading.study
        rows.append((name, int(_calls(reading)[predictor])))
    return table(rows)


def _study(reading: StudyPrediction) -> Row:
    calls = _calls(reading)
    nearest: Row = ("", "", "")
    if reading.neighbours:
        hit = reading.neighbours[0]
        nearest = (hit.case.study, hit.case.label_name, number(hit.similarity))
    return (
        reading.study,
        reading.patient,
        reading.part,
        LABEL_NAMES[reading.label],
        reading.lesion,
        len(reading.cases),
        *map(number, (reading.probability, reading.vote_probability, reading.mean)),
        *(call(calls[predictor]) for predictor in PREDICTORS),
        yes(calls["classifier"] == calls["vote"]),
        number(reading.similarity),
        yes(reading.familiar),
        *nearest,
    )


def _figures(evaluation: Evaluation) -> Iterator[Row]:
    for level, figures in (("study", evaluation.study), ("image", evaluation.image)):
        yield from _of_readers(level, "", figures)
    for part, of_part in evaluation.parts.items():
        yield from _of_readers("study", part, of_part.readers)
        yield from _of_readers("image", part, of_part.image)
    yield from _rows(("study", "", "knn minus classifier"), evaluation.difference)
    yield from _rows(("study", "", "retrieval"), evaluation.retrieval)
    yield from _rows(("study", "", "agreement"), dict(_estimates(evaluation.agreement)))
    for reader, told in evaluation.worklist.items():
        yield from _rows(("study", "", reader), {f"worklist {name}": of for name, of in _estimates(told)})
    if evaluation.copies.without:
        for level, figures in (
            ("study", evaluation.copies.without.readers),
            ("image", evaluation.copies.without.image),
        ):
            yield from _of_readers(level, "", {f"{reader} without copies": of for reader, of in figures.items()})
    for kind, lesions in evaluation.lesions.items():
        yield from _rows(("study", "", f"retrieval of {kind}"), lesions.retrieval)
        for reader, estimate in lesions.sensitivity.items():
            yield from _rows(("study", "", reader), {f"sensitivity to {kind}": estimate})
    for point in evaluation.sweep:
        yield from _rows(("study", "", f"knn with k {point.k}"), {"kappa": point.kappa, "auroc": point.auroc})


def _of_readers(level: str, part: str, figures: Figures) -> Iterator[Row]:
    for reader, of in figures.items():
        yield from _rows((level, part, reader), of)


def _rows(about: Row, figures: Mapping[str, Estimate]) -> Iterator[Row]:
    for name, estimate in figures.items():
        numbers = (estimate.value, estimate.low, estimate.high, estimate.chance)
        yield (*about, name, *map(number, numbers), estimate.reason)


def _estimates(value: object) -> Iterator[tuple[str, Estimate]]:
    """The fields of a result that are estimates, by name."""
    for name in type(value).__slots__:  # type: ignore[attr-defined]
        if isinstance(of := getattr(value, name), Estimate):
            yield name, of


def _calls(reading: StudyPrediction) -> dict[str, bool]:
    return dict(zip(PREDICTORS, (*reading.calls, reading.mean_call), strict=True))
