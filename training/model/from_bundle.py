"""The network of a model bundle, to train it further.

A bundle's encoder is ONNX, with batch normalisation folded into the convolutions before it. So the convolutions are
taken in their order, and each batch normalisation only adds the bias.
"""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from index.errors import MuraSearchError
from retrieval.encoding.head import Head
from training.errors import TrainingError
from training.model.siamese import Siamese, SiameseHead

__all__ = ["is_bundle", "load_bundle"]


def is_bundle(weights: str) -> bool:
    """Whether a recipe's `weights` name the folder of a model bundle."""
    return weights not in ("", "imagenet") and (Path(weights) / "encoder.onnx").is_file()


def load_bundle(model: Siamese, folder: Path) -> None:
    """Give `model` the weights of the bundle in `folder`. Raises TrainingError where its network is another one."""
    try:
        head = Head.parse((folder / "head.safetensors").read_bytes())
    except (OSError, MuraSearchError) as error:
        raise TrainingError(f"{folder} is no model bundle to train further: {error}") from error
    _load_backbone(model.backbone, folder)
    _load_head(model.head, head, folder)


def _load_backbone(backbone: nn.Module, folder: Path) -> None:
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(folder / "encoder.onnx").graph
    values = {tensor.name: np.array(to_array(tensor)) for tensor in graph.initializer}
    folded = [node for node in graph.node if "Conv" in node.op_type]
    layers = [module for module in backbone.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    convolutions, norms = layers[::2], layers[1::2]
    fits = len(folded) == len(convolutions) == len(norms) and all(
        isinstance(convolution, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and len(node.input) == 3
        and tuple(values[node.input[1]].shape) == tuple(convolution.weight.shape)
        for node, convolution, norm in zip(folded, convolutions, norms, strict=True)
    )
    if not fits:
        raise TrainingError(f"{folder} holds another network than the recipe's backbone; name its own --backbone")
    with torch.no_grad():
        for node, convolution, norm in zip(folded, convolutions, norms, strict=True):
            cast(nn.Conv2d, convolution).weight.copy_(torch.from_numpy(values[node.input[1]]))
            normalised = cast(nn.BatchNorm2d, norm)
            cast(Tensor, normalised.running_mean).zero_()
            cast(Tensor, normalised.running_var).fill_(1 - normalised.eps)
            normalised.weight.fill_(1)
            normalised.bias.copy_(torch.from_numpy(values[node.input[2]]))


def _load_head(own: SiameseHead, head: Head, folder: Path) -> None:
    named = {name: torch.from_numpy(np.array(getattr(head, name.replace(".", "_")))) for name in own.state_dict()}
    with torch.no_grad():
        for name, value in own.named_parameters():
            if named[name].numel() != value.numel():
                raise TrainingError(
                    f"{folder} has another head than the recipe's: {name} differs; set dimension, hidden"
                )
            value.copy_(named[name].reshape(value.shape))
