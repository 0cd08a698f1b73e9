"""An index of a million radiographs: build, open, search, add, remove; each step in a process of its own.

    python benchmarks/scale.py [--cases 1000000] [--dimension 128] [--folder FOLDER]

The embeddings are drawn in clusters: studies around 5,000 centres of a space of 40 dimensions, views around studies,
with noise in all dimensions. Searches are for new views of new studies, each with one patient left out, as in a query.
Recall is measured against exact search by NumPy, the time against FAISS's exact search over the same vectors in the
same process. Thumbnails are empty: a search never reads them.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks._timing import machine, note, show
from index.builder import IndexBuilder
from index.case import Case
from index.hits import Hit
from index.reader import IndexReader
from index.writer import IndexWriter

K, AT, BATCH = 15, 10, 20_000
PARTS = ("elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist")

Vectors = NDArray[np.float32]


def drawn(count: int, dimension: int, seed: int) -> Iterator[Vectors]:
    """Unit vectors, `BATCH` at a time: three views a study."""
    basis = np.random.default_rng(0).normal(size=(40, dimension)).astype(np.float32) / np.float32(40**0.5)
    centres = np.random.default_rng(1).normal(size=(5_000, 40)).astype(np.float32)
    rng = np.random.default_rng(seed)
    for start in range(0, count, BATCH):
        n = min(BATCH, count - start)
        studies = -(-n // 3)
        inner = centres[rng.integers(0, 5_000, studies)] + 0.5 * rng.normal(size=(studies, 40)).astype(np.float32)
        views = np.repeat(inner, 3, axis=0)[:n] + 0.2 * rng.normal(size=(n, 40)).astype(np.float32)
        vectors = views @ basis + 0.15 * rng.normal(size=(n, dimension)).astype(np.float32)
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cases(start: int, count: int) -> list[Case]:
    """Three views a study, two studies a patient."""
    return [
        Case(f"{n}.png", f"s{n // 3}", f"p{n // 6}", n // 3 % 2, PARTS[n // 6 % 7], digest=f"{n:064x}")
        for n in range(start, start + count)
    ]


def build(path: Path, count: int, dimension: int) -> dict[str, float]:
    started = time.perf_counter()
    with IndexBuilder.start(path, model=path.parent / "model", dimension=dimension, fingerprint="scale") as index:
        at = 0
        for vectors in drawn(count, dimension, 2):
            index.add(cases(at, len(vectors)), vectors, [b""] * len(vectors), np.zeros(len(vectors), np.float32))
            at += len(vectors)
        stored = time.perf_counter()
        index.finish()
    return {"records stored [s]": stored - started, "search structure built [s]": time.perf_counter() - stored}


def opened(path: Path, count: int, dimension: int) -> dict[str, float]:
    import index.vectors.faiss  # noqa: F401  # before the clock starts: a process imports it once

    samples = []
    for _ in range(5):
        started = time.perf_counter()
        IndexReader.open(path).close()
        samples.append(time.perf_counter() - started)
    return {"opened first [s]": samples[0], "opened again [s]": median(samples[1:])}


def searched(path: Path, count: int, dimension: int) -> dict[str, float]:
    import faiss

    queries = next(drawn(600, dimension, 3))[::3]
    figures: dict[str, float] = {}
    with IndexReader.open(path) as index:
        for name, where in (("", None), (", of one part in seven", {"part": ["finger"]})):
            patients = [f"p{n}" for n in range(len(queries))]
            answers, seconds = [], []
            for query, patient in zip(queries, patients, strict=True):
                started = time.perf_counter()
                (hits,) = index.search(query[None], K, where=where, exclude_patients=[[patient]])
                seconds.append(time.perf_counter() - started)
                assert len(hits) == K
                answers.append(hits)
            vectors = index.embeddings()
            figures[f"a query{name} [ms]"] = 1000 * median(seconds)
            figures[f"a query{name}, 95th percentile [ms]"] = 1000 * float(np.quantile(seconds, 0.95))
            figures[f"recall of studies at {AT}{name} [share]"] = recall(
                vectors, queries, answers, patients, where is not None
            )
        samples = []
        for query in queries[:20]:
            started = time.perf_counter()
            faiss.knn(query[None], vectors, K, metric=faiss.METRIC_INNER_PRODUCT)
            samples.append(1000 * (time.perf_counter() - started))
    return figures | {"FAISS exact, 15 vectors [ms]": median(samples)}


def recall(vectors: Vectors, queries: Vectors, answers: list[list[Hit]], patients: list[str], fingers: bool) -> float:
    """The share of the ten nearest studies that were found, by exact search over all vectors."""
    shares = []
    studies = np.arange(len(vectors)) // 3
    patient_of = np.arange(len(vectors)) // 6
    for query, hits, patient in zip(queries, answers, patients, strict=True):
        similarities = vectors @ query
        similarities[patient_of == int(patient[1:])] = -2
        if fingers:
            similarities[patient_of % 7 != PARTS.index("finger")] = -2
        nearest = np.argpartition(-similarities, 3 * AT)[: 3 * AT + 1]
        order = nearest[np.argsort(-similarities[nearest], kind="stable")]
        truth = list(dict.fromkeys(studies[order].tolist()))[:AT]
        shares.append(len({f"s{study}" for study in truth} & {hit.case.study for hit in hits[:AT]}) / AT)
    return float(np.mean(shares))


def changed(path: Path, count: int, dimension: int) -> dict[str, float]:
    """A study is added and found, relabelled, then removed and no longer found, by a reader that was always open."""
    vectors = next(drawn(15, dimension, 4))
    added, relabelled, removed = [], [], []
    with IndexReader.open(path) as index:
        for n in range(5):
            study, views = f"new{n}", vectors[3 * n : 3 * n + 3]
            new = [Case(f"new{n}-{view}.png", study, study, 1) for view in range(3)]
            started = time.perf_counter()
            with IndexWriter.open(path) as writer:
                writer.add(new, views, [b""] * 3, np.zeros(3, np.float32))
            assert index.search(views[:1], 1)[0][0].case.study == study
            added.append(time.perf_counter() - started)
            started = time.perf_counter()
            with IndexWriter.open(path) as writer:
                writer.relabel(study, 0)
            assert index.search(views[:1], 1)[0][0].case.label == 0
            relabelled.append(time.perf_counter() - started)
            started = time.perf_counter()
            with IndexWriter.open(path) as writer:
                writer.remove({"study": [study]})
            assert index.search(views[:1], 1)[0][0].case.study != study
            removed.append(time.perf_counter() - started)
    return {
        "a study added and found [s]": median(added),
        "a study relabelled and found so [s]": median(relabelled),
        "a study removed and no longer found [s]": median(removed),
    }


STEPS = {"build": build, "open": opened, "search": searched, "change": changed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--folder", type=Path, help="keep the index there, and use one that is there")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        figures = STEPS[options.step](options.folder / "index", options.cases, options.dimension)
        figures["peak memory [GB]"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps(figures))
        return
    machine("faiss-cpu", "numpy")
    print(f"{options.cases:,} x {options.dimension}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        (folder / "model").mkdir(parents=True, exist_ok=True)
        for step in STEPS:
            if step == "build" and (folder / "index").exists():
                continue
            command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
            command += ["--cases", str(options.cases), "--dimension", str(options.dimension)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            for name, figure in json.loads(done.stdout.splitlines()[-1]).items():
                measure, _, unit = name.rstrip("]").partition(" [")
                show(f"{step}: {measure}", [figure], unit)
        with IndexReader.open(folder / "index") as index:
            note(f"search: {index.info()['store']}")
        files = {name: (folder / "index" / name).stat().st_size for name in ("cases.sqlite", "vectors.faiss")}
        note(", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in files.items()))


if __name__ == "__main__":
    main()
