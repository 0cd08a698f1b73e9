"""Vectors in Milvus: cases written a second, and milliseconds a query for the 15 nearest studies.

    python benchmarks/milvus.py [--cases 100000] [--index FLAT] [--uri http://127.0.0.1:19530] [--token user:password]

Without --uri it measures Milvus Lite in a temporary file. A server: pip install milvus; milvus-server --data FOLDER.
Clustered unit vectors of 128 numbers, three cases a study, a query without its own patient. Strong consistency finds
what any process has written, Session what this one has. The answers are compared with NumPy's over all vectors.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._timing import alternate, machine, show
from index.case import Case
from index.milvus.store import MilvusSettings, MilvusStore

D, K, BATCH = 128, 15, 20_000
PARTS = ("elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist")
PARAMETERS = {"HNSW": {"M": 16, "efConstruction": 200}, "IVF_FLAT": {"nlist": 1024}}
WRIST = {"part": ["wrist"]}


def case(row: int) -> Case:
    study = row // 3
    return Case(
        f"{row}.png",
        f"study{study}",
        f"patient{study // 2}",
        study % 2,
        PARTS[study % 7],
        "pa",
        "train",
        f"/data/{row}.png",
    )


def drawn(rng: np.random.Generator, centres: NDArray[np.float64], count: int) -> NDArray[np.float32]:
    vectors = np.empty((count, D), np.float32)
    for start in range(0, count, BATCH):
        batch = centres[rng.integers(0, len(centres), min(BATCH, count - start))]
        batch = batch + 0.6 * rng.normal(size=batch.shape)
        vectors[start : start + BATCH] = batch / np.linalg.norm(batch, axis=1, keepdims=True)
    return vectors


def ingest(store: MilvusStore, vectors: NDArray[np.float32]) -> None:
    count = len(vectors)
    started = time.perf_counter()
    for start in range(0, count, BATCH):
        rows = range(start, min(start + BATCH, count))
        store.upsert(rows, [case(row) for row in rows], vectors[start : start + BATCH])
    written = time.perf_counter() - started
    store.flush()
    flushed = time.perf_counter() - started
    print(f"written in {written:.1f} s, {count / written:,.0f} cases a second; with flush {flushed:.1f} s")
    started = time.perf_counter()
    assert store.rows().tolist() == list(range(count)), "not every case is there"
    print(f"all {count:,} rows read back in {time.perf_counter() - started:.1f} s")


def share_found(store: MilvusStore, vectors: NDArray[np.float32], asked: NDArray[np.float32], wrist: bool) -> float:
    """The share of the 15 nearest studies that NumPy finds too, by float32 similarities over all vectors."""
    wrists = np.array([row // 3 % 7 == 6 for row in range(len(vectors))])
    right = 0
    for number, query in enumerate(asked):
        similarities = vectors @ query
        similarities[6 * number : 6 * number + 6] = -1  # the patient's own
        if wrist:
            similarities[~wrists] = -1
        nearest = np.argpartition(-similarities, 8 * K)[: 8 * K]
        studies = list(dict.fromkeys((nearest[np.argsort(-similarities[nearest])] // 3).tolist()))[:K]
        [hits] = store.search(query[None], K, WRIST if wrist else None, [[f"patient{number}"]])
        right += len({row // 3 for _, row in hits} & set(studies))
    return right / (K * len(asked))


def latency(store: MilvusStore, asked: NDArray[np.float32], wrist: bool) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        for number, query in enumerate(asked):
            [hits] = store.search(query[None], K, WRIST if wrist else None, [[f"patient{number}"]])
            assert len(hits) == K
        return 1000 * (time.perf_counter() - started) / len(asked)

    return run


@contextmanager
def chosen_settings(uri: str, token: str) -> Iterator[MilvusSettings]:
    with tempfile.TemporaryDirectory() as folder:
        yield MilvusSettings(uri or str(Path(folder) / "vectors.db"), "mura_search_benchmark", token, timeout=120.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--index", choices=["FLAT", *PARAMETERS], default="FLAT")
    parser.add_argument("--uri", default="")
    parser.add_argument("--token", default="")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    machine("pymilvus", "milvus-lite", "milvus", "numpy")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, D))
    vectors = drawn(rng, centres, options.cases)
    asked = drawn(rng, centres, options.queries)
    params = {"index_type": options.index, "params": PARAMETERS.get(options.index, {})}
    with chosen_settings(options.uri, options.token) as settings:
        with MilvusStore.open(settings, D, create=True) as old:
            old.drop()
        with MilvusStore.open(settings, D, create=True, index_params=params) as store:
            print(f"{options.cases:,} x {D}, {store.describe()['server']}, {options.index}")
            ingest(store, vectors)
            started = time.perf_counter()
            store.search(asked[:1], K)
            print(f"first search after {time.perf_counter() - started:.1f} s")
            for wrist in (False, True):
                share = share_found(store, vectors, asked, wrist)
                print(f"{'wrists only' if wrist else 'no filter'}: {100 * share:.2f} % of NumPy's studies")
            with MilvusStore.open(replace(settings, consistency="Session"), D) as session:
                samples = alternate(
                    options.runs,
                    *(
                        latency(store_in_turn, asked, wrist)
                        for store_in_turn in (store, session)
                        for wrist in (False, True)
                    ),
                )
            for name, sample in zip(
                ("Strong, no filter", "Strong, wrists only", "Session, no filter", "Session, wrists only"),
                samples,
                strict=True,
            ):
                show(name, sample, "ms a query")
            store.drop()


if __name__ == "__main__":
    main()
