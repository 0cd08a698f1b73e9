"""A classifier of a hospital's own radiographs: a logistic regression that begins with the model's classifier.

S studies with V radiographs; e an embedding of unit length (D,); l the logit that the model's classifier gives it.

    logit = a l + w.e,    minimising  sum_v c_v log(1 + exp(-y_v (logit_v + b))) + penalty |w|^2 / 2

with y_v in {-1, 1} and c_v = 1 / (radiographs of the study), so that every study counts once. Only w is penalised: an
infinite penalty leaves the model's classifier, calibrated by a and b. So few studies move it a little, and many studies
move it far.

The penalty is chosen by cross-validation by patient. An outer cross-validation around that choice measures what it
reaches on new patients (nested cross-validation: Varma and Simon 2006), beside the model's classifier, calibrated anew
on the same studies. The criterion: the local classifier is kept only where the 95 % interval of its gain in log loss by
study, paired and over resampled patients, lies above 0, and where its AUROC is not lower.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.decision.calibration import best_threshold, fit_platt, sigmoid
from retrieval.encoding.head import Head

__all__ = ["ClassifierTrial", "LocalClassifier", "Teaching", "log_losses", "paired_gain", "try_local_classifier"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PENALTIES = (np.inf, 30.0, 10.0, 3.0, 1.0, 0.3)
FOLDS = 5
FEWEST = 20  # studies of either label; with fewer no local classifier is tried
MOST = 1_000  # studies that a classifier is tried on; the rest would change nothing but the time
_ROUNDS, _SEED = 10_000, 0
_LEAST = 0.01  # of a probability in the log loss; unbounded, one study would decide
_FREE = 1e-3  # a penalty of the calibration, which keeps it finite on separable data


@dataclass(frozen=True, slots=True)
class LocalClassifier:
    """logit = `share` * the model's logit + `weights` . embedding; the rules calibrate it as they do the model's."""

    share: float
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = (self.share, *self.weights)
        if not self.weights or not all(type(n) in (int, float) and abs(n) <= 1e6 for n in numbers):
            raise ValueError("a local classifier needs a share and weights, all of them finite numbers")

    @classmethod
    def from_dict(cls, values: object) -> "LocalClassifier | None":
        """What `dataclasses.asdict` gave, also after JSON; None for None. Raises ValueError."""
        if values is None:
            return None
        if not isinstance(values, Mapping) or set(values) != {"share", "weights"}:
            raise ValueError("a local classifier has a share and weights")
        if not isinstance(values["weights"], list | tuple):
            raise ValueError("the weights of a local classifier are a list")
        return cls(values["share"], tuple(values["weights"]))

    def logits(self, embeddings: NDArray[np.floating], logits: NDArray[np.floating]) -> Floats:
        """Its logits (V,) of radiographs with these embeddings (V, D) and logits (V,) of the model's classifier."""
        return np.asarray(self.share * np.asarray(logits, np.float64) + embeddings @ np.array(self.weights), np.float64)

    def head(self, head: Head) -> Head:
        """The model's head with this classifier instead of its own, for heatmaps.

        relu(w.e) - relu(-w.e) = w.e, so two more hidden units make it.
        """
        weights = np.array(self.weights, np.float32)
        return replace(
            head,
            hidden_weight=np.vstack((head.hidden_weight, weights, -weights)),
            hidden_bias=np.concatenate((head.hidden_bias, np.zeros(2, np.float32))),
            output_weight=np.concatenate((self.share * head.output_weight, (1, -1))).astype(np.float32),
            output_bias=(self.share * head.output_bias).astype(np.float32),
        )


@dataclass(frozen=True, slots=True)
class Teaching:
    """What teaches: embeddings (V, D) and the model's logits (V,) of radiographs; the number of the study of each (V,).

    labels (S,) of 0 and 1; patients: S names.
    """

    embeddings: NDArray[np.float32]
    logits: NDArray[np.float32]
    study_of: Integers
    labels: Integers
    patients: Sequence[str]

    def select(self, studies: Integers) -> "Teaching":
        """Only these studies, which are in rising order."""
        rows = np.isin(self.study_of, studies)
        return Teaching(
            self.embeddings[rows],
            self.logits[rows],
            np.searchsorted(studies, self.study_of[rows]),
            self.labels[studies],
            [self.patients[study] for study in studies],
        )

    def of_studies(self, values: Floats) -> Floats:
        """The means (S,) over the radiographs of each study."""
        means: Floats = np.bincount(self.study_of, values) / np.bincount(self.study_of)
        return means


@dataclass(frozen=True, slots=True)
class Figures:
    """What a classifier reaches on patients who did not teach it: AUROC, kappa at learned thresholds, and log loss."""

    auroc: float
    kappa: float
    log_loss: float


