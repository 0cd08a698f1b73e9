"""The recipe of a training run: all that decides what is learned. It is saved with the run and with the model."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from retrieval.images.preprocessing import Preprocessing
from training.errors import TrainingError

__all__ = ["LOSS_NAMES", "STRICT", "Recipe", "first_fault", "without_removed"]

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Loss = Literal["batch-hard", "focal", "neighbourhood", "selective", "semi-hard", "triplet"]
LOSS_NAMES: tuple[str, ...] = get_args(Loss)
# Fields that recipes had once, with the values that mean that they were not used.
_REMOVED: dict[str, object] = {"glance": 0.0, "refit": False}
_MISSING = object()


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Recipe:
    """Hyperparameters. A loss with the weight 0 is not used. Raises TrainingError where a value is not allowed."""

    backbone: str = Field(default="densenet169", description="densenet169, resnet50 or timm:NAME")
    weights: str = Field(default="imagenet", description='imagenet, "" for random weights, or a file of weights')
    frozen_until: str = Field(default="", description="parameters before the first of this name keep their weights")
    dimension: Literal[128, 256] = Field(default=128, description="numbers in an embedding (D)")
    hidden: int = Field(default=64, ge=1, description="width of the classifier's hidden layer")
    size: int = Field(default=320, ge=32, description="width and height of a query in pixels (S)")
    shown: int = Field(default=0, description="pixels a side of whole pictures in training; 0: as in `size`")
    clahe: bool = Field(default=True, description="whether contrast is equalised locally")
    part: str = Field(default="", description='whole pictures are of this body part, crops are of all; "": all parts')
    epochs: int = Field(default=20, ge=1, description="epochs on whole pictures")
    augmentation: float = Field(default=1.0, ge=0, le=3, description="factor of all ranges of the augmentation")
    processing: float = Field(default=0.0, ge=0, le=2, description="strength of other processing in training; 0: none")
    harmonisation: bool = Field(
        default=True, description="whether a classifier trained without `processing` is corrected"
    )
    crop_epochs: int = Field(default=0, ge=0, description="epochs on crops around lesions, which come first")
    crop: int = Field(default=192, description="side of a crop in pixels")
    crop_learning_rate: float = Field(default=3e-4, ge=0, description="learning rate of the backbone on crops")
    patience: int = Field(default=5, ge=0, description="epochs without a better kappa before it stops; 0: none")
    sampling: Literal["identities", "shuffled"] = Field(
        default="identities", description="P x K, or shuffled with weighted labels as in MURA"
    )
    identities: int = Field(default=4, ge=2, multiple_of=2, description="(part, label) pairs in a batch (P)")
    images: int = Field(default=8, ge=2, description="pictures of each identity in a batch (K)")
    loss: Loss = Field(default="triplet", description="the loss of the embedding")
    margin: float = Field(default=0.3, ge=0, description="margin of the triplets; unit vectors are at most 2 apart")
    sigma: float = Field(default=0.3, ge=0.05, description="of the focal loss; e^(2 / sigma) fits float32")
    negative_weight: float = Field(default=1.0, description="weight of hard negatives in the selective loss (lambda)")
    temperature: float = Field(default=0.1, ge=0.02, description="T of the neighbourhood loss; e^(2 / T) fits float32")
    triplet: float = Field(default=1.0, description="weight of the embedding's loss")
    classification: float = Field(default=1.0, description="weight of the classifier's loss; on crops 0 counts as 1")
    second_stage: bool = Field(default=True, description="whether the classifier is trained again at the end")
    looks: float = Field(default=0.0, ge=0, lt=1, description="share of the appearance subspace in the embedding")
    regions: float = Field(default=1.0, description="weight of the loss of suspicion against known lesions")
    learning_rate: float = Field(default=1e-4, ge=0, description="learning rate of the backbone")
    head_learning_rate: float = Field(default=1e-3, ge=0, description="learning rate of the head")
    weight_decay: float = Field(default=1e-4, ge=0, description="weight decay of AdamW")
    averaging: float = Field(default=0.99, ge=0, le=1, description="decay of the weights' moving average")
    soup: int = Field(default=1, ge=1, description="runs with different seeds whose weights are averaged")
    holdout: float = Field(default=0.2, ge=0.05, le=0.5, description="share of patients for validation")
    precision: Literal["auto", "bf16", "float32"] = Field(default="auto", description="auto: the faster one")
    test_time: Literal["", "mirror"] = Field(default="", description="mirror: encode queries twice")
    seed: int = Field(default=0, ge=0, description="random seed")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.crop_epochs and not (self.crop % 32 == 0 and 64 <= self.crop <= self.size):
            raise ValueError(f"crop must be a multiple of 32 from 64 to size, not {self.crop}")
        if self.shown and not 32 <= self.shown <= self.size:
            raise ValueError(f"shown must be 0, or from 32 to size, not {self.shown}")
        if self.soup > 1 and not self.weights:
            raise ValueError("a soup of several runs needs pretrained weights: set weights, or soup = 1")
        if not self.second_stage and (self.looks or self.classification == 0):
            raise ValueError("nothing trains the classifier: set second_stage, or classification without looks")
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _one_line_errors(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            raise TrainingError(first_fault(error)) from error

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(size=self.size, clahe=self.clahe)

    @property
    def side(self) -> int:
        """Pixels a side of a whole picture in training."""
        return self.shown or self.size

    @property
    def batch(self) -> int:
        """Pictures in a batch, P * K."""
        return self.identities * self.images

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> "Recipe":
        """A recipe from some of its fields. Raises TrainingError, which begins with `where`."""
        try:
            return cls(**values)
        except TrainingError as error:
            raise TrainingError(f"{where}: {error}") from error

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    def recorded_as(self, record: Mapping[str, object]) -> bool:
        """Whether a record is of this recipe.

        The record may lack fields that have their defaults here, and may have removed fields that were not used.
        """
        return {**Recipe().to_dict(), **without_removed(record)} == self.to_dict()


def without_removed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded recipe without the fields that recipes had once, as far as they were not used."""
    return {name: value for name, value in record.items() if _REMOVED.get(name, _MISSING) != value}


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic reports, in one line: the field, what it must be, and what it is."""
    fault = error.errors()[0]
    field = ", ".join(f"number {part + 1}" if isinstance(part, int) else part for part in fault["loc"])
    match fault["type"]:
        case "missing":
            return f"{field} is missing"
        case "too_short":
            return f"{field} must not be empty"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"{field} is unknown"
        case "value_error":
            return ": ".join(filter(None, (field, str(fault["ctx"]["error"]))))
    return f"{field} {fault['msg'].replace('Input should', 'must')}, not {fault['input']!r}"
