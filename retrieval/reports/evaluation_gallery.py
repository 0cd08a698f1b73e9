"""Pictures for an evaluation's report: the worst errors with their neighbours, and near duplicates."""

from collections.abc import Sequence
from dataclasses import dataclass

from index.case import LABEL_NAMES
from index.reader import Hit
from retrieval.evaluation.evaluate import Evaluation
from retrieval.evaluation.predictions import StudyPrediction
from retrieval.reports.pictures import Picture, file_thumbnail
from retrieval.searcher import Searcher

__all__ = ["MOST", "ErrorCard", "error_cards", "near_duplicate_pictures", "wrong_predictions"]

MOST = 12  # studies, and pairs
_VIEWS, _NEIGHBOURS = 4, 5  # pictures of each


@dataclass(frozen=True, slots=True)
class ErrorCard:
    """A study with a wrong prediction: its first radiographs, how many are hidden, and its nearest indexed studies."""

    prediction: StudyPrediction
    label: str
    words: str
    pictures: Sequence[Picture]
    hidden: int
    neighbours: Sequence[Picture]


def wrong_predictions(predictions: Sequence[StudyPrediction]) -> list[StudyPrediction]:
    """The studies that classifier or vote predicts wrong, those of the worst mean probability first."""
    wrong = [study for study in predictions if any(abnormal != study.label for abnormal in study.predictions)]
    return sorted(wrong, key=lambda study: (-abs(study.mean - study.label), study.study))


def error_cards(wrong: Sequence[StudyPrediction], searcher: Searcher) -> list[ErrorCard]:
    """The first MOST of the studies, with pictures."""
    return [_error_card(study, searcher) for study in wrong[:MOST]]


def near_duplicate_pictures(evaluation: Evaluation, searcher: Searcher) -> list[Picture]:
    """The first MOST pairs, for the reader to judge: each evaluated radiograph, then its match in the index."""
    thumbnails = {
        case.case: thumbnail
        for prediction in evaluation.predictions
        for case, thumbnail in zip(prediction.cases, prediction.thumbnails, strict=True)
    }
    pictures = []
    for pair in evaluation.leakage.pairs[:MOST]:
        labels = ", different labels" if pair.across_labels else ""
        alike = f"match {pair.match:.3f}{', mirrored' if pair.mirrored else ''}{labels}"
        stored = (thumbnails[pair.cases[0]], searcher.index.thumbnail(pair.cases[1]))
        for side, case, study, data in zip(("evaluated", "indexed"), pair.cases, pair.studies, stored, strict=True):
            missing = "no picture of the " if data is None else ""
            alt = f"{missing}{side} radiograph {case} of study {study}"
            pictures.append(Picture(data, alt, (f"{side}: {study}", alike)))
    return pictures


def _error_card(study: StudyPrediction, searcher: Searcher) -> ErrorCard:
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
    return ErrorCard(
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