@dataclass(frozen=True, slots=True)
class ClassifierTrial:
    """The model's classifier, calibrated anew, and a local one, on the same studies by nested cross-validation.

    `gain` in log loss by study, `low` and `high` its 95 % interval. `classifier` is None where it is not kept; else
    `slope` and `intercept` calibrate it, and `threshold` and `probabilities` (S,) rest on studies whose
    patients did not teach it.
    """

    studies: int
    model: Figures
    local: Figures
    gain: float
    low: float
    high: float
    classifier: LocalClassifier | None = None
    slope: float = 1.0
    intercept: float = 0.0
    threshold: float = 0.5
    probabilities: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The JSON object, without the classifier's numbers."""
        names = ("studies", "gain", "low", "high")
        figures = {
            name: {key: getattr(figures, key) for key in Figures.__slots__}
            for name, figures in (("model", self.model), ("local", self.local))
        }
        return {**{name: getattr(self, name) for name in names}, **figures, "kept": self.classifier is not None}


def try_local_classifier(teaching: Teaching) -> ClassifierTrial | None:
    """Try a local classifier beside the model's; None where too few studies of either label could judge it.

    The same studies give the same result. At most 1,000 studies are used, those of whole patients.
    """
    if np.bincount(teaching.labels, minlength=2).min() < FEWEST:
        return None
    if len(teaching.labels) > MOST:
        return None if (few := _some_patients(teaching)) is None else try_local_classifier(few)
    folds = _folds(teaching)
    rows = np.arange(len(teaching.labels))
    model, local = np.empty(len(rows)), np.empty(len(rows))
    calls = np.zeros((2, len(rows)), np.bool_)
    for fold in range(FOLDS):
        learned, held_out = teaching.select(rows[folds != fold]), teaching.select(rows[folds == fold])
        penalty, validated = _best_penalty(learned)
        for number, (scores, chosen) in enumerate(((model, np.inf), (local, penalty))):
            scores[folds == fold] = _fit(learned, chosen).probabilities(held_out)
            on = validated if number else _fit(learned, chosen).probabilities(learned)
            calls[number, folds == fold] = scores[folds == fold] > best_threshold(learned.labels, on)
    labels = teaching.labels
    losses = [log_losses(labels, scores) for scores in (model, local)]
    figures = [
        Figures(_auroc(labels, scores), _kappa(labels, call), float(loss.mean()))
        for scores, call, loss in zip((model, local), calls, losses, strict=True)
    ]
    gain, low, high = paired_gain(losses[0] - losses[1], teaching.patients)
    trial = ClassifierTrial(len(labels), figures[0], figures[1], gain, low, high)
    if not (low > 0 and figures[1].auroc >= figures[0].auroc):
        return trial
    return _kept(trial, teaching)


def _kept(trial: ClassifierTrial, teaching: Teaching) -> ClassifierTrial:
    """The trial with the classifier of all studies, calibrated on those of patients who did not teach it."""
    penalty, _ = _best_penalty(teaching)
    fitted = _fit(teaching, penalty)
    classifier = LocalClassifier(round(fitted.share, 6), tuple(np.round(fitted.weights, 6).tolist()))
    outside = _outside_logits(teaching, penalty)
    slope, intercept = fit_platt(outside, teaching.labels[teaching.study_of], _weights(teaching))
    if slope <= 0:  # cannot be where it beats the model's
        return trial
    probabilities = teaching.of_studies(sigmoid(slope * outside + intercept))
    return replace(
        trial,
        classifier=classifier,
        slope=slope,
        intercept=intercept,
        threshold=best_threshold(teaching.labels, probabilities),
        probabilities=tuple(probabilities.tolist()),
    )


@dataclass(frozen=True, slots=True)
class _Fitted:
    share: float
    weights: Floats
    bias: float

    def logits(self, teaching: Teaching) -> Floats:
        return self.share * teaching.logits.astype(np.float64) + teaching.embeddings @ self.weights + self.bias

    def probabilities(self, teaching: Teaching) -> Floats:
        """The studies' probabilities (S,): means over their radiographs."""
        return teaching.of_studies(sigmoid(self.logits(teaching)))


def _fit(teaching: Teaching, penalty: float, start: _Fitted | None = None) -> _Fitted:
    """The minimum of the module's formula, by Newton's method with halved steps. start: where to begin."""
    V, D = teaching.embeddings.shape
    y = teaching.labels[teaching.study_of].astype(np.float64)
    weights = _weights(teaching)
    scale = max(float(np.std(teaching.logits)), 1e-6)
    inputs = [np.ones(V), teaching.logits / scale]
    penalties = [_FREE, _FREE]
    if np.isfinite(penalty):
        inputs += [*teaching.embeddings.T.astype(np.float64)]
        penalties += [penalty] * D
    X, ridge = np.stack(inputs, 1), np.array(penalties)  # (V, M), (M,)
    solution = np.zeros(X.shape[1])
    if start is not None:
        solution[:2] = start.bias, start.share * scale
        solution[2:] = start.weights[: len(solution) - 2]

    def loss(at: Floats) -> float:
        z = X @ at
        return float(weights @ (np.logaddexp(0, z) - y * z) + ridge @ at**2 / 2)

    current = loss(solution)
    for _ in range(50):
        p = sigmoid(X @ solution)
        gradient = X.T @ (weights * (p - y)) + ridge * solution
        if np.abs(gradient).max() < 1e-6:
            break
        hessian = (X.T * (weights * p * (1 - p))) @ X + np.diag(ridge)
        step, size = np.linalg.solve(hessian, gradient), 1.0
        while size > 1e-6 and (there := loss(solution - size * step)) > current - 1e-4 * size * float(gradient @ step):
            size /= 2
        if size <= 1e-6:
            break
        solution, current = solution - size * step, there
    full = np.zeros(D)
    full[: len(solution) - 2] = solution[2:]
    return _Fitted(float(solution[1]) / scale, full, float(solution[0]))


