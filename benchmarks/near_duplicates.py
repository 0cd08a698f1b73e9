"""The time of a deep audit of a collection of MURA's size, without encoding.

    python benchmarks/near_duplicates.py --data FOLDER --radiographs 40000
    python benchmarks/near_duplicates.py --data FOLDER --radiographs 5567 --asked 461

Radiographs of DATA are turned, moved and zoomed at random until there are enough. The embedding of each is that of its
source with noise. The sieves and the votes run in full. Of the pairs that the sieves leave, a sample is compared and
its time is extrapolated. With --asked so many are searched for among the others, as `mura-search evaluate` searches an
index, and nothing votes. What is found means nothing here; experiments/planted_errors.py measures that.
"""

import argparse
import resource
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks._timing import machine
from index.case import Case
from retrieval.audit.deep_audit import encode_collection
from retrieval.audit.label_issues import check_labels
from retrieval.audit.near_duplicates import _candidates, similarity_limit
from retrieval.datasets.collection import read_collection
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.batches import thumbnail
from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder
from retrieval.images.radiograph import read_radiograph

__all__ = ["main"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--radiographs", type=int, default=40_000)
    parser.add_argument("--asked", type=int, help="so many of the radiographs are searched for among the others")
    parser.add_argument("--source", type=int, default=100, help="the number of radiographs of DATA that are used")
    parser.add_argument("--noise", type=float, default=0.04, help="standard deviation of an embedding's numbers")
    parser.add_argument("--sample", type=int, default=2_000, help="the number of pairs that are compared")
    options = parser.parse_args()
    machine("numpy", "opencv-python-headless")
    cv2.setNumThreads(1)
    collection = read_collection(options.data)
    step = max(1, len(collection.cases) // options.source)
    encoding = encode_collection(replace(collection, cases=collection.cases[::step]), Encoder.open(BUNDLED))
    pictures = [read_radiograph(Path(case.path)).pixels for case in encoding.cases]
    generator = np.random.default_rng(0)
    N = options.radiographs
    rows = generator.integers(0, len(pictures), N)
    cases = [
        Case(f"{number}", f"s{number // 3}", f"p{number // 3}", encoding.cases[rows[number - number % 3]].label)
        for number in range(N)
    ]
    thumbnails: list[bytes] = []
    for row in rows:
        height, width = pictures[row].shape[:2]
        turn = cv2.getRotationMatrix2D(
            (width / 2, height / 2), generator.uniform(-180, 180), generator.uniform(0.9, 1.6)
        )
        turn[:, 2] += generator.uniform(-0.2, 0.2, 2) * (width, height)
        thumbnails.append(thumbnail(np.asarray(cv2.warpAffine(pictures[row], turn, (width, height)), np.uint8)))
    noise = options.noise * generator.standard_normal((N, encoding.embeddings.shape[1]))
    vectors = (encoding.embeddings[rows] + noise).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    started, used = time.perf_counter(), time.process_time()
    pairs = _candidates(thumbnails, vectors, similarity_limit(cases, vectors).limit, options.asked)
    show(f"sieves: {N:,} radiographs, {len(pairs):,} pairs left", started, used)
    started, used = time.perf_counter(), time.process_time()
    sample = [pairs[row] for row in generator.choice(len(pairs), min(options.sample, len(pairs)), replace=False)]
    for pair in sample:
        pair.compare((thumbnails[pair.first], thumbnails[pair.second]))
    show(f"comparing {len(sample):,} pairs", started, used)
    seconds = (time.process_time() - used) / len(sample) * len(pairs)
    print(f"so all pairs take {seconds / 60:.1f} minutes of processor time")
    if options.asked is None:
        started, used = time.perf_counter(), time.process_time()
        logits = generator.standard_normal(N).astype(np.float32)
        check_labels(LabelledStudies(cases, vectors, logits), Rules(k=51, temperature=0.1))
        show("votes on labels", started, used)
    print(f"largest memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


def show(step: str, started: float, used: float) -> None:
    print(f"{step}: {time.perf_counter() - started:.1f} s, {time.process_time() - used:.1f} s of processor time")


if __name__ == "__main__":
    main()
