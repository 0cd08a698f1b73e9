"""A small index with everything in it that makes a search hard: equal vectors, equal similarities, lone studies."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.builder import IndexBuilder
from index.case import Case
from index.milvus.store import MilvusSettings
from tests.index.milvus.server import MilvusServer, names, server_place

Sample = tuple[list[Case], NDArray[np.float32], list[bytes], NDArray[np.float32]]


@pytest.fixture(scope="session")
def sample() -> Sample:
    """60 cases of 25 studies of 15 patients: cases, (60, 8) embeddings, thumbnails, logits."""
    rng = np.random.default_rng(7)
    studies = [*range(25), *rng.integers(0, 25, 35).tolist()]
    cases = [
        Case(
            case=f"train/study{study}/image{number}.png",
            study=f"study{study}",  # as text study10 comes before study2
            patient=f"patient{study % 15}",
            label=study % 2,
            part=("finger", "wrist", "élbow")[study % 3],
            view=("pa", "lateral", "")[number % 3],
            split="train",
            path=f"/data/train/study{study}/image{number}.png",
            digest=f"{number % 55:064x}",  # the last five files are copies of the first five
        )
        for number, study in enumerate(studies)
    ]
    vectors = rng.normal(size=(60, 8))
    vectors[20:40] = np.eye(8)[rng.integers(0, 8, 20)]  # many alike
    vectors[50:] = vectors[:10]
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    thumbnails = [bytes(rng.bytes(int(rng.integers(1, 6000)))) for _ in cases]
    return cases, unit, thumbnails, rng.normal(size=60).astype(np.float32)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to be copied into an index, whatever is in it."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "model.json").write_text("{}")
    (folder / "parts").mkdir()
    (folder / "parts" / "encoder.onnx").write_bytes(bytes(range(256)))
    return folder


@pytest.fixture(scope="session")
def write_index(model: Path) -> Callable[[Path, Sample], Path]:
    def write(place: Path, sample: Sample) -> Path:
        cases, embeddings, thumbnails, logits = sample
        with IndexBuilder.start(place, model=model, dimension=embeddings.shape[1], fingerprint="sample") as build:
            build.add(cases, embeddings, thumbnails, logits)
            build.set_metadata("rules", {"k": 15, "source": "a sentence"})
            build.finish()
        return place

    return write


@pytest.fixture(scope="session")
def template(
    tmp_path_factory: pytest.TempPathFactory, write_index: Callable[[Path, Sample], Path], sample: Sample
) -> Path:
    return write_index(tmp_path_factory.mktemp("template") / "index", sample)


@pytest.fixture
def place(tmp_path: Path, template: Path) -> Path:
    """A copy of the sample's index, to do anything to."""
    shutil.copytree(template, tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    running = MilvusServer(tmp_path_factory.mktemp("milvus"))
    running.start()
    yield running
    running.kill()


@pytest.fixture(scope="module", params=["lite", pytest.param("server", marks=[pytest.mark.server, pytest.mark.slow])])
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., MilvusSettings]:
    """Makes places with nothing there yet."""
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    if request.param == "server":
        server = request.getfixturevalue("server")
        return lambda **changes: server_place(server, **changes)
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    folder = tmp_path_factory.mktemp("lite")
    return lambda **changes: MilvusSettings(str(folder / f"{next(names)}.db"), **changes)
