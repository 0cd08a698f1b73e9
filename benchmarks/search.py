"""Exact search by study, milliseconds a query, against scikit-learn's brute force and bare FAISS over the same vectors.

    python benchmarks/search.py [--queries 200] [--runs 5]

Ours gives the 15 nearest distinct studies with their records, the query's own patient left out; scikit-learn gives the
15 nearest vectors and nothing else, which is less, and so does FAISS.
"""

import argparse
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from timing import alternate, machine, ratio, show

from index.build import IndexBuild
from index.case import Case
from index.folder import IndexFolder

SIZES = ((5_106, 128), (40_000, 256))
K = 15


def compare(folder: Path, count: int, dimension: int, queries: int, runs: int) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, dimension))

    def drawn(n: int) -> NDArray[np.float32]:
        vectors = centres[rng.integers(0, 200, n)] + 0.6 * rng.normal(size=(n, dimension))
        unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit

    vectors, asked = drawn(count), drawn(queries)
    cases = [Case(f"{i}.png", f"s{i // 3}", f"p{i // 4}", i // 3 % 2, digest=f"{i:064x}") for i in range(count)]
    (folder / "model").mkdir()
    place = folder / "index"
    with IndexBuild.start(place, model=folder / "model", dimension=dimension, fingerprint="benchmark") as build:
        build.add(cases, vectors, [b""] * count, np.zeros(count, np.float32))
        build.finish()
    oracle = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(vectors)
    with IndexFolder.open(place) as index:

        def ours() -> float:
            started = time.perf_counter()
            for i, query in enumerate(asked):
                hits = index.search(query[None], K, exclude_patients=[[f"p{i}"]])
                assert len(hits[0]) == K
            return 1000 * (time.perf_counter() - started) / queries

        def theirs() -> float:
            started = time.perf_counter()
            for query in asked:
                oracle.kneighbors(query[None])
            return 1000 * (time.perf_counter() - started) / queries

        flat = faiss.IndexFlatIP(dimension)
        flat.add(vectors)

        def bare() -> float:
            started = time.perf_counter()
            for query in asked:
                flat.search(query[None], K)
            return 1000 * (time.perf_counter() - started) / queries

        nearest = oracle.kneighbors(asked[:50])[1][:, 0]
        same = [index.search(asked[i : i + 1], 1)[0][0].case.study == cases[row].study for i, row in enumerate(nearest)]
        assert all(same), "the two sides do not find the same nearest study"
        samples, reference, floor = alternate(runs, ours, theirs, bare)
    print(f"\n{count:,} x {dimension}")
    show("mura-search, 15 studies with records", samples, "ms a query")
    show("scikit-learn brute force, 15 vectors", reference, "ms a query")
    show("bare FAISS, 15 vectors", floor, "ms a query")
    ratio("scikit-learn / mura-search", reference, samples)
    ratio("mura-search / bare FAISS", samples, floor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    machine("faiss-cpu", "scikit-learn", "numpy")
    for count, dimension in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), count, dimension, options.queries, options.runs)


if __name__ == "__main__":
    main()
