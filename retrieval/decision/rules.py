"""The decision rules: numbers that are learned when an index is built, then frozen with it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.decision.borderline import Borderline
from retrieval.decision.calibration import sigmoid
from retrieval.decision.local_classifier import LocalClassifier
from retrieval.encoding.probes import MARGINS

__all__ = ["DEFAULTS", "Rules"]

Floats = NDArray[np.float64]
_LARGEST = 1e6  # of any number in the rules, so that nothing computed with it overflows


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything between an embedding with its logit and a prediction.

    The vote is that of the `k` nearest studies at `temperature`; the classifier's probability is
    sigmoid(slope * logit + intercept); each calls a study abnormal above its threshold. A study is familiar where the
    nearest similarity of its least familiar view is at least `familiarity_limit`, and where the margins by which its
    views are of one of the `parts`, not inverted and not on their side are at least the three `appearance_limits`
    (`retrieval.encoding.probes`), if there are any. `borderline` has the widths of borderline predictions; None where
    they were not learned. `local` is the classifier that takes the place of the model's, if there is one. `source` says
    what the rules were learned from.
    """

    k: int = 15
    temperature: float = 0.1
    vote_threshold: float = 0.5
    slope: float = 1.0
    intercept: float = 0.0
    classifier_threshold: float = 0.5
    familiarity_limit: float = 0.5
    parts: tuple[str, ...] = ()
    appearance_limits: tuple[float, ...] = ()
    borderline: Borderline | None = None
    source: str = "plain defaults: too few labelled studies to learn from, and none in the model bundle"
    local: LocalClassifier | None = None

    def __post_init__(self) -> None:
        others = ("parts", "appearance_limits", "borderline", "source", "local")
        numbers = [value for name, value in asdict(self).items() if name not in others] + [*self.appearance_limits]
        texts = (self.source, *self.parts)
        finite = all(type(n) in (int, float) and abs(n) <= _LARGEST for n in numbers)  # NaN is not
        if not (finite and all(isinstance(text, str) for text in texts)):
            raise ValueError("decision rules must be finite numbers, body parts and a source")
        if type(self.k) is not int or self.k < 1 or min(self.temperature, self.slope) < 1 / _LARGEST:
            raise ValueError("decision rules need a whole k of at least 1, a positive temperature and a positive slope")
        if len(self.appearance_limits) not in (0, len(MARGINS)):
            raise ValueError(f"decision rules need a limit for each of {', '.join(MARGINS)}, or none")

    def probabilities(self, logits: NDArray[np.floating], embeddings: NDArray[np.floating] | None = None) -> Floats:
        """Calibrated probabilities of abnormality (N,) from the model's logits (N,) and the embeddings (N, D).

        They are those of the local classifier, if there is one, which needs the embeddings. Raises ValueError without.
        """
        if self.local is not None:
            if embeddings is None:
                raise ValueError("a local classifier needs the embeddings")
            logits = self.local.logits(embeddings, logits)
        return sigmoid(self.slope * np.asarray(logits, np.float64) + self.intercept)

    @property
    def classifier(self) -> str:
        """Whose probabilities they are: "local" for a local classifier, else "model"."""
        return "model" if self.local is None else "local"

    def near_thresholds(self, classifier: float, vote: float | None) -> tuple[bool | None, bool | None]:
        """Whether the probabilities of classifier and vote are borderline; None where that is unknown."""
        widths = self.borderline
        if widths is None:
            return None, None
        near = None if vote is None else abs(vote - self.vote_threshold) <= widths.knn
        return abs(classifier - self.classifier_threshold) <= widths.classifier, near

    def to_dict(self) -> dict[str, object]:
        """The fields as JSON has them."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        if self.local is None:
            del values["local"]  # older versions know no such rule
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Rules":
        """The rules that `to_dict` gave, also after JSON. Raises ValueError for a missing, unknown or invalid rule.

        Older rules have no `parts`, no `appearance_limits` and no `borderline`, and most have no `local`.
        """
        if not isinstance(values, Mapping):
            raise ValueError("decision rules are named values")
        listed = {name: values.get(name, ()) for name in ("parts", "appearance_limits")}
        if set(values) | set(listed) | {"borderline", "local"} != set(cls.__slots__):
            raise ValueError(f"decision rules need exactly {', '.join(cls.__slots__)}")
        local = LocalClassifier.from_dict(values.get("local"))
        for name, value in listed.items():
            if not isinstance(value, list | tuple):
                raise ValueError(f"the {name} of decision rules are a list")
            listed[name] = tuple(value)
        widths = values.get("borderline")
        borderline = None if widths is None else Borderline.from_dict(widths)
        return cls(**{**values, **listed, "borderline": borderline, "local": local})  # type: ignore[arg-type]  # checked


DEFAULTS = Rules()
