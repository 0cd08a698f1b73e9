"""The answer to a query: the command prints it, the Python API returns it, and the server sends it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from index.case import Case
from retrieval.decision.familiarity import Familiarity
from retrieval.decision.findings import FindingShare
from retrieval.decision.kept_evaluation import KeptEvaluation
from retrieval.formats.csv_format import Row, Tabular
from retrieval.formats.json_format import plain
from retrieval.notices import DOUBTS, Code, Notice
from retrieval.wording import DISCLAIMER, label_word, sentence, verdict

__all__ = [
    "Answer",
    "ClassifierAnswer",
    "Familiarity",
    "FindingShare",
    "IndexSource",
    "ModelSource",
    "Query",
    "Seconds",
    "SimilarCase",
    "SimilarStudy",
    "ViewAnswer",
    "VoteAnswer",
]

SCHEMA = "mura-search/answer/1"


@dataclass(frozen=True, slots=True)
class Query:
    """The query: `files` are the views that were read; `excluded_patients` are indexed patients who are left out."""

    files: tuple[str, ...]
    views: int
    excluded_patients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClassifierAnswer:
    """Calibrated probability of abnormality, the mean over the views; abnormal if it is above the threshold.

    `source` is "model" for the classifier that came with the model, "local" for one that was learned on local studies
    (`decision.local_classifier`).
    `borderline` says whether mild changes of the radiographs could turn the prediction; None where it was not learned.
    """

    probability: float
    abnormal: bool
    threshold: float
    source: str = "model"
    borderline: bool | None = None


@dataclass(frozen=True, slots=True)
class VoteAnswer:
    """The vote of the `k` nearest studies of each view, the mean over the views; None if no study could vote.

    `studies` is how many studies vote on any view. `borderline` as in `ClassifierAnswer`.
    """

    probability: float | None
    abnormal: bool | None
    threshold: float
    k: int
    studies: int = 0
    borderline: bool | None = None


@dataclass(frozen=True, slots=True)
class ViewAnswer:
    """The same figures for one of the views, and the file of its heatmap if one was asked for.

    `reasons` says why the view is not familiar, if it is not. `measures` has the numbers of `images.measures.Measures`
    by name.
    """

    file: str
    classifier: float
    knn: float | None
    similarity: float | None
    heatmap: str | None = None
    reasons: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class SimilarStudy:
    """A labelled study like the query, by its nearest radiograph.

    `weight`, in [0, 1], is its part of the vote; it is 0 if the study is not among the k that vote.
    """

    rank: int
    similarity: float
    weight: float
    label: str
    study: str
    patient: str
    part: str
    view: str
    case: str
    path: str

    @classmethod
    def of(cls, rank: int, similarity: float, weight: float, case: Case, **more: Any) -> Self:
        """The study of an indexed case; `more` are the fields that a subclass adds."""
        names = ("study", "patient", "part", "view", "case", "path")
        return cls(rank, similarity, weight, case.label_name, *(getattr(case, name) for name in names), **more)


@dataclass(frozen=True, slots=True)
class SimilarCase(SimilarStudy):
    """A similar study of an answer. `finding` names what the radiograph shows, several separated by semicolons."""

    laterality: str = ""
    finding: str = ""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The model; `synthetic` if it was trained on synthetic radiographs, among others."""

    name: str
    sha256: str
    synthetic: bool


@dataclass(frozen=True, slots=True)
class IndexSource:
    """The index; `synthetic` if its radiographs are. Each change of the index gives it a new `generation`."""

    path: str
    cases: int
    studies: int
    synthetic: bool
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Seconds:
    """Wall time. `load` is for opening model and index, once a searcher; `encode` includes reading the files."""

    load: float
    encode: float
    search: float
    total: float
    heatmap: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer(Tabular):
    """A diagnosis with its evidence. `agreement` of classifier and vote is None if no study could vote.

    `cases` are the nearest studies, at most one case a study, by descending similarity. A reader of the answer must see
    the `notices`. `report` is the file of its report, None if none was asked for. `findings` are those of the voting
    studies: a list to think of, and not a diagnosis. `evaluation` says how good index and model are, if `evaluate
    --keep` has measured it.
    """

    columns: ClassVar = "rank similarity weight label study patient part view laterality finding case path"

    query: Query
    classifier: ClassifierAnswer
    knn: VoteAnswer
    agreement: bool | None
    familiarity: Familiarity
    views: tuple[ViewAnswer, ...]
    cases: tuple[SimilarCase, ...]
    notices: tuple[Notice, ...]
    model: ModelSource
    index: IndexSource
    seconds: Seconds
    report: str | None = None
    findings: tuple[FindingShare, ...] = ()
    evaluation: KeptEvaluation | None = None

    @property
    def title(self) -> str:
        """The verdict with both probabilities, and the warnings."""
        vote = "none" if self.knn.probability is None else f"{self.knn.probability:.3f}"
        unlike = "Unlike the index. " if self.familiarity.familiar is False else ""
        warnings = "".join(f" {warning}." for warning in self.warnings)
        figures = f"classifier {self.classifier.probability:.3f}, vote {vote}"
        return f"{unlike}{verdict(self).capitalize()} ({figures}).{warnings} {DISCLAIMER}"

    def rows(self) -> list[Row]:
        """The similar studies."""
        return [{field.name: getattr(case, field.name) for field in fields(case)} for case in self.cases]

    def with_heatmaps(self, files: Sequence[Path]) -> "Answer":
        """The answer with the file of each view's heatmap, if there are files."""
        if not files:
            return self
        views = (replace(view, heatmap=str(file)) for view, file in zip(self.views, files, strict=True))
        return replace(self, views=tuple(views))

    @property
    def unnamed_patients(self) -> list[str]:
        """The patients left out whom no notice names."""
        named = {notice.detail.get("patient") for notice in self.notices if notice.code != Code.UNKNOWN_PATIENT}
        return [name for name in self.query.excluded_patients if name not in named]

    @property
    def borderline(self) -> bool | None:
        """Whether a prediction or the similarity is borderline; None where that was not learned."""
        known = (self.classifier.borderline, self.knn.borderline, self.familiarity.borderline)
        return None if self.classifier.borderline is None else any(known)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notices as sentences."""
        return tuple(map(sentence, self.notices))

    @property
    def doubts(self) -> tuple[str, ...]:
        """The warnings that a picture may not be read as it was meant; a reader sees them before the verdict."""
        return tuple(sentence(notice) for notice in self.notices if notice.code in DOUBTS)

    @property
    def other_warnings(self) -> tuple[str, ...]:
        """The warnings that are not doubts."""
        return tuple(sentence(notice) for notice in self.notices if notice.code not in DOUBTS)

    @property
    def verdict(self) -> str:
        """The answer in one word: "unfamiliar", else "undecided", "abnormal" or "normal"."""
        if self.familiarity.familiar is False:
            return "unfamiliar"
        return "undecided" if self.agreement is False else label_word(self.classifier.abnormal)

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/answer/1", with the version of the program."""
        from retrieval import __version__

        made: dict[str, object] = {"schema": SCHEMA, "version": __version__, "verdict": self.verdict}
        return {**made, **plain(self), "warnings": list(self.warnings)}
