from pathlib import Path

import cv2
import numpy as np
import torch

from retrieval.datasets.collection import read_collection
from training.data.dataset import load_training_set
from training.export.bundle import BundleExport
from training.model.backbone import load_backbone
from training.model.siamese import Siamese
from training.recipe import Recipe


def test_a_bundle_knows_how_far_mild_changes_move_its_predictions(tmp_path: Path, recipe: Recipe) -> None:
    rng = np.random.default_rng(0)
    lines = ["path,label,patient,part"]
    for patient in range(56):
        picture = cv2.GaussianBlur(rng.integers(0, 256, (64, 64), np.uint8), (0, 0), 1 + patient % 2)
        cv2.imwrite(str(tmp_path / f"{patient}.png"), picture)
        lines.append(f"{patient}.png,{'abnormal' if patient % 2 else 'normal'},p{patient},hand")
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    data, _ = load_training_set([read_collection(tmp_path)], recipe.preprocessing)
    torch.manual_seed(0)
    backbone, channels = load_backbone(recipe.backbone, "")
    model = Siamese(backbone, channels, recipe.dimension, recipe.hidden).eval()

    about: dict[str, object] = {
        "name": "m",
        "backbone": recipe.backbone,
        "dimension": recipe.dimension,
        "test_time": "",
        "provenance": {},
    }
    export = BundleExport(tmp_path / "model", data, recipe, about, False, lambda stage, done, total, figures: None)
    learning = data.rows(np.arange(12))  # 44 patients, half of them abnormal, are left for the rules
    rules, _ = export.write(model, learning)
    assert rules.borderline is not None
    assert 0 < rules.borderline.classifier < 1
    assert 0 < rules.borderline.knn < 1
