"""Do the documented commands run on a collection of MURA's layout and size?

    python -m experiments.mura_size [--parts 1] [--studies 1.0] [--size 64] [--folder FOLDER]

Synthetic fingers are drawn with the published counts: 1,935 studies with 5,106 radiographs to train on, 175 with 461 to
evaluate on. Then the commands of README run, each in a process of its own: audit, train, index build, evaluate, and
experiment with the included grid for MURA. The network has a few layers and learns for one epoch, since only the data
has to be large here. Printed are the time and the peak memory of each command. With --parts 7 the same studies are
divided among MURA's seven parts, and kappa is given by part. --studies 0.1 takes a tenth of the studies. --folder keeps
everything and continues from there. No figure of accuracy on drawn radiographs says anything about real ones.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks._timing import machine
from retrieval.synthetic.dataset import Phantom, draw_study
from training.experiments.grid import grid_named

PARTS = ("FINGER", "ELBOW", "FOREARM", "HAND", "HUMERUS", "SHOULDER", "WRIST")
# Studies and their radiographs as published, by split: (normal, abnormal) of each.
COUNTS = {"train": ((1280, 655), (3138, 1968)), "valid": ((92, 83), (214, 247))}
SEED = 0


def views_of(studies: int, radiographs: int) -> list[int]:
    """How many radiographs each study has, as even as whole numbers allow, in random order."""
    counts = [radiographs // studies + (number < radiographs % studies) for number in range(studies)]
    return [int(count) for count in np.random.default_rng([SEED, studies]).permutation(counts)]


def planned(share: float, parts: int) -> Iterator[tuple[str, int, int]]:
    """(folder, study's number, radiographs) of every study; every seventh patient has two studies."""
    number = 0
    for split, (studies, radiographs) in COUNTS.items():
        for label, word in enumerate(("negative", "positive")):
            kept = round(studies[label] * share)
            for count in views_of(kept, round(radiographs[label] * share)):
                patient, study = number - number % 7 // 6, 1 + number % 7 // 6  # the seventh joins the sixth
                part = PARTS[patient // 7 % parts]  # six patients, one of them with two studies
                yield f"{split}/XR_{part}/patient{patient:05d}/study{study}_{word}", number, count
                number += 1
            number += 7 - number % 7  # no patient has studies of two labels or splits


def draw(root: Path, plan: tuple[str, int, int]) -> None:
    """Write the radiographs of a study; if one finger has too few views, further fingers are drawn."""
    folder, number, count = plan
    views: list[Phantom] = []
    while len(views) < count:
        views += draw_study(SEED + len(views), number, folder.endswith("positive"))
    (root / folder).mkdir(parents=True, exist_ok=True)
    for view, phantom in enumerate(views[:count], 1):
        cv2.imwrite(str(root / folder / f"image{view}.png"), phantom.pixels)


def write_collection(root: Path, share: float, parts: int) -> None:
    """The whole collection, with MURA's four CSV files written last."""
    plan = list(planned(share, parts))
    with ProcessPoolExecutor() as pool:
        list(pool.map(draw, [root] * len(plan), plan, chunksize=16))
    for split in COUNTS:
        folders = [(folder, count) for folder, _, count in plan if folder.startswith(split)]
        paths = [f"{root.name}/{folder}/image{view}.png\n" for folder, count in folders for view in range(1, count + 1)]
        labels = [f"{root.name}/{folder}/,{int(folder.endswith('positive'))}\n" for folder, _ in folders]
        (root / f"{split}_image_paths.csv").write_text("".join(paths), encoding="utf-8")
        (root / f"{split}_labeled_studies.csv").write_text("".join(labels), encoding="utf-8")


def run(*words: str | Path) -> dict[str, object]:
    """Run a command of mura-search and print its time and peak memory; gives its JSON."""
    said, into = os.pipe()
    began = time.perf_counter()
    command = [sys.executable, "-c", "from cli.main import main; main()", *map(str, words), "--json"]
    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, into, 1)])
    os.close(into)
    with os.fdopen(said, "rb") as output:
        text = output.read()
    _, status, used = os.wait4(process, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f"mura-search {words[0]} failed")
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    name = " ".join(map(str, words[: 2 if words[0] == "index" else 1]))
    print(f"{name}: {seconds:.0f} s, at most {peak / 2**20:.0f} MiB", flush=True)
    result: dict[str, object] = json.loads(text)
    return result


def tiny_grid(size: int) -> str:
    """The included grid for MURA, with the network of a few layers."""
    text = grid_named("mura").read_text(encoding="utf-8")
    tiny = f'[recipe]\nbackbone = "timm:test_efficientnet"\nweights = ""\nsize = {size}\nepochs = 1\n'
    assert "[recipe]\n" in text
    return text.replace("[recipe]\n", tiny)


def by_part(evaluation: Mapping[str, Any]) -> dict[str, float]:
    return {name: figures["knn"]["kappa"]["value"] for name, figures in evaluation["parts"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, choices=range(1, len(PARTS) + 1), default=1)
    parser.add_argument("--studies", type=float, default=1.0, help="share of the published counts")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    machine("torch", "onnxruntime", "faiss-cpu")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        data = folder / "MURA-v1.1"
        if not (data / "valid_labeled_studies.csv").exists():
            began = time.perf_counter()
            write_collection(data, options.studies, options.parts)
            print(f"drawing: {time.perf_counter() - began:.0f} s", flush=True)
        audit = run("audit", data)
        print(json.dumps({key: audit[key] for key in ("radiographs", "studies", "patients") if key in audit}))
        part = ["--part", "finger"] if options.parts == 1 else []
        tiny = ["--backbone", "timm:test_efficientnet", "--from-scratch", "--size", str(options.size), "--epochs", "1"]
        run("train", data, *part, "--out", folder / "run", *tiny, "--cache", folder / "cache")
        model, index = folder / "run" / "model", folder / "finger.index"
        built = run("index", "build", data, *part, "--split", "train", "--model", model, "--index", index)
        evaluation = run("evaluate", data, *part, "--split", "valid", "--index", index)
        counts = {"indexed": built["cases"], "evaluated": evaluation["images"], "studies": evaluation["studies"]}
        print(json.dumps(counts))
        print("kappa of the vote by part:", json.dumps(by_part(evaluation)))
        (folder / "grid.toml").write_text(tiny_grid(options.size), encoding="utf-8")
        done = run(
            "experiment", folder / "grid.toml", data, *part, "--out", folder / "grid", "--cache", folder / "cache"
        )
        runs = done["runs"]
        assert isinstance(runs, list)
        for result in runs:
            print(f"{result['name']}, kappa of the vote by part:", json.dumps(by_part(result)))


if __name__ == "__main__":
    main()
