"""Validation of an epoch on held-out training patients."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from index.case import Case
from retrieval.decision.calibration import best_threshold, sigmoid
from retrieval.evaluation.metrics import Predictor, measure
from training.data.dataset import TrainingSet
from training.data.loader import normalised
from training.data.sampler import batches, identity_numbers
from training.errors import TrainingError
from training.model.losses import LOSSES
from training.model.mining import valid_pairs
from training.model.siamese import Siamese
from training.recipe import Recipe

__all__ = ["embedding_loss", "validate"]

_NEIGHBOURS = 9
_AT_ONCE = 32


@torch.inference_mode()
def validate(model: Siamese, holdout: TrainingSet, recipe: Recipe, device: torch.device) -> dict[str, float]:
    """Figures of held-out patients: the embedding's loss, AUROC by image, and Cohen's kappa by study.

    The kappa is that of the classifier if it trains jointly, else that of the vote among the held-out images. Its
    threshold is the best one for these images, so it serves to choose an epoch and is not an estimate.
    """
    model.eval()
    outputs = []
    for start in range(0, len(holdout.cases), _AT_ONCE):
        pictures, _ = holdout.take(range(start, min(start + _AT_ONCE, len(holdout.cases))))
        inputs = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 255
        output = model(normalised(inputs, recipe))
        outputs.append((output.embeddings.cpu(), output.logits.cpu(), output.suspicion.flatten(1).amax(1).cpu()))
    embeddings, logits, suspicion = (torch.cat(column).double().numpy() for column in zip(*outputs, strict=True))
    labels = np.array([case.label for case in holdout.cases])
    votes = _votes(embeddings, labels, [case.patient for case in holdout.cases])
    return {
        "valid_loss": embedding_loss(embeddings, holdout.cases, recipe),
        "valid_auroc": _auroc(labels, logits),
        "valid_vote_auroc": _auroc(labels, votes),
        "valid_suspicion_auroc": _auroc(labels, suspicion),
        "valid_kappa": _study_kappa(holdout.cases, sigmoid(logits) if recipe.classification else votes),
    }


def embedding_loss(embeddings: NDArray[np.floating], cases: Sequence[Case], recipe: Recipe) -> float:
    """The recipe's loss of embeddings (N, D) of `cases`: the mean over the P x K batches of one epoch.

    A loss over all pairs of N depends on N; this one is that of training. NaN where no part has both labels.
    """
    e = torch.from_numpy(np.asarray(embeddings, np.float32))
    identities = torch.tensor(identity_numbers(cases))
    patients = torch.from_numpy(np.unique([case.patient for case in cases], return_inverse=True)[1])
    try:
        drawn = list(batches(cases, recipe.identities, recipe.images, np.random.default_rng(recipe.seed)))
    except TrainingError:
        return float("nan")
    losses = [LOSSES[recipe.loss](e[rows], valid_pairs(identities[rows], patients[rows]), recipe) for rows in drawn]
    return float(torch.stack(losses).mean())


def _auroc(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    return float(measure(labels, Predictor(scores, scores > 0))["auroc"][0])


def _study_kappa(cases: Sequence[Case], scores: NDArray[np.float64]) -> float:
    _, first, study_of = np.unique([case.study for case in cases], return_index=True, return_inverse=True)
    labels = np.array([cases[i].label for i in first])
    means = np.clip(np.bincount(study_of, scores) / np.bincount(study_of), 0, 1)
    return float(measure(labels, Predictor(means, means > best_threshold(labels, means)))["kappa"][0])


def _votes(embeddings: NDArray[np.float64], labels: NDArray[np.int64], patients: Sequence[str]) -> NDArray[np.float64]:
    """The share of abnormal among the nearest images of other patients (N,)."""
    numbers = np.unique(patients, return_inverse=True)[1]
    votes = np.full(len(labels), 0.5)  # of nobody, where there is no other patient
    for row, embedding in enumerate(embeddings):
        others = np.flatnonzero(numbers != numbers[row])
        nearest = others[np.argsort(-embeddings[others] @ embedding, kind="stable")[:_NEIGHBOURS]]
        if len(nearest):
            votes[row] = labels[nearest].mean()
    return votes
