"""Approximate search: as good as it says, and never short of studies."""

import shutil
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from index.builder import IndexBuilder
from index.case import Case
from index.reader import IndexReader
from index.vectors.base import Demand
from index.vectors.faiss import FaissStore
from index.vectors.study_search import nearest_studies
from index.writer import IndexWriter

N, D = 12_000, 32


def clustered(seed: int, count: int) -> NDArray[np.float32]:
    """Unit vectors in clusters, as embeddings are."""
    centres = np.random.default_rng(0).normal(size=(150, D))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 150, count)] + 0.7 * rng.normal(size=(count, D))
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


VECTORS = clustered(1, N)
QUERIES = clustered(2, 100)
CASES = [Case(f"{n}.png", f"s{n // 2}", f"p{n // 4}", n // 2 % 2, "finger" if n % 40 else "toe") for n in range(N)]


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small indexes be approximated, too."""
    monkeypatch.setattr("index.vectors.faiss._ALWAYS_EXACT", 0)
    monkeypatch.setattr("index.vector_update.SMALL", 0)


@pytest.fixture(scope="module")
def approximate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("approximate")
    (root / "model").mkdir()
    with (
        pytest.MonkeyPatch.context() as patched,
        IndexBuilder.start(root / "index", model=root / "model", dimension=D, fingerprint="f") as build,
    ):
        patched.setattr("index.vectors.faiss._ALWAYS_EXACT", 0)
        build.add(CASES, VECTORS, [b""] * N, np.zeros(N, np.float32))
        build.set_metadata("demand", {"latency": 1e-6, "recall": 0.95, "memory": N * (D + 8)})
        build.finish()
    return root / "index"


def recall(store: FaissStore, queries: NDArray[np.float32], allowed: NDArray[np.bool_] | None = None) -> float:
    """The share of the ten nearest that are among the candidates, by NumPy."""
    similarities = queries @ VECTORS.T
    if allowed is not None:
        similarities[:, ~allowed] = -2
    truth = np.argsort(-similarities, axis=1)[:, :10]
    found = store.search(queries, 66, allowed)[1]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth.tolist(), found.tolist(), strict=True)]))


@pytest.mark.parametrize(
    ("demand", "kind"),
    [
        (Demand(recall=0.95, latency=1e3, memory=N * (D + 8)), "faiss-ivf-sq8"),
        (Demand(recall=0.8, latency=1e3, memory=N * (D // 2 + 8)), "faiss-ivf-pq16"),
        (Demand(recall=0.95, latency=1e3), "faiss-flat"),
    ],
)
def test_the_first_that_reaches_the_demand_is_taken(demand: Demand, kind: str) -> None:
    data, measured = FaissStore.approximate(VECTORS, demand)
    store = FaissStore(VECTORS, data, measured)
    told = store.describe()
    assert told["kind"] == kind
    assert told["exact"] == (kind == "faiss-flat")
    if kind != "faiss-flat":
        assert measured["recall"] >= demand.recall
        assert demand.memory is not None
        assert len(data) < demand.memory + 200_000  # and its centres
        # Measured on its own vectors, it holds on others: 1,000 neighbours, so 0.02 is more than chance.
        assert recall(store, QUERIES) >= measured["recall"] - 0.02


def test_where_nothing_is_fast_enough_the_best_is_taken() -> None:
    _, measured = FaissStore.approximate(VECTORS, Demand(recall=0.95, latency=1e-6))
    assert measured["recall"] >= 0.95
    assert measured["latency"] > 1e-6  # it says so


def test_without_room_the_smallest_is_taken_and_says_what_it_takes() -> None:
    data, measured = FaissStore.approximate(VECTORS, Demand(memory=1000))
    assert measured["kind"] == "ivf-pq4"
    assert measured["bytes"] == len(data) > 1000


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_a_filter_costs_no_recall(share: float) -> None:
    data, measured = FaissStore.approximate(VECTORS, Demand(0.95, 1e-6, N * (D + 8)))
    allowed = np.random.default_rng(3).random(N) < share
    store = FaissStore(VECTORS, data, measured)
    assert recall(store, QUERIES, allowed) >= measured["recall"] - 0.02
    positions = store.search(QUERIES, 66, allowed)[1]
    assert allowed[positions[positions >= 0]].all()
    assert (positions >= 0).mean() > 0.9


def test_k_studies_are_found_whenever_there_are_k(approximate: Path) -> None:
    with IndexReader.open(approximate) as folder:
        assert not folder.info()["store"]["exact"]  # type: ignore[index]
        toes = {case.study for case in CASES if case.part == "toe"}
        for k in (1, 15, 250, len(toes) + 5):
            for hits in folder.search(QUERIES[:3], k, where={"part": ["toe"]}):
                assert len({hit.case.study for hit in hits}) == len(hits) == min(k, len(toes))
                assert {hit.case.part for hit in hits} == {"toe"}
        (everything,) = folder.search(QUERIES[:1], N)
        assert len(everything) == N // 2
        own = [[f"p{n}"] for n in range(50)]
        for patients, hits in zip(own, folder.search(VECTORS[: 4 * 50 : 4], 15, exclude_patients=own), strict=True):
            assert len(hits) == 15
            assert patients[0] not in {hit.case.patient for hit in hits}


def test_similarities_are_exact_and_what_is_shown_is_in_order(approximate: Path) -> None:
    with IndexReader.open(approximate) as folder:
        for query, hits in zip(QUERIES, folder.search(QUERIES, 9), strict=True):
            similarities = [hit.similarity for hit in hits]
            assert similarities == sorted(similarities, reverse=True)
            for hit in hits:
                exact = VECTORS[int(hit.case.case[:-4])].astype(np.float64) @ query.astype(np.float64)
                assert hit.similarity == np.float32(exact)


def test_what_was_added_and_removed_since_is_searched_exactly(tmp_path: Path, approximate: Path) -> None:
    place = Path(shutil.copytree(approximate, tmp_path / "index"))
    before = (place / "vectors.faiss").read_bytes()
    with IndexWriter.open(place) as edit:
        edit.add(
            [Case("new.png", "new", "new", 1), Case("second.png", "s3", "p1", 1)],
            QUERIES[:2],
            [b""] * 2,
            np.zeros(2, np.float32),
        )
        edit.remove({"patient": ["p7"]})
    assert edit.behind == 6
    assert (place / "vectors.faiss").read_bytes() == before
    with IndexReader.open(place) as folder:
        folder.verify()
        found = folder.search(np.vstack((QUERIES[:2], VECTORS[28:32])), 5)
        assert found[0][0].case.case == "new.png"
        assert found[1][0].case.case == "second.png"
        assert [hit.case.study for hit in found[1]].count("s3") == 1  # one study, in the file and beyond it
        assert not [hit for hits in found for hit in hits if hit.case.patient == "p7"]
        assert folder.embeddings().shape == (N - 4 + 2, D)
    with IndexWriter.open(place) as edit:
        edit.compact()
    assert edit.behind == 0
    after = (place / "vectors.faiss").read_bytes()
    assert VECTORS[28].tobytes() in before
    assert VECTORS[28].tobytes() not in after
    with IndexReader.open(place) as folder:
        assert folder.verify()
        assert folder.search(QUERIES[:1], 1)[0][0].case.case == "new.png"


def test_another_demand_is_met_from_then_on(tmp_path: Path, approximate: Path) -> None:
    place = Path(shutil.copytree(approximate, tmp_path / "index"))
    with IndexWriter.open(place) as edit:
        edit.compact(latency=1e6, memory=1e9)
    with IndexReader.open(place) as folder:
        assert folder.info()["store"] == {"kind": "faiss-flat", "dimension": D, "vectors": N, "exact": True}
        assert folder.metadata("demand") == {"latency": 1e6, "recall": 0.95, "memory": 1e9}
    with IndexWriter.open(place) as edit, pytest.raises(ValueError, match="recall is a share"):
        edit.compact(recall=2.0)


class StandIn:
    """FAISS's index on a GPU, played by the CPU: similarities that are rounded otherwise, within the slack."""

    def __init__(self, resources: object, dimension: int) -> None:
        self.index = faiss.IndexFlatIP(dimension)
        self.searches = 0

    def add(self, vectors: NDArray[np.float32]) -> None:
        self.index.add(vectors)
        self.errors = (D * 2.0**-23 * np.random.default_rng(0).uniform(-1, 1, len(vectors))).astype(np.float32)

    def search(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self.searches += 1
        similarities, positions = self.index.search(queries, self.index.ntotal)
        similarities += self.errors[positions]
        order = np.argsort(-similarities, axis=1)[:, :count]
        return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(positions, order, axis=1)


def test_a_gpu_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is to be had where this was written: a stand-in shows that another rounding changes no answer."""
    studies = np.arange(N) // 3
    expected = [nearest_studies(FaissStore(VECTORS), query[None], 15, studies)[0] for query in QUERIES]
    if not faiss.get_num_gpus():
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
        monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
        monkeypatch.setattr(faiss, "GpuIndexFlatIP", StandIn, raising=False)
    store = FaissStore(VECTORS)
    assert [nearest_studies(store, query[None], 15, studies)[0] for query in QUERIES] == expected
    assert store._gpu is not None
    if isinstance(store._gpu, StandIn):
        assert store._gpu.searches > len(QUERIES) / 2
    allowed = np.arange(N) % 2 == 0
    (found,) = nearest_studies(store, QUERIES[:1], 15, studies, allowed)
    assert found == nearest_studies(FaissStore(VECTORS), QUERIES[:1], 15, studies, allowed)[0]


@pytest.mark.parametrize("refuses", ["StandardGpuResources", "GpuIndexFlatIP", "add", "search"])
def test_a_gpu_that_cannot_is_left_alone(monkeypatch: pytest.MonkeyPatch, refuses: str) -> None:
    """As where its memory is taken: FAISS then raises RuntimeError."""
    tried = []

    def refuse(*_: object) -> None:
        tried.append(refuses)
        raise RuntimeError("Error in ...: CUDA error 2 out of memory")

    monkeypatch.setattr("index.vectors.faiss._ALWAYS_EXACT", 0)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "GpuIndexFlatIP", StandIn, raising=False)
    monkeypatch.setattr(StandIn if refuses in {"add", "search"} else faiss, refuses, refuse)
    store = FaissStore(VECTORS)
    for query in QUERIES:
        for mine, plain in zip(store.search(query[None], 9, None), _exact(query), strict=True):
            np.testing.assert_array_equal(mine, plain)
    assert tried == [refuses]


def _exact(query: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    similarities, positions = faiss.knn(query[None], VECTORS, 9, metric=faiss.METRIC_INNER_PRODUCT)
    return similarities, positions
