"""Everything that decides a training run, in one place; saved with the run and with the model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from retrieval.images.preprocessing import Preprocessing
from training.errors import TrainingError

__all__ = ["LOSS_NAMES", "PRECISIONS", "Recipe", "typed", "without_removed"]

LOSS_NAMES = ("batch-hard", "focal", "neighbourhood", "selective", "semi-hard", "triplet")
PRECISIONS = ("auto", "bf16", "float32")
# Fields that recipes had once, with the values that mean that they were not used.
_REMOVED: dict[str, object] = {"glance": 0.0, "refit": False}
_MISSING = object()
_KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", list: "a list", dict: "a table"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters. Weights of losses of 0 switch a loss off."""

    backbone: str = "densenet169"
    weights: str = "imagenet"  # or "" (from scratch), or a file of weights
    frozen_until: str = (
        ""  # parameters before the first of this name keep their weights: cheaper, and safer on few data
    )
    dimension: int = 128  # D, the report's 128 or 256
    hidden: int = 64  # width of the classifier's hidden layer
    size: int = 320  # S, pixels, of queries
    shown: int = 0  # pixels a side of whole pictures in training, fewer than `size`; 0: as many
    clahe: bool = True
    part: str = ""  # whole pictures are of this part only, crops of all parts; "": all parts
    epochs: int = 20
    augmentation: float = (
        1.0  # how far pictures are turned, scaled and lit anew, see training/data/augment.py; 0: hardly
    )
    crop_epochs: int = 0  # before those: epochs on crops around lesions, where their places are known
    crop: int = 192  # side of a crop, pixels
    crop_learning_rate: float = 3e-4  # of the backbone, on crops
    patience: int = 5  # epochs without a better held-out kappa before it stops; 0 trains to the end and keeps the end
    sampling: str = "identities"  # P x K; or "shuffled", with a cross-entropy weighted by label, as MURA's baseline
    identities: int = 4  # P, (part, label) pairs a batch; both labels of a part always come together
    images: int = 8  # K, images of each, of different patients as far as there are
    loss: str = "triplet"  # one of LOSS_NAMES
    margin: float = 0.3  # on unit vectors a Euclidean distance is at most 2
    sigma: float = 0.3  # of the triplet focal loss
    negative_weight: float = 1.0  # lambda of the selectively contrastive loss
    temperature: float = 0.1  # of the neighbourhood loss
    triplet: float = 1.0
    classification: float = 1.0  # above 0, the classifier also trains jointly with the embedding; on crops always
    second_stage: bool = True  # the classifier is trained anew on the frozen embeddings (the report: only there)
    looks: float = 0.0  # share of the embedding that is of what a radiograph looks like; see appearance_subspace.py
    regions: float = 1.0  # suspicion against the lesions' boxes, where a collection has them
    learning_rate: float = 1e-4  # of the backbone
    head_learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    averaging: float = 0.99  # decay of the weights' moving average, which is what is kept
    soup: int = 1  # runs from the same start, each with a seed of its own, whose weights are averaged in the end
    holdout: float = 0.2  # share of the training patients that judge and calibrate
    precision: str = "auto"  # one of PRECISIONS; "auto" takes what is faster on this machine
    test_time: str = ""  # "mirror": queries are encoded as they are and mirrored, at twice the cost
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dimension not in (128, 256):
            raise TrainingError(f"the embedding has 128 or 256 numbers, not {self.dimension}")
        for field, known in (
            ("loss", LOSS_NAMES),
            ("precision", PRECISIONS),
            ("sampling", ("identities", "shuffled")),
            ("test_time", ("", "mirror")),
        ):
            if getattr(self, field) not in known:
                names = ", ".join(name or '""' for name in known)
                raise TrainingError(f"unknown {field} {getattr(self, field)!r}: use one of {names}")
        if self.identities < 2 or self.identities % 2 or self.images < 2:
            raise TrainingError("a batch needs an even number of identities and at least two images of each")
        if not 0.05 <= self.holdout <= 0.5:
            raise TrainingError(f"the held-out share must be between 0.05 and 0.5, not {self.holdout}")
        if self.crop_epochs and not (self.crop % 32 == 0 and 64 <= self.crop <= self.size):
            raise TrainingError(f"a crop's side is a multiple of 32 between 64 and the picture's, not {self.crop}")
        if self.shown and not 32 <= self.shown <= self.size:
            raise TrainingError(f"training shows pictures at 32 pixels a side up to their size, not {self.shown}")
        if self.soup < 1 or (self.soup > 1 and not self.weights):
            raise TrainingError("a soup is of one run or more, and of several only where they start pretrained")
        self._check_ranges()

    def _check_ranges(self) -> None:
        if self.epochs < 1 or self.patience < 0 or self.crop_epochs < 0:
            raise TrainingError("a run needs at least one epoch, and crop_epochs and patience of 0 or more")
        if self.margin < 0 or self.sigma < 0.05:  # e^(2 / sigma) leaves float32 below
            raise TrainingError("the margin must be 0 or more, and sigma 0.05 or more")
        if self.temperature < 0.02:  # e^(2 / T) leaves float32 below
            raise TrainingError("the temperature must be 0.02 or more")
        if self.seed < 0:
            raise TrainingError(f"a seed is 0 or more, not {self.seed}")
        if not 0 <= self.augmentation <= 3:
            raise TrainingError(f"the strength of augmentation is from 0 to 3, not {self.augmentation}")
        if not 0 <= self.looks < 1:
            raise TrainingError(f"looks are a share of the embedding, from 0 to below 1, not {self.looks}")
        if not self.second_stage and (self.looks or self.classification == 0):
            raise TrainingError("nothing would train the classifier: give classification a weight, or a second stage")

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
    def of(cls, values: Mapping[str, Any], where: str) -> "Recipe":
        """A recipe of some fields; the others have their defaults. Raises TrainingError, which begins with `where`."""
        kinds: dict[str, Any] = {field.name: field.type for field in fields(cls)}
        if unknown := sorted(set(values) - set(kinds)):
            raise TrainingError(f"{where}: a recipe has no {', '.join(unknown)}")
        right = {name: typed(value, kinds[name], f"{where}: {name}") for name, value in values.items()}
        try:
            return cls(**right)
        except TrainingError as error:
            raise TrainingError(f"{where}: {error}") from error

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    def recorded_as(self, record: Mapping[str, object]) -> bool:
        """Whether a record is of this recipe.

        The record may lack fields that have their defaults here, and may have removed fields that were not used.
        """
        defaults = {field.name: field.default for field in fields(self)}
        return {**defaults, **without_removed(record)} == self.to_dict()


def without_removed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded recipe without the fields that recipes had once, as far as they were not used."""
    return {name: value for name, value in record.items() if _REMOVED.get(name, _MISSING) != value}


def typed(value: Any, kind: type, where: str) -> Any:
    """A value from a TOML or JSON file, which must be of a kind. Raises TrainingError, which begins with `where`."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:  # true is an int to isinstance
        raise TrainingError(f"{where} is {_KINDS[kind]}, not {value!r}")
    return value
