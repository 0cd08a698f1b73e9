"""The model bundle of a trained network: exported, its embedding and classifier completed, calibrated, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.decision.fit_rules import learn_rules
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.bundle import APPEARANCE, HARMONISATION, Bundle, write_bundle
from retrieval.encoding.encoder import Encoder
from retrieval.indexing.borderline import with_borderline
from training.data.dataset import TrainingSet
from training.export.appearance_subspace import share_with_looks
from training.export.classifier_stage import fit_classifier
from training.export.harmonisation import fit_harmonisation
from training.export.onnx import check_export, export_encoder
from training.export.probes import fit_appearance, show
from training.model.siamese import Siamese, SiameseHead
from training.recipe import Recipe
from training.types import Report

__all__ = ["BundleExport", "encode"]

COPIES = 2  # of each radiograph, processed otherwise, from which classifier and rules are learned too
_AT_ONCE = 16  # pictures


@dataclass(frozen=True, slots=True)
class BundleExport:
    """Writes the bundle of a run into `folder`.

    data: the radiographs of the recipe's part, those that the network learned from and those held out. about: what
    model.json says. Without `appearance` the bundle cannot recognise body part, polarity and rotation.
    """

    folder: Path
    data: TrainingSet
    recipe: Recipe
    about: Mapping[str, Any]
    appearance: bool
    report: Report

    def write(self, model: Siamese, learning: TrainingSet) -> tuple[Rules, float]:
        """Write the bundle of a network that learned from `learning`.

        Gives the decision rules, and the largest difference between the bundle and torch (see `check_export`).
        """
        recipe, data, head = self.recipe, self.data, model.head
        seen = {case.digest for case in learning.cases}
        taught = np.array([row for row, case in enumerate(data.cases) if case.digest in seen])

        self.folder.mkdir(exist_ok=True)
        export_encoder(model, recipe.size, self.folder / "encoder.onnx")
        encoder = Encoder(self._write(head, learning))

        shown = None
        if recipe.looks or self.appearance:
            shown = show(encoder, learning, recipe.seed, lambda done, total: self.report("look", done, total, {}))
        if shown and recipe.looks:
            share_with_looks(head, shown, recipe.looks)
            encoder = Encoder(self._write(head, learning))

        versions = [encode(encoder, data, self.report)[0]]
        if recipe.processing:
            generators = [np.random.default_rng([recipe.seed, number]) for number in range(COPIES)]
            versions += [encode(encoder, data, self.report, generator)[0] for generator in generators]
        if recipe.second_stage:
            labels = [data.cases[row].label for row in taught] * len(versions)
            fit_classifier(head, np.concatenate([version[taught] for version in versions]), labels, recipe.seed)
            encoder = Encoder(self._write(head, learning))
        if recipe.harmonisation and not recipe.processing:  # whose classifier has learned from such copies itself
            cases = [data.cases[row] for row in taught]
            layer = fit_harmonisation(
                encoder, cases, recipe.seed, lambda done, total: self.report("harmonise", done, total, {})
            )
            if layer:
                (self.folder / HARMONISATION).write_bytes(layer.dump())
        embeddings, *others = versions
        logits = encoder.head.classify(embeddings)

        layers = None
        if shown and self.appearance:
            layers = fit_appearance(encoder.head.embed(shown.features), shown.parts)
            (self.folder / APPEARANCE).write_bytes(layers.dump())

        trained_on = self._write(head, learning).seen()
        copies = [(path, encoder.head.classify(path)) for path in others]
        studies = LabelledStudies(data.cases, embeddings, logits, trained_on)
        rules = learn_rules(studies, appearance=layers, copies=copies)
        rules = with_borderline(rules, studies, encoder=encoder)
        sample = np.random.default_rng(recipe.seed).permutation(len(data.cases))[:8]
        bundle = self._write(head, learning, rules)
        return rules, check_export(model, bundle, _rgb(data.take(sample.tolist())[0]))

    def _write(self, head: SiameseHead, learning: TrainingSet, rules: Rules | None = None) -> Bundle:
        """Write the head and model.json as they are now, and open the bundle."""
        head.export().save(self.folder / "head.safetensors")
        write_bundle(
            self.folder,
            about=self.about,
            preprocessing=self.recipe.preprocessing,
            rules=rules.to_dict() if rules else None,
            seen=[case.digest for case in learning.cases],
            hashes=learning.hashes,
        )
        return Bundle.open(self.folder)


def encode(
    encoder: Encoder,
    data: TrainingSet,
    report: Report = lambda stage, done, total, figures: None,
    generator: np.random.Generator | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings (N, D) and logits (N,) of prepared radiographs, processed as the generator draws, if there is one."""
    N = len(data.cases)
    embeddings, logits = np.empty((N, encoder.bundle.dimension), np.float32), np.empty(N, np.float32)
    for start in range(0, N, _AT_ONCE):
        stop = min(start + _AT_ONCE, N)
        encoded = encoder.encode_prepared(list(_rgb(data.take(range(start, stop), generator)[0])))
        embeddings[start:stop], logits[start:stop] = encoded.embeddings, encoded.logits
        report("encode", stop, N, {})
    return embeddings, logits


def _rgb(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.broadcast_to(pictures, (*pictures.shape[:3], 3))
