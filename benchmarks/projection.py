"""The map of an index of many studies: how long `mura-search index project` takes, and its memory.

    python -m benchmarks.projection [--studies 40000] [--views 1] [--method tsne]

The embeddings are drawn as `benchmarks/scale.py` draws them. The map is made in a process of its own.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks._timing import machine
from benchmarks.scale import drawn
from index.builder import IndexBuilder
from index.case import Case
from retrieval.decision.rules import DEFAULTS
from retrieval.encoding.bundle import BUNDLED, Bundle
from retrieval.indexing.projection import METHODS, project_index


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=40_000)
    parser.add_argument("--views", type=int, default=1, help="radiographs of a study")
    parser.add_argument("--method", choices=METHODS, default="tsne")
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.index:
        made = project_index(options.index, method=options.method)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{made.studies:,} studies by {made.method}: {made.seconds:.0f} s, peak memory {peak:,.0f} MiB")
        return
    machine("numpy", "scikit-learn", "faiss-cpu")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "index"
        build(path, options.studies, options.views)
        command = [sys.executable, "-m", "benchmarks.projection", "--index", str(path), "--method", options.method]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
