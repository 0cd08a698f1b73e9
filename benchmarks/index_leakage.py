"""The time that the search for near duplicates in the index adds to an evaluation, beside reading and encoding.

    python benchmarks/index_leakage.py DATA --split valid --index INDEX [--runs 3]

First DATA is read and encoded as by `mura-search evaluate`; then INDEX is searched for near duplicates on all cores.
Printed are seconds by the clock and seconds of processor time. For other sizes, on drawn radiographs, use
benchmarks/near_duplicates.py --asked.
"""

import argparse
import time
from pathlib import Path

from benchmarks._timing import machine, show
from retrieval.datasets.collection import read_collection
from retrieval.evaluation.index_leakage import index_leakage
from retrieval.evaluation.predictions import predict_studies
from retrieval.searcher import Searcher

__all__ = ["main"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--split")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    machine("numpy", "opencv-python-headless", "onnxruntime")
    collection = read_collection(options.data, split=options.split)
    wall: dict[str, list[float]] = {"reading and encoding": [], "looking for near duplicates": []}
    used: dict[str, list[float]] = {name: [] for name in wall}
    with Searcher.open(options.index) as searcher:
        for _ in range(options.runs):
            clocks = [(time.perf_counter(), time.process_time())]
            readings, _ = predict_studies(searcher, collection)
            clocks.append((time.perf_counter(), time.process_time()))
            copies = index_leakage(searcher.index, readings, rounds=1)
            clocks.append((time.perf_counter(), time.process_time()))
            for name, before, after in zip(wall, clocks, clocks[1:], strict=False):
                wall[name].append(after[0] - before[0])
                used[name].append(after[1] - before[1])
        print(f"{len(collection.cases):,} radiographs, {len(searcher.index.cases()):,} in the index")
    print(f"studies with a near duplicate: {len(copies.studies):,} of {len(readings):,}")
    for name, seconds in wall.items():
        show(name, seconds, "s")
        show(f"{name}, processor time", used[name], "s")


if __name__ == "__main__":
    main()
