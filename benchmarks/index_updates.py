"""Seconds to change an index: a study is added or removed, on the disk, and found or gone in the next query.

    python benchmarks/index_updates.py [--sizes 5106 100000] [--runs 5]

The alternative is a bare FAISS file, read, changed, and written again with an fsync. It keeps no records, pictures or
history, and a process that is killed while it writes loses the file.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks._timing import alternate, machine, ratio, show
from index.builder import IndexBuilder
from index.case import Case
from index.reader import IndexReader
from index.writer import IndexWriter

D = 128
VIEWS = 3


def unit(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    vectors = rng.normal(size=(n, D))
    rows: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return rows


def study(number: int) -> list[Case]:
    return [
        Case(f"{number}/{view}.png", f"s{number}", f"p{number}", number % 2, digest=f"{number * 8 + view:064x}")
        for view in range(VIEWS)
    ]


def compare(folder: Path, count: int, runs: int) -> None:
    rng = np.random.default_rng(0)
    studies = count // VIEWS
    vectors = unit(rng, studies * VIEWS)
    cases = [case for number in range(studies) for case in study(number)]
    (folder / "model").mkdir()
    path, bare = folder / "index", folder / "bare.faiss"
    with IndexBuilder.start(path, model=folder / "model", dimension=D, fingerprint="benchmark") as build:
        build.add(cases, vectors, [bytes(3000)] * len(cases), np.zeros(len(cases), np.float32))
        build.finish()
    flat = faiss.IndexFlatIP(D)
    flat.add(vectors)
    faiss.write_index(flat, str(bare))
    new = unit(rng, VIEWS)
    query = new[:1]

    def nearest() -> Sequence[str]:
        with IndexReader.open(path) as index:
            return [hit.case.study for hit in index.search(query, 1)[0]]

    def ours() -> float:
        """Add a study and ask for it, then remove it and ask again; seconds a change."""
        started = time.perf_counter()
        with IndexWriter.open(path) as writer:
            writer.add(study(studies), new, [bytes(3000)] * VIEWS, np.zeros(VIEWS, np.float32))
        assert nearest() == [f"s{studies}"]
        with IndexWriter.open(path) as writer:
            writer.remove({"study": [f"s{studies}"]})
        assert nearest() != [f"s{studies}"]
        return (time.perf_counter() - started) / 2

    def theirs() -> float:
        started = time.perf_counter()
        for change in ("add", "remove"):
            index = faiss.read_index(str(bare))
            if change == "add":
                index.add(new)
            else:
                index.remove_ids(faiss.IDSelectorRange(index.ntotal - VIEWS, index.ntotal))
            faiss.write_index(index, str(bare))
            descriptor = os.open(bare, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            assert (faiss.read_index(str(bare)).search(query, 1)[0][0, 0] > 0.999) == (change == "add")
        return (time.perf_counter() - started) / 2

    samples, reference = alternate(runs, ours, theirs)
    print(f"\n{len(cases):,} x {D}")
    show("mura-search, a study changed and asked for", samples, "s")
    show("a bare FAISS file, read and written again", reference, "s")
    ratio("bare file / mura-search", reference, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_106, 100_000])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    machine("faiss-cpu", "numpy")
    for count in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), count, options.runs)


if __name__ == "__main__":
    main()
