"""Search by study, milliseconds a query, against scikit-learn's brute force and bare FAISS over the same vectors.

    python benchmarks/search.py [--queries 200] [--runs 5]

Ours gives the 15 nearest distinct studies with their records, without the query's own patient. scikit-learn and FAISS
give the 15 nearest vectors and nothing else, which is less.

Every run asks new queries. A reader remembers shown records until the index changes. So ours is measured after 10,000
other queries, as in a service, and again with nothing remembered, when every record is read from SQLite and its
checksum compared. With 40,000 x 256 ours is an approximation if exact search takes more than 3 ms.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

import index.hits
from benchmarks._timing import alternate, machine, ratio, show
from index.builder import IndexBuilder
from index.case import Case
from index.reader import IndexReader

SIZES = ((5_106, 128), (40_000, 256))
K = 15
REMEMBERED = index.hits.REMEMBERED


def compare(folder: Path, count: int, dimension: int, queries: int, runs: int) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, dimension))

    def drawn(n: int) -> NDArray[np.float32]:
        vectors = centres[rng.integers(0, 200, n)] + 0.6 * rng.normal(size=(n, dimension))
        unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit

    vectors = drawn(count)
    cases = [Case(f"{i}.png", f"s{i // 3}", f"p{i // 4}", i // 3 % 2, digest=f"{i:064x}") for i in range(count)]
    (folder / "model").mkdir()
    path = folder / "index"
    with IndexBuilder.start(path, model=folder / "model", dimension=dimension, fingerprint="benchmark") as build:
        build.add(cases, vectors, [b""] * count, np.zeros(count, np.float32))
        build.finish()
    oracle = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(vectors)
    flat = faiss.IndexFlatIP(dimension)
    flat.add(vectors)
    asked = [drawn(queries) for _ in range(1 + runs)]  # the first are for warming up

    def timed(search: Callable[[NDArray[np.float32], int], object]) -> Callable[[], float]:
        """A function that gives the milliseconds of a search, the mean over the next run's queries."""
        rest = iter(asked)

        def run() -> float:
            queries = next(rest)
            started = time.perf_counter()
            for i, query in enumerate(queries):
                search(query[None], i)
            return 1000 * (time.perf_counter() - started) / len(queries)

        return run

    with IndexReader.open(path) as reader, IndexReader.open(path) as forgetful:

        def ours(query: NDArray[np.float32], i: int) -> None:
            assert len(reader.search(query, K, exclude_patients=[[f"p{i}"]])[0]) == K

        def without_memory(query: NDArray[np.float32], i: int) -> None:
            index.hits.REMEMBERED = 0
            assert len(forgetful.search(query, K, exclude_patients=[[f"p{i}"]])[0]) == K
            index.hits.REMEMBERED = REMEMBERED

        nearest = oracle.kneighbors(asked[0][:50])[1][:, 0]
        first_hits = [hits[0].case.study for hits in reader.search(asked[0][:50], 1)]
        assert first_hits == [cases[row].study for row in nearest], "the two sides do not find the same nearest study"
        reader.search(drawn(10_000), K)
        store = reader.info()["store"]
        samples, unremembered, reference, floor = alternate(
            runs,
            timed(ours),
            timed(without_memory),
            timed(lambda query, _: oracle.kneighbors(query)),
            timed(lambda query, _: flat.search(query, K)),
        )
    size = f"{count:,} x {dimension}"
    print(f"\n{size}: {store}")
    show(f"{size}: mura-search, 15 studies with records", samples, "ms a query")
    show(f"{size}: the same, every record read from SQLite", unremembered, "ms a query")
    show(f"{size}: scikit-learn brute force, 15 vectors", reference, "ms a query")
    show(f"{size}: bare FAISS, 15 vectors", floor, "ms a query")
    ratio(f"{size}: scikit-learn / mura-search", reference, samples)
    ratio(f"{size}: mura-search / bare FAISS", samples, floor, lower_is_better=True)
    ratio(f"{size}: every record read from SQLite / bare FAISS", unremembered, floor, lower_is_better=True)


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
