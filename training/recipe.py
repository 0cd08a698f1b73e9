"""Everything that decides a training run, in one place; saved with the run and with the model."""

from dataclasses import asdict, dataclass

from retrieval.preprocess import Preprocessing
from training.errors import TrainingError

__all__ = ["Recipe"]


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
    size: int = 320  # S, pixels
    clahe: bool = True
    epochs: int = 20
    identities: int = 4  # P, (part, label) pairs a batch; both labels of a part always come together
    images: int = 8  # K, images of each, of different patients as far as there are
    loss: str = "batch-hard"  # or "triplet", over all valid triplets
    margin: float = 0.3  # on unit vectors a Euclidean distance is at most 2
    triplet: float = 1.0
    classification: float = 0.0  # above 0, the classifier also trains jointly with the embedding
    regions: float = 1.0  # suspicion against the lesions' boxes, where a collection has them
    learning_rate: float = 1e-4  # of the backbone
    head_learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    averaging: float = 0.99  # decay of the weights' moving average, which is what is kept
    holdout: float = 0.2  # share of the training patients that judge and calibrate
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dimension not in (128, 256):
            raise TrainingError(f"the embedding has 128 or 256 numbers, not {self.dimension}")
        if self.loss not in ("batch-hard", "triplet"):
            raise TrainingError(f"unknown loss {self.loss}: use batch-hard or triplet")
        if self.identities < 2 or self.identities % 2 or self.images < 2:
            raise TrainingError("a batch needs an even number of identities and at least two images of each")
        if not 0.05 <= self.holdout <= 0.5:
            raise TrainingError(f"the held-out share must be between 0.05 and 0.5, not {self.holdout}")

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(size=self.size, clahe=self.clahe)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)
