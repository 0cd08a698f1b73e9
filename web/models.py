"""What goes in and out of the HTTP API, as pydantic models; FastAPI describes the API at /openapi.json from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from retrieval.answer import (
    ClassifierAnswer,
    Familiarity,
    FindingShare,
    IndexSource,
    ModelSource,
    Query,
    Seconds,
    SimilarCase,
    ViewAnswer,
    VoteAnswer,
)
from retrieval.decision.kept_evaluation import KeptEvaluation
from retrieval.notices import Notice
from retrieval.query import Scope
from retrieval.wording import printable
from web.errors import PROBLEMS, Refused

__all__ = [
    "API_TAGS",
    "AnswerDocument",
    "CaseRecord",
    "ComparisonQuestion",
    "IndexSummary",
    "Label",
    "NewQuestion",
    "Problem",
    "Question",
    "SearchForm",
    "StudyQuestion",
    "Upload",
    "WorklistDocument",
    "add_problems",
    "refusals",
    "refused_question",
    "shortened",
    "shown_name",
    "too_many_views",
]

MOST_SHOWN = 50  # studies in an answer
Label = Literal["normal", "abnormal"]
Text = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$")]


class Question(BaseModel):
    """A question about a study. Empty values are ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int = Field(default=5, ge=1, le=MOST_SHOWN, description="How many similar studies to show.")
    patient: Text | None = Field(default=None, description="The study's patient, whose other studies are left out.")
    part: list[Text] = Field(default=[], description="Show only studies of these body parts.")
    view: list[Text] = Field(default=[], description="Show only radiographs of these views.")
    label: list[Label] = Field(default=[], description="Show only studies of these labels.")
    vote: Literal["all", "filtered"] = Field(
        default="all", description="Whether all studies vote, or only those of the chosen parts and views."
    )
    heatmap: Literal["true", "false"] = Field(
        default="false", description="Whether to remember the study, for its heatmaps."
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, fields: Any) -> Any:
        if not isinstance(fields, Mapping):
            return fields
        values = {name: [item for item in value if item != ""] if isinstance(value, list) else value
                  for name, value in fields.items()}  # fmt: skip
        return {name: value for name, value in values.items() if value not in ("", [])}

    @classmethod
    def from_form(cls, fields: Iterable[tuple[str, str]]) -> Self:
        """The question of a form's fields. Raises Refused with 422 for unknown fields and invalid values."""
        values: dict[str, list[str]] = {}
        for name, value in fields:
            if value or name not in cls.model_fields:
                values.setdefault(name, []).append(value)
        lists = {name for name, items in values.items() if name in ("part", "view", "label") or len(items) > 1}
        try:
            return cls.model_validate({name: items if name in lists else items[0] for name, items in values.items()})
        except ValidationError as error:
            raise refused_question(error.errors()) from error

    @property
    def where(self) -> dict[str, tuple[str, ...]]:
        """The filters, as `Searcher.search` takes them."""
        filters: dict[str, Sequence[str]] = {"part": self.part, "view": self.view, "label": self.label}
        return {name: tuple(values) for name, values in filters.items() if values}

    @property
    def scope(self) -> Scope:
        return Scope(self.k, self.patient, self.where or None, self.vote == "filtered")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The filters and `k`, for the query part of a URL."""
        filters = [(name, value) for name, values in self.where.items() for value in values]
        return filters + [("vote", self.vote)] * (self.vote != "all") + [("k", str(self.k))]


class NewQuestion(Question):
    """A question about a study that is sent."""

    one_study: Literal["true", "false"] = Field(
        default="false", description="Take radiographs of several known patients or studies as one study."
    )
    add_to: Text = Field(default="", description="A remembered study, of which these are further views.")


class StudyQuestion(Question):
    """A question about a remembered study."""

    download: str = Field(default="", description="With any value, the answer is sent as a file.")


class ComparisonQuestion(Question):
    """A question about a remembered study beside an indexed case."""

    case: str = ""


class SearchForm(NewQuestion):
    """The form that asks about a study."""

    files: list[Annotated[str, Field(json_schema_extra={"format": "binary"})]] = Field(
        min_length=1, description="The views of one study: PNG, JPEG, TIFF, DICOM and others."
    )


@dataclass(frozen=True, slots=True)
class Upload:
    """The name and bytes of each file, and the question about them."""

    files: tuple[tuple[str, bytes], ...]
    question: NewQuestion


class Remembered(BaseModel):
    """The URL of a study that the server keeps for its heatmaps, and for how many seconds."""

    study: str
    seconds: float


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)


class AnswerDocument(_Document):
    """The JSON object "mura-search/answer/1". Only a remembered study has `remembered`."""

    schema_: Literal["mura-search/answer/1"] = Field(alias="schema")
    version: str = Field(description="The version of the program.")
    verdict: Literal["abnormal", "normal", "undecided", "unfamiliar"]
    query: Query
    classifier: ClassifierAnswer
    knn: VoteAnswer
    agreement: bool | None
    familiarity: Familiarity
    views: list[ViewAnswer]
    cases: list[SimilarCase]
    warnings: list[str]
    notices: list[Notice]
    model: ModelSource
    index: IndexSource
    seconds: Seconds
    report: str | None = None
    findings: list[FindingShare]
    evaluation: KeptEvaluation | None
    remembered: Remembered | None = None


class CaseRecord(_Document):
    """An indexed case, without its path."""

    label: Label
    case: str
    study: str
    patient: str
    part: str
    view: str
    split: str
    finding: str


class ModelName(_Document):
    name: str
    sha256: str


class IndexSummary(_Document):
    """What the index holds. `parts`, `views` and `labels` count radiographs."""

    name: str
    cases: int
    studies: int
    patients: int
    parts: dict[str, int]
    labels: dict[str, int]
    generation: int
    views: dict[str, int]
    model: ModelName
    synthetic: bool


class WorklistStudy(_Document):
    """A study of the worklist. `mean` is of both probabilities; `nearest` is the most similar indexed study.

    `read` is when somebody opened the study, null if nobody did.
    """

    number: str
    rank: int
    study: str
    mean: float
    classifier: ClassifierAnswer
    knn: VoteAnswer
    agreement: bool | None
    familiarity: Familiarity
    nearest: SimilarCase | None
    read: str | None
    files: list[str]
    warnings: list[str]
    notices: list[Notice]


class SkippedStudy(_Document):
    """A study of the folder that could not be read, and why."""

    study: str
    reason: str


class WorklistDocument(_Document):
    """The JSON object "mura-search/worklist/1". `changes` grows with each change of the list."""

    schema_: Literal["mura-search/worklist/1"] = Field(alias="schema")
    folder: str
    ranking: bool
    made: str | None
    changes: int
    trouble: str
    not_read: int
    studies: list[WorklistStudy]
    skipped: list[SkippedStudy]


class Problem(BaseModel):
    """Why a request is not answered (RFC 9457). `detail` and `error` are the same sentence."""

    type: str = Field(examples=["urn:mura-search:problem:not-found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["the index has no such case, or no longer has it"])
    error: str = Field(examples=["the index has no such case, or no longer has it"])


API_TAGS = [
    {"name": "studies", "description": "Ask about a study, and about one that is remembered."},
    {"name": "index", "description": "What is indexed."},
    {"name": "filing", "description": "Change the index (--filing-token-file or --allow-filing)."},
    {"name": "worklist", "description": "The studies of the server's folder (--worklist)."},
    {"name": "server", "description": "The state of the server."},
]
"""The groups of operations in /openapi.json."""

_PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals that an operation can give, for FastAPI's `responses`."""
    return {status: {"description": PROBLEMS[status][1], "content": _PROBLEM_CONTENT} for status in statuses}


