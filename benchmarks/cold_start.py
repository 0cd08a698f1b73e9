"""The whole command, from process start to answer, against a plain script with torch that does the same.

    python benchmarks/cold_start.py [--cases 5000] [--runs 7]

Network, index and query are the same, and both write their answer as JSON. The two run in turn.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import cv2
import faiss
import numpy as np
import torch

from benchmarks._network import make_both
from benchmarks._timing import alternate, machine, ratio, run_command, show
from index.builder import IndexBuilder
from index.case import Case
from retrieval.decision.rules import DEFAULTS
from retrieval.encoding.batches import thumbnail
from retrieval.images.preprocessing import Preprocessing
from retrieval.synthetic.dataset import draw_study


def prepare(folder: Path, cases: int) -> Path:
    """An index of `cases` random embeddings around a hundred centres, and the same data for the plain script."""
    preprocessing = Preprocessing(size=448)
    bundle, plain = make_both(folder, preprocessing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(plain, torch.zeros(1, 3, preprocessing.size, preprocessing.size))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(folder / "network.pt"))
    phantoms = draw_study(0, 1, abnormal=True)
    query = folder / "query.png"
    cv2.imwrite(str(query), phantoms[0].pixels)

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(100, bundle.dimension))
    embeddings = centres[rng.integers(0, 100, cases)] + 0.5 * rng.normal(size=(cases, bundle.dimension))
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    records = [
        Case(f"{i:05}.png", f"study{i // 3:05}", f"patient{i // 4:05}", i // 3 % 2, "finger", "pa", digest=f"{i:064x}")
        for i in range(cases)
    ]
    small = thumbnail(phantoms[0].pixels)
    with IndexBuilder.start(
        folder / "index", model=bundle.folder, dimension=bundle.dimension, fingerprint="benchmark"
    ) as build:
        build.add(records, embeddings, [small] * cases, np.zeros(cases, np.float32))
        build.set_metadata("rules", DEFAULTS.to_dict())
        build.set_metadata("collection", {"synthetic": True})
        build.finish()

    np.save(folder / "embeddings.npy", embeddings)
    vectors = faiss.IndexFlatIP(bundle.dimension)
    vectors.add(embeddings)
    faiss.write_index(vectors, str(folder / "vectors.faiss"))
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines)
        table.writerow(("case", "study", "patient", "label", "part", "view"))
        table.writerows((c.case, c.study, c.patient, c.label, c.part, c.view) for c in records)
    return query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    machine("onnxruntime", "faiss-cpu", "opencv-python-headless", "torch", "scikit-learn", "pandas")
    command = str(Path(sys.executable).with_name("mura-search"))
    plain_script = str(Path(__file__).with_name("_plain_query.py"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        query = str(prepare(folder, options.cases))
        ours = [command, query, "--json", "--index", str(folder / "index")]
        plain = [sys.executable, plain_script, str(folder), query]
        compare(ours, plain)
        samples, reference = alternate(options.runs, lambda: run_command(ours), lambda: run_command(plain))
    print(f"index of {options.cases} cases, whole process")
    show("mura-search", samples, "s")
    show("plain script", reference, "s")
    ratio("plain / mura-search", reference, samples)


def compare(ours: list[str], plain: list[str]) -> None:
    """Both must give the same answer, or their times cannot be compared."""
    a, b = (json.loads(subprocess.run(c, capture_output=True, text=True, check=True).stdout) for c in (ours, plain))
    nearest = [(case["study"], case["similarity"]) for case in a["cases"]]
    expected = [(case["study"], case["similarity"]) for case in b["cases"]]
    assert abs(a["classifier"]["probability"] - b["classifier"]) < 1e-2, (a["classifier"], b["classifier"])
    assert nearest[0][0] == expected[0][0], (nearest, expected)
    print(f"both answer {a['classifier']['probability']:.4f} and {b['classifier']:.4f}, nearest {nearest[0][0]}")


if __name__ == "__main__":
    main()
