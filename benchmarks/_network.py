"""The same network for both sides of a benchmark: as a model bundle, and as a torch module."""

from pathlib import Path

import torch
from torch import Tensor, nn

from retrieval.encoding.bundle import Bundle, write_bundle
from retrieval.images.preprocessing import Preprocessing
from training.export.onnx import export_encoder
from training.model.backbone import load_backbone
from training.model.siamese import Siamese

__all__ = ["make_both"]

BACKBONE = "timm:tf_efficientnet_lite0"


class Plain(nn.Module):
    """The network in plain torch: pictures to embeddings and logits."""

    def __init__(self, model: Siamese) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(pictures)
        return output.embeddings, output.logits


def make_both(folder: Path, preprocessing: Preprocessing) -> tuple[Bundle, Plain]:
    """A network with ImageNet's weights and a seeded head: the bundle in FOLDER/model, and the torch module."""
    torch.manual_seed(0)
    backbone, channels = load_backbone(BACKBONE, "imagenet")
    model = Siamese(backbone, channels, 128, 64).eval()
    bundle = folder / "model"
    bundle.mkdir()
    export_encoder(model, preprocessing.size, bundle / "encoder.onnx")
    model.head.export().save(bundle / "head.safetensors")
    about = {"name": "benchmark", "backbone": BACKBONE, "dimension": 128, "provenance": {}}
    write_bundle(bundle, about=about, preprocessing=preprocessing, rules=None, seen=[])
    return Bundle.open(bundle), Plain(model).eval()