def add_problems(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's description of the API with the schema of `Problem`, and without the validation errors of FastAPI."""
    schemas = document["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
                if _can_be_invalid(operation):
                    _document(operation, 422)
            if "requestBody" in operation:  # which may be damaged, too slow or too large
                _document(operation, 400, 408, 413)
    return document


def _document(operation: dict[str, Any], *statuses: int) -> None:
    operation["responses"] |= {str(status): refusal for status, refusal in refusals(*statuses).items()}


def _can_be_invalid(operation: dict[str, Any]) -> bool:
    """Whether an operation takes anything but a text in its path."""
    parameters = operation.get("parameters", [])
    return "requestBody" in operation or any(
        parameter["in"] != "path" or parameter["schema"].get("type") != "string" for parameter in parameters
    )


def refused_question(errors: Sequence[Any]) -> Refused:
    """The first of pydantic's errors as a refusal with 422, in a sentence."""
    error = errors[0]
    location = [part for part in error["loc"] if part not in ("query", "path")]
    name = shortened(str(location[0]) if location else "the question")
    kind, given = error["type"], error.get("input")
    value = shortened(given) if isinstance(given, str) else "this"
    if error["loc"][0] == "path":
        sentence = "invalid number in the URL"
    elif kind == "missing":
        sentence = f"{name} is missing"
    elif kind == "extra_forbidden":
        fields = ", ".join(sorted(NewQuestion.model_fields))
        sentence = f"there is no field {name}; the fields are files, {fields}"
    elif isinstance(given, list):
        sentence = f"{name} is given more than once"
    elif kind == "literal_error":
        sentence = f"{name} is {error['ctx']['expected']}, not {value}".replace("'", "")
    elif name == "k":
        sentence = f"k is how many similar studies to show, 1 to {MOST_SHOWN}, not {value}"
    else:
        sentence = f"{name} is too long, or is not text"
    return Refused(422, sentence)


def too_many_views(most: int) -> Refused:
    """The refusal of more radiographs than one study may have."""
    return Refused(413, f"at most {most} radiographs of one study can be sent at once")


def shown_name(name: str, number: int) -> str:
    """What a file is called in the answer: the last part of its name, on one line."""
    last = shortened(PurePosixPath(name.replace("\\", "/")).name)
    return last if last.strip(". ") else f"radiograph {number}"


def shortened(text: str) -> str:
    """Text from outside on one line, at most 100 characters, without characters that are not printable."""
    return printable(text if len(text) <= 100 else text[:97] + "...")