def _best_penalty(teaching: Teaching) -> tuple[float, Floats]:
    """The penalty of the lowest log loss on patients left out, and the studies' probabilities (S,) there."""
    best = (np.inf, np.inf, np.empty(0))
    for penalty, outside in _outside(teaching, PENALTIES).items():
        probabilities = teaching.of_studies(sigmoid(outside))
        loss = float(log_losses(teaching.labels, probabilities).mean())
        if loss < best[0]:
            best = (loss, penalty, probabilities)
    return best[1:]


def _outside_logits(teaching: Teaching, penalty: float) -> Floats:
    """The logits (V,), without their bias, of radiographs whose patients are left out."""
    return _outside(teaching, (penalty,), bias=False)[penalty]


def _outside(teaching: Teaching, penalties: Sequence[float], *, bias: bool = True) -> dict[float, Floats]:
    """For each penalty the logits (V,) of radiographs whose patients are left out."""
    folds = _folds(teaching)
    studies = np.arange(len(folds))
    logits = {penalty: np.empty(len(teaching.study_of)) for penalty in penalties}
    for fold in range(FOLDS):
        learned, held_out = teaching.select(studies[folds != fold]), teaching.select(studies[folds == fold])
        rows = folds[teaching.study_of] == fold
        fitted: _Fitted | None = None
        for penalty in penalties:
            fitted = _fit(learned, penalty, fitted)
            logits[penalty][rows] = fitted.logits(held_out) - (0 if bias else fitted.bias)
    return logits


def _folds(teaching: Teaching) -> Integers:
    """The fold (S,) of each study, by patient, with as many patients who have an abnormal study in each."""
    names, owner_of = np.unique(list(teaching.patients), return_inverse=True)
    abnormal = np.bincount(owner_of, teaching.labels) > 0
    order = np.random.default_rng(_SEED).permutation(len(names))
    order = order[np.argsort(abnormal[order], kind="stable")]
    fold_of = np.empty(len(names), np.int64)
    fold_of[order] = np.arange(len(names)) % FOLDS
    return np.asarray(fold_of[owner_of], np.int64)


def _some_patients(teaching: Teaching) -> Teaching | None:
    """The studies of as many patients, drawn at random, as have at most MOST together."""
    names, owner_of, counts = np.unique(list(teaching.patients), return_inverse=True, return_counts=True)
    order = np.random.default_rng(_SEED).permutation(len(names))
    drawn = order[np.cumsum(counts[order]) <= MOST]
    studies = np.flatnonzero(np.isin(owner_of, drawn))
    return teaching.select(studies) if len(studies) else None


def _weights(teaching: Teaching) -> Floats:
    return np.asarray(1 / np.bincount(teaching.study_of)[teaching.study_of], np.float64)


def log_losses(labels: Integers, probabilities: Floats) -> Floats:
    """(S,), of probabilities that are at least 0.01 and at most 0.99."""
    right = np.clip(np.where(labels == 1, probabilities, 1 - probabilities), _LEAST, 1 - _LEAST)
    return np.asarray(-np.log(right), np.float64)


def _auroc(labels: Integers, scores: Floats) -> float:
    """The chance that an abnormal study scores above a normal one; a tie counts half."""
    above, below = scores[labels == 1][:, None], scores[labels == 0]
    return float((above > below).mean() + (above == below).mean() / 2)


def _kappa(labels: Integers, calls: NDArray[np.bool_]) -> float:
    """Cohen's kappa of labels and calls."""
    abnormal, called = labels.mean(), calls.mean()
    chance = abnormal * called + (1 - abnormal) * (1 - called)
    return float(((labels == 1) == calls).mean() - chance) / float(1 - chance)


def paired_gain(gains: Floats, patients: Sequence[str]) -> tuple[float, float, float]:
    """The mean of the studies' gains (S,), and its 95 % interval over resampled patients."""
    _, owner_of = np.unique(list(patients), return_inverse=True)
    sums, counts = np.bincount(owner_of, gains), np.bincount(owner_of)
    P = len(counts)
    generator = np.random.default_rng(_SEED)
    means = []
    for _ in range(_ROUNDS // 500):
        drawn = generator.multinomial(P, np.full(P, 1 / P), 500)  # (500, P)
        means.append((drawn @ sums) / (drawn @ counts))
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(gains.mean()), float(low), float(high)
