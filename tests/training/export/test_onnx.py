from pathlib import Path

import onnx
import pytest

torch = pytest.importorskip("torch")

from retrieval.encoding.bundle import BUNDLED  # noqa: E402
from training.export.onnx import export_encoder  # noqa: E402


class _Network(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.BatchNorm2d(4), torch.nn.ReLU())


def test_an_exported_network_has_no_paths_of_this_machine(tmp_path: Path) -> None:
    export_encoder(_Network(), 32, tmp_path / "encoder.onnx")
    for file in (tmp_path / "encoder.onnx", BUNDLED / "encoder.onnx"):
        data = file.read_bytes()
        assert b"site-packages" not in data
        assert str(Path(__file__).parents[3]).encode() not in data
        onnx.checker.check_model(onnx.load(file), full_check=True)
