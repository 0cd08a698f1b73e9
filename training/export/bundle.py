"""A trained network becomes a model bundle: exported, its embedding and classifier completed, calibrated, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.decision.rules import Rules, learn_rules
from retrieval.encoding.bundle import APPEARANCE, Bundle, write_bundle
from retrieval.encoding.encoder import Encoder
from training.data.dataset import TrainingSet
from training.export.appearance_subspace import share_with_looks
from training.export.classifier_stage import fit_classifier
from training.export.onnx import check_export, export_encoder, store_as_half
from training.export.probes import Shown, fit_appearance, show
from training.glance import glances, heed_glance, share_with_glance, with_glance
from training.loop.trainer import Report
from training.model.backbone import load_backbone
from training.model.siamese import Siamese
from training.recipe import Recipe

__all__ = ["Finish", "encode"]


@dataclass(frozen=True, slots=True)
class Finish:
    """What the bundles of a run have in common.

    data: radiographs of the recipe's part, those that taught and those held out. about: what model.json is to say.
    Without `appearance` a bundle cannot tell body part, polarity and turning.
    """

    folder: Path
    data: TrainingSet
    recipe: Recipe
    about: Mapping[str, Any]
    appearance: bool
    report: Report

    def bundle(self, model: Siamese, learning: TrainingSet, rules: Rules | None = None) -> tuple[Rules, float]:
        """Write the bundle of a network that learned from `learning`; its rules, and how far it differs from torch.

        Rules that are given are not learned.
        """
        recipe, data = self.recipe, self.data
        self.folder.mkdir(exist_ok=True)
        if recipe.glance:
            model = with_glance(model, load_backbone(recipe.backbone, recipe.weights)[0])
        export_encoder(model, recipe.size, self.folder / "encoder.onnx")
        seen = {case.digest for case in learning.cases}

        def write(rules: Rules | None = None) -> Bundle:
            model.head.export().save(self.folder / "head.safetensors")
            write_bundle(
                self.folder,
                about=self.about,
                preprocessing=recipe.preprocessing,
                rules=rules.to_dict() if rules else None,
                seen=seen,
            )
            return Bundle.open(self.folder)

        taught = np.array([row for row, case in enumerate(data.cases) if case.digest in seen])
        encoder, shown, slope = Encoder(write()), None, 0.0
        if recipe.looks or recipe.glance or self.appearance:
            shown = show(encoder, learning, recipe.seed, lambda done, of: self.report("look", done, of, {}))
            slope = self._complete(model, encoder, shown, data.rows(taught))
            encoder = Encoder(write())
        embeddings, logits = encode(encoder, data, self.report)
        if recipe.second_stage:
            labels = [data.cases[row].label for row in taught]
            self._classify(model, embeddings[taught], labels, slope)
            logits = Encoder(write()).head.classify(embeddings)
        layers = None
        if self.appearance and shown:
            layers = fit_appearance(encoder.head.embed(shown.features), shown.parts)
            (self.folder / APPEARANCE).write_bytes(layers.dump())
        rules = rules or learn_rules(data.cases, embeddings, logits, trained_on=write().seen(), appearance=layers)
        sample = np.random.default_rng(recipe.seed).permutation(len(data.cases))[:8]
        difference = check_export(model, write(rules), _rgb(data.take(sample.tolist())[0]))
        if recipe.glance:  # two networks then take as much space as one
            store_as_half(self.folder / "encoder.onnx")
            write(rules)
        return rules, difference

    def _complete(self, model: Siamese, encoder: Encoder, shown: Shown, taught: TrainingSet) -> float:
        """Give shares of the embedding to looks and glance; the factor that makes a logit of the latter, 0 without."""
        if self.recipe.looks:
            share_with_looks(model.head, shown, self.recipe.looks)
        if not self.recipe.glance:
            return 0.0
        seen = glances(encoder, taught, lambda done, of: self.report("glance", done, of, {}))
        return share_with_glance(model.head, shown, seen, [case.label for case in taught.cases], self.recipe.glance)

    def _classify(self, model: Siamese, embeddings: NDArray[np.float32], labels: list[int], slope: float) -> None:
        """The second stage, on embeddings (N, D) of what taught; with a glance, without what that gives of them."""
        if self.recipe.glance:
            embeddings[:, -1] = 0
        fit_classifier(model.head, embeddings, labels, self.recipe.seed)
        if self.recipe.glance:
            heed_glance(model.head, slope)


def encode(
    encoder: Encoder, data: TrainingSet, report: Report = lambda stage, done, total, figures: None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings (N, D) and logits (N,) of prepared radiographs."""
    N = len(data.cases)
    embeddings, logits = np.empty((N, encoder.bundle.dimension), np.float32), np.empty(N, np.float32)
    for start in range(0, N, 16):
        stop = min(start + 16, N)
        encoded = encoder.encode_prepared(list(_rgb(data.take(range(start, stop))[0])))
        embeddings[start:stop], logits[start:stop] = encoded.embeddings, encoded.logits
        report("encode", stop, N, {})
    return embeddings, logits


def _rgb(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3))
