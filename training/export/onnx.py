"""Export of a trained network to ONNX, and the check of a bundle against torch."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from retrieval.encoding.bundle import Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.images.preprocessing import normalise
from training.errors import TrainingError
from training.model.siamese import Siamese

__all__ = ["check_export", "export_encoder"]

TOLERANCE = 1e-4
_SMALL = 1024  # numbers; smaller tensors are not worth rounding


def export_encoder(model: Siamese, size: int, file: Path) -> None:
    """Write the backbone as ONNX (B, 3, S, S) -> (B, C, h, w), dynamic in B, batch normalisation folded in."""
    import onnxruntime as ort

    raw = file.with_suffix(".raw.onnx")
    program = torch.onnx.export(
        model.backbone.float().eval(),
        (torch.zeros(2, 3, size, size),),
        input_names=["pictures"],
        output_names=["maps"],
        dynamic_shapes=({0: torch.export.Dim("B", min=1, max=4096)},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(raw, external_data=False)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC  # the part that fits every machine
    options.optimized_model_filepath = str(file)
    options.log_severity_level = 3
    ort.InferenceSession(str(raw), options, providers=["CPUExecutionProvider"])
    raw.unlink()
    _remove_traces(file)


def _remove_traces(file: Path) -> None:
    """Remove what torch writes of its call stack: it has the paths of the machine that trains."""
    import onnx

    model = onnx.load(file)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(model, file)


def check_export(model: Siamese, bundle: Bundle, pictures: NDArray[np.uint8]) -> float:
    """Compare bundle and torch on prepared pictures (B, S, S, 3): the largest difference of embedding and probability.

    Raises TrainingError where it is above 1e-4: a model that differs after export must not be used.
    """
    encoded = Encoder(bundle).encode_prepared(list(pictures))
    views = [pictures, pictures[:, :, ::-1]] if bundle.test_time == "mirror" else [pictures]
    with torch.inference_mode():
        inputs = [torch.from_numpy(normalise(list(view), bundle.preprocessing)) for view in views]
        outputs = [model.float().eval()(view) for view in inputs]
    embeddings = normalize(torch.stack([output.embeddings for output in outputs]).mean(0), dim=1)
    logits = torch.stack([output.logits for output in outputs]).mean(0)
    difference = max(
        float(np.abs(encoded.embeddings - embeddings.numpy()).max()),
        float(np.abs(1 / (1 + np.exp(-encoded.logits)) - logits.sigmoid().numpy()).max()),
    )
    if not difference <= TOLERANCE:
        raise TrainingError(
            f"the exported model differs from torch by {difference:.1e}, more than {TOLERANCE:.0e}; report this"
        )
    return difference
