import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval.bundle import Bundle, digest_number
from retrieval.encoder import Encoder
from training.data import TrainingSet
from training.errors import TrainingError
from training.recipe import Recipe
from training.run import train


def same_answers(a: Path, b: Path, data: TrainingSet) -> None:
    pictures = list(np.broadcast_to(data.pictures[:6], (6, *data.pictures.shape[1:3], 3)))
    one, two = (Encoder.open(folder).encode_prepared(pictures) for folder in (a, b))
    np.testing.assert_allclose(one.embeddings, two.embeddings, atol=1e-6)
    np.testing.assert_allclose(one.logits, two.logits, atol=1e-6)


def test_a_run_gives_a_bundle_that_answers_as_torch_did(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    trained = train(blobs, recipe, tmp_path / "run", name="blobs", provenance={"synthetic": True})
    assert trained.export_difference <= 1e-4
    bundle = Bundle.open(trained.model)
    assert (bundle.name, bundle.backbone, bundle.dimension) == ("blobs", recipe.backbone, 128)
    assert bundle.synthetic
    assert bundle.provenance["pretrained"] is False
    assert bundle.preprocessing == recipe.preprocessing
    # What the bundle says it has seen are the training patients' files and no others.
    seen = bundle.seen()
    owners = {case.patient for case in blobs.cases if digest_number(case.digest) in seen}
    assert seen == {digest_number(case.digest) for case in blobs.cases if case.patient in owners}
    assert 15 <= len(owners) < 30
    with (tmp_path / "run" / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    assert all(np.isfinite(float(row["triplet"])) for row in rows)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"] == recipe.to_dict()
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_an_interrupted_run_goes_on_and_ends_as_an_uninterrupted_one(
    blobs: TrainingSet, recipe: Recipe, tmp_path: Path
) -> None:
    def interrupt(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "epoch" and done == 1:
            raise KeyboardInterrupt

    whole = train(blobs, recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(blobs, recipe, tmp_path / "parts", report=interrupt)
    assert (tmp_path / "parts" / "checkpoint.pt").exists()
    resumed = train(blobs, recipe, tmp_path / "parts")
    assert [dict(epoch) for epoch in resumed.epochs] == [dict(epoch) for epoch in whole.epochs]
    same_answers(whole.model, resumed.model, blobs)


def test_a_folder_of_another_run_is_not_touched(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": {}, "data_sha256": "other"}))
    with pytest.raises(TrainingError, match="another recipe"):
        train(blobs, recipe, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.json"]


def test_one_label_cannot_be_learned(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    normal = blobs.rows(np.flatnonzero([case.label == 0 for case in blobs.cases]))
    with pytest.raises(TrainingError, match="one label"):
        train(normal, recipe, tmp_path)


def test_it_learns(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    longer = replace(recipe, epochs=12, classification=1.0, learning_rate=1e-3)
    trained = train(blobs, longer, tmp_path)
    assert trained.epochs[-1]["triplet"] < 0.6 * trained.epochs[0]["triplet"]
    assert trained.epochs[-1]["regions"] < 0.8 * trained.epochs[0]["regions"]
