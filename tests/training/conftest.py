import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from index.case import Case
from training.data.dataset import TrainingSet
from training.recipe import Recipe

SIZE = 64
EXPORT = torch.onnx.export


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the cache of whoever runs it."""
    monkeypatch.setenv("MURA_SEARCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _quick_torch() -> Iterator[None]:
    """One thread, which is faster for tiny networks; and one trace of each network, which takes longer than a run.

    Later networks of the same layers give their weights to the trace. Each run still compares its export with torch.
    """
    torch.set_num_threads(1)
    traces: dict[tuple[str, torch.Size], Any] = {}

    def traced(network: torch.nn.Module, inputs: tuple[torch.Tensor], **options: Any) -> Any:
        key = str(network), inputs[0].shape
        if key not in traces:  # optimised, batch normalisation would have its weights in those of convolutions
            traces[key] = EXPORT(network, inputs, **options, optimize=False)
        weights, known = network.state_dict(), traces[key].model.graph.initializers
        traces[key].apply_weights({name: weights[name].clone() for name in weights if name in known})
        return traces[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.onnx, "export", traced)
        yield


@pytest.fixture
def real_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is traced as in a run of a user."""
    monkeypatch.setattr(torch.onnx, "export", EXPORT)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Small and from scratch."""
    return Recipe(
        backbone="timm:test_efficientnet",
        weights="",
        size=SIZE,
        epochs=2,
        identities=2,
        images=4,
        holdout=0.3,
        precision="float32",  # what is faster depends on what else the machine does, and two runs are compared here
    )


@pytest.fixture(scope="session")
def blobs() -> TrainingSet:
    """Smooth noise; abnormal ones have a bright blob, whose place is known. Two images a patient."""
    rng = np.random.default_rng(0)
    cases, pictures, coverage = [], [], []
    for patient in range(30):
        for image in range(2):
            label = patient % 2
            picture = cv2.GaussianBlur(rng.integers(0, 256, (SIZE, SIZE), np.uint8), (0, 0), 2)
            where = np.zeros((SIZE, SIZE), np.uint8)
            if label:
                cv2.circle(where, tuple(int(v) for v in rng.integers(16, 48, 2)), 7, 255, -1)
                picture = cv2.max(picture, where)
            name = f"{patient}/{image}"
            digest = hashlib.sha256(name.encode()).hexdigest()
            cases.append(Case(name, f"s{patient}", f"p{patient}", label, "finger", digest=digest))
            pictures.append(picture[:, :, None])
            coverage.append(cv2.resize(where, (SIZE // 4, SIZE // 4), interpolation=cv2.INTER_AREA))
    return TrainingSet.of_arrays(cases, np.stack(pictures), np.stack(coverage), np.ones(len(cases), bool))
