"""The map of an index of many studies: how long `mura-search index project` takes, and its memory.

    python -m benchmarks.projection [--studies 40000] [--views 1] [--method tsne]

The embeddings are drawn as `benchmarks/scale.py` draws them. The map is made in a process of its own. Printed, too, is
what share of a study's 10 nearest studies are among its 10 nearest on the map, for 1,000 studies. The alternative,
`--method scikit-learn`, is scikit-learn's t-SNE with its defaults.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._timing import machine
from benchmarks.scale import drawn
from index.builder import IndexBuilder
from index.case import Case
from index.reader import IndexReader
from retrieval.decision.rules import DEFAULTS
from retrieval.encoding.bundle import BUNDLED, Bundle
from retrieval.indexing.projection import METHODS, project_index, stored_places

Rows = NDArray[np.float32]
NEAREST, ASKED = 10, 1000


def build(path: Path, studies: int, views: int) -> None:
    """An index of drawn embeddings with the bundled model."""
    dimension, count = Bundle.open(BUNDLED).dimension, studies * views
    with IndexBuilder.start(path, model=BUNDLED, dimension=dimension, fingerprint="projection") as index:
        at = 0
        for vectors in drawn(count, dimension, 2):
            cases = [
                Case(f"{n}.png", f"s{n // views}", f"p{n // views}", n // views % 2, digest=f"{n:064x}")
                for n in range(at, at + len(vectors))
            ]
            logits = vectors[:, 0].astype(np.float32)
            index.add(cases, vectors, [b""] * len(vectors), logits)
            at += len(vectors)
        index.set_metadata("rules", DEFAULTS.to_dict())
        index.finish()


def nearest(rows: Rows) -> NDArray[np.intp]:
    """The nearest rows (A, K) of the first rows, without themselves."""
    squares = (rows**2).sum(1)
    distances = squares - 2 * rows[:ASKED] @ rows.T
    np.fill_diagonal(distances, np.inf)
    return np.argpartition(distances, NEAREST, axis=1)[:, :NEAREST]


def kept(rows: Rows, places: Rows) -> float:
    """The share of the nearest rows (N, D) that are among the nearest on the map (N, 2)."""
    pairs = zip(nearest(rows), nearest(places), strict=True)
    return float(np.mean([len(np.intersect1d(before, after)) / NEAREST for before, after in pairs]))


def scikit_learn(rows: Rows) -> Rows:
    """The map (N, 2) of rows (N, D) by scikit-learn, with the defaults of its t-SNE."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    components = PCA(50, random_state=0).fit_transform(rows)
    return np.asarray(TSNE(2, init="pca", random_state=0, n_jobs=-1).fit_transform(components), np.float32)


def measure(path: Path, method: str) -> None:
    """Make the map of an index of one radiograph a study or more, and print how long it takes and how good it is."""
    with IndexReader.open(path) as reader:
        studies = [case.study for case in reader.cases()]
        first = np.unique(studies, return_index=True)[1]
        rows, studies = reader.embeddings()[first], [studies[row] for row in first]
    started = time.perf_counter()
    if method == "scikit-learn":
        places = scikit_learn(rows)
        seconds = time.perf_counter() - started
    else:
        seconds = project_index(path, method=method).seconds
        with IndexReader.open(path) as reader:
            by_study = stored_places(reader)
        places = np.array([(by_study[study].x, by_study[study].y) for study in studies], np.float32)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(studies):,} studies by {method}: {seconds:.0f} s ({time.process_time():.0f} s of processor), peak "
        f"memory {peak:,.0f} MiB; {kept(rows, places):.3f} of the {NEAREST} nearest are kept"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=40_000)
    parser.add_argument("--views", type=int, default=1, help="radiographs of a study")
    parser.add_argument("--method", choices=(*METHODS, "scikit-learn"), default="tsne")
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.index:
        measure(options.index, options.method)
        return
    machine("numpy", "openTSNE", "scikit-learn", "faiss-cpu")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "index"
        build(path, options.studies, options.views)
        command = [sys.executable, "-m", "benchmarks.projection", "--index", str(path), "--method", options.method]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
