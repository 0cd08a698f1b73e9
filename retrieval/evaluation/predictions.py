"""The predictions of classifier and vote on labelled studies. `evaluation.summary` measures them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from index.hits import Hit
from retrieval.datasets.collection import Collection
from retrieval.decision.findings import FindingShare, names_of
from retrieval.encoding.batches import Batch, Change, EncodedCase, EncodingOptions, encode_all, stack
from retrieval.evaluation.retrieval_metrics import DEPTHS, SWEEP, Ranking, Retrieved
from retrieval.images.measures import MEASURES, measure_rows
from retrieval.query import Scope
from retrieval.searcher import Searcher

__all__ = ["StudyPrediction", "predict_studies"]


@dataclass(frozen=True, slots=True)
class StudyPrediction:
    """The predictions on one study of V radiographs.

    `classifier` and `vote` (V) are the radiographs' probabilities of abnormality; the study has their means (MURA's
    protocol). Above its threshold a probability predicts abnormal. `retrieved` has the metrics of retrieval,
    `neighbours` the nearest studies, nearest first. `similarity` is that of the least familiar view to its nearest
    indexed radiograph; `familiar` says whether the study is like the index in all respects, `reasons` why it is not,
    and `codes` the same as `notices.Unlike` names them. `similarity` and `familiar` are None where nothing could be
    compared. `borderline` says whether a probability or the similarity is borderline; None where that is unknown.
    `sweep` has each view's vote by the number of voting studies, `lesion` the kind of lesion where the collection names
    one. `tally` has the findings of the voting studies. `embeddings` (V, D); `thumbnails` (V) as an index stores them.
    """

    cases: tuple[Case, ...]
    classifier: tuple[float, ...]
    vote: tuple[float, ...]
    classifier_threshold: float
    vote_threshold: float
    retrieved: Retrieved
    embeddings: NDArray[np.float32] = field(repr=False, compare=False)
    neighbours: tuple[Hit, ...] = ()
    similarity: float | None = None
    familiar: bool | None = None
    reasons: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    borderline: bool | None = None
    sweep: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    lesion: str = ""
    thumbnails: tuple[bytes, ...] = field(default=(), repr=False, compare=False)
    measures: Mapping[str, float] = field(default_factory=dict, repr=False, compare=False)
    tally: tuple[FindingShare, ...] = ()

    @property
    def findings(self) -> tuple[str, ...]:
        """The study's own findings, where the collection names them."""
        return names_of(";".join(case.finding for case in self.cases))

    @property
    def study(self) -> str:
        return self.cases[0].study

    @property
    def label(self) -> int:
        return self.cases[0].label

    @property
    def patient(self) -> str:
        return self.cases[0].patient

    @property
    def part(self) -> str:
        return self.cases[0].part

    @property
    def probability(self) -> float:
        """The classifier's probability of the study."""
        return sum(self.classifier) / len(self.classifier)

    @property
    def vote_probability(self) -> float:
        """The vote's probability of the study."""
        return sum(self.vote) / len(self.vote)

    @property
    def mean(self) -> float:
        """The mean of both probabilities."""
        return (self.probability + self.vote_probability) / 2

    @property
    def mean_prediction(self) -> bool:
        """Whether the mean of both probabilities is above the mean of their thresholds."""
        return self.mean > (self.classifier_threshold + self.vote_threshold) / 2

    @property
    def predictions(self) -> tuple[bool, bool]:
        """Whether classifier and vote predict abnormal."""
        return self.probability > self.classifier_threshold, self.vote_probability > self.vote_threshold


def predict_studies(
    searcher: Searcher,
    collection: Collection,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    change: Change | None = None,
) -> tuple[list[StudyPrediction], list[tuple[str, str]]]:
    """Query each study of a collection as a user would; also (case, reason) of each radiograph that is unreadable.

    `progress` is called with (radiographs done, all). change: what to query instead of a radiograph.
    """
    studies: dict[str, list[EncodedCase]] = {}

    def store(batch: Batch) -> bool:
        for row in batch.rows():
            studies.setdefault(row.case.study, []).append(row)
        return False

    report = encode_all(
        collection.cases, searcher.encoder, store, EncodingOptions(workers=workers), progress=progress, change=change
    )
    ranking, lesions = Ranking(searcher.index.cases(), searcher.index.embeddings()), collection.lesions()
    return [_predict(searcher, ranking, views, lesions) for views in studies.values()], report.unreadable


def _predict(
    searcher: Searcher, ranking: Ranking, views: Sequence[EncodedCase], lesions: Mapping[str, str]
) -> StudyPrediction:
    together = stack(views)
    rules = searcher.rules
    measures = [view.measures for view in views if view.measures is not None]
    scores = searcher.scores(together, Scope(k=max(DEPTHS)), measures=measures)
    cases = tuple(view.case for view in views)
    similarities = ranking.similarities(together.embeddings)
    return StudyPrediction(
        cases=cases,
        classifier=scores.classifier,
        vote=scores.vote.views,
        classifier_threshold=rules.classifier_threshold,
        vote_threshold=rules.vote_threshold,
        retrieved=ranking.retrieved(similarities, cases[0].label),
        embeddings=together.embeddings,
        neighbours=scores.neighbours[: max(DEPTHS)],
        similarity=scores.familiarity.similarity,
        familiar=scores.familiarity.familiar,
        reasons=scores.familiarity.reasons,
        codes=scores.familiarity.codes,
        borderline=scores.borderline(rules),
        measures={name: float(mean) for name, mean in zip(MEASURES, measure_rows(measures).mean(0), strict=True)}
        if measures
        else {},
        sweep=ranking.sweep(similarities, rules.temperature, sorted({*SWEEP, rules.k})),
        lesion=next((lesions[case.case] for case in cases if case.case in lesions), ""),
        thumbnails=tuple(view.thumbnail for view in views),
        tally=scores.findings,
    )
