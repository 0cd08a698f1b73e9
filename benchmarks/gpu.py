"""Everything that is measured on a GPU, in one call of under ten minutes that needs nothing from outside.

    benchmarks/gpu.sh [TABLE] [--out .out/gpu.json] [--minutes 9] [--jobs 8] [--dry-run]

Each step runs in a process of its own. A step whose package or GPU is missing says so, and the others go on.

    faiss    exact search on the GPU finds the studies that the CPU finds; milliseconds a query of both
    encode   radiographs a second with the bundled model and onnxruntime-gpu; the embeddings are those of the CPU
    train    images a second of a step of DenseNet-169 at 320 pixels in bf16 and in float32, and the share of its time
             that a training loop waits for data
    folds    the bundled recipe in five folds by patient with two further seeds; kappa and AUROC of each seed

TABLE is a collection of labelled radiographs for the folds, such as the table of `experiments.fracatlas_table`; without
it radiographs are drawn, whose figures say nothing about real ones. The steps `encode` and `train` always draw theirs.
--jobs folds are trained at once. What is not finished after --minutes is stopped and named. --dry-run takes tiny sizes
and runs the same code on the CPU. The JSON file has the format of `run_all.py`, with the checks of each step and what
failed. The exit status is 1 if a check or a step failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._timing import RESULTS, alternate, check, machine, note, ratio, show

if TYPE_CHECKING:
    from retrieval.datasets.collection import Collection
    from training.recipe import Recipe

SCHEMA = "mura-search/benchmarks/1"
ROOT = Path(__file__).resolve().parents[1]
K, D = 15, 128
GRACE_S = 15
MOST_WAITING = 0.05
LEAST_COSINE = 0.999  # of an embedding on the GPU and on the CPU; TF32 has 10 bits of mantissa
TINY = {
    "backbone": "timm:test_efficientnet", "weights": "", "frozen_until": "", "size": 64, "shown": 0, "crop": 64,
    "crop_epochs": 1, "epochs": 1, "soup": 1, "images": 4, "holdout": 0.3, "harmonisation": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each step does. `patients` are those of drawn radiographs, `recipe` the fields that are changed."""

    vectors: int = 1_000_000
    queries: int = 256
    radiographs: int = 1_024
    files: int = 64
    backbone: str = "densenet169"
    size: int = 320
    batch: int = 32
    steps: int = 60
    patients: int = 120
    runs: int = 5
    folds: int = 5
    seeds: tuple[int, ...] = (2, 3)
    recipe: Mapping[str, object] | None = None


FULL = Sizes()
DRY = Sizes(3_000, 8, 2, 2, "timm:test_efficientnet", 64, 4, 1, patients=16, runs=1, folds=2, seeds=(2,), recipe=TINY)


@dataclass(frozen=True, slots=True)
class Call:
    """What a step is called with: the folder of the whole call, and the time.monotonic() at which it has to end."""

    sizes: Sizes
    folder: Path
    table: Path | None
    jobs: int
    until: float
    dry: bool


def search_on_gpu(call: Call) -> None:
    """The product's own store and its search by study, on the GPU and without it."""
    machine("faiss-gpu", "faiss-cpu", "numpy")
    import faiss

    from benchmarks.scale import drawn
    from index.vectors.faiss import FaissStore
    from index.vectors.study_search import nearest_studies

    class OnGpu(FaissStore):
        answered = 0

        def _gpu_search(self, queries: Any, count: int) -> Any:
            result = super()._gpu_search(queries, count)
            self.answered += result is not None
            return result

    class OnCpu(FaissStore):
        def _gpu_search(self, queries: Any, count: int) -> Any:
            return None

    require(call.dry or faiss.get_num_gpus(), "FAISS finds no GPU; install faiss-gpu in place of faiss-cpu")
    vectors = np.concatenate(list(drawn(call.sizes.vectors, D, 2)))
    queries = np.ascontiguousarray(next(drawn(3 * call.sizes.queries, D, 3))[::3])
    studies = np.arange(len(vectors)) // 3
    on_gpu, on_cpu = OnGpu(vectors), OnCpu(vectors)

    def asked(store: FaissStore) -> Callable[[], float]:
        def run() -> float:
            started = time.perf_counter()
            for query in queries[:64]:
                nearest_studies(store, query[None], K, studies)
            return 1000 * (time.perf_counter() - started) / min(64, len(queries))

        return run

    gpu, cpu = alternate(call.sizes.runs, asked(on_gpu), asked(on_cpu))
    same = nearest_studies(on_gpu, queries, K, studies) == nearest_studies(on_cpu, queries, K, studies)
    show(f"{len(vectors):,} x {D}: {K} studies on the GPU", gpu, "ms a query")
    show(f"{len(vectors):,} x {D}: {K} studies on the CPU", cpu, "ms a query")
    ratio("CPU / GPU", cpu, gpu)
    check("the GPU finds the studies and similarities of the CPU", same)
    check("the GPU answered", call.dry or on_gpu.answered > 0)


def encode_on_gpu(call: Call) -> None:
    """The bundled model, from files and from prepared pictures, against the same network on the CPU."""
    machine("onnxruntime-gpu", "onnxruntime", "opencv-python-headless")
    import cv2
    import onnxruntime as ort

    from index.case import Case
    from retrieval.encoding.batches import encoded_batches
    from retrieval.encoding.bundle import BUNDLED
    from retrieval.encoding.encoder import Encoder
    from retrieval.images.preprocessing import normalise
    from retrieval.synthetic.dataset import draw_study

    encoder = Encoder.open(BUNDLED)
    providers = encoder._session.get_providers()
    note(f"ONNX Runtime uses {', '.join(providers)}")
    require(
        call.dry or "CUDAExecutionProvider" in providers, "ONNX Runtime finds no GPU; install onnxruntime-gpu and CUDA"
    )
    radiographs = [draw_study(0, study, abnormal=study % 2 == 1)[0].pixels for study in range(call.sizes.files)]
    cases = []
    for number, pixels in enumerate(radiographs):
        file = call.folder / f"{number}.png"
        cv2.imwrite(str(file), pixels)
        cases.append(Case(file.name, file.name, file.name, 0, path=str(file)))
    cases *= max(1, call.sizes.radiographs // len(cases))
    pictures = [encoder.prepare(pixels) for pixels in radiographs]

    def from_files() -> float:
        started = time.perf_counter()
        done = sum(len(batch.cases) for batch in encoded_batches(cases, encoder))
        return done / (time.perf_counter() - started)

    def prepared() -> float:
        started = time.perf_counter()
        for _ in range(0, len(cases), len(pictures)):
            encoder.encode_prepared(pictures)
        return len(cases) / (time.perf_counter() - started)

    files, bare = alternate(call.sizes.runs, from_files, prepared)
    show("bundled model, from file to embedding", files, "radiographs/s")
    show("bundled model, of prepared pictures", bare, "radiographs/s")
    ratio("from file / of prepared pictures", files, bare)
    session = ort.InferenceSession(encoder.bundle.files["encoder.onnx"], providers=["CPUExecutionProvider"])
    batch = normalise(pictures[:16], encoder.bundle.preprocessing)
    maps = session.run(None, {session.get_inputs()[0].name: batch})[0]
    cosine = (encoder.pool([maps]).embeddings * encoder.encode_prepared(pictures[:16]).embeddings).sum(1)
    show("cosine of the embedding to that of the CPU", cosine.tolist(), "")
    check(f"every embedding is within {LEAST_COSINE} of the CPU's", bool(cosine.min() >= LEAST_COSINE))


def train_on_gpu(call: Call) -> None:
    """DenseNet-169: a step alone on random pictures, and the training loop with its data."""
    machine("torch", "torchvision")
    import torch

    from benchmarks.train import device, ours
    from training.loop.cost_estimate import try_step
    from training.model.backbone import load_backbone
    from training.model.siamese import Siamese
    from training.recipe import Recipe

    sizes = call.sizes
    require(call.dry or torch.cuda.is_available(), "torch finds no GPU; install torch with CUDA")
    note(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
    recipe = Recipe(backbone=sizes.backbone, weights="", size=sizes.size, identities=2, images=sizes.batch // 2)
    backbone, channels = load_backbone(recipe.backbone, "")
    network = Siamese(backbone, channels, recipe.dimension, recipe.hidden)

    def rate(precision: str) -> float:
        return recipe.batch / try_step(network, recipe, device(), precision).step_seconds

    bf16, float32 = alternate(sizes.runs, lambda: rate("bf16"), lambda: rate("float32"))
    step = f"a step of {recipe.backbone} at {recipe.size} pixels, batches of {recipe.batch}"
    show(f"{step}, bf16", bf16, "images/s")
    show(f"{step}, float32", float32, "images/s")
    ratio("bf16 / float32", bf16, float32)
    loop = ours(recipe, drawn_collection(call), call.folder / "cache", sizes.steps)
    show("the training loop with its data", [loop["rate"]], "images/s")
    show("the training loop's wait for data", [loop["waiting"]], "of its time")
    check(f"the GPU waits for data under {MOST_WAITING:.0%} of the time", call.dry or loop["waiting"] < MOST_WAITING)


def train_folds(call: Call) -> None:
    """The folds of all seeds, --jobs of them at once, each in a process of its own."""
    machine("torch", "timm", "onnxruntime-gpu", "onnxruntime")
    import torch

    from retrieval.datasets.collection import read_collection
    from retrieval.evaluation.metrics import measure
    from retrieval.evaluation.paired_comparison import COMPARED, predictors_of, read_predictions
    from training.data.dataset import load_training_set

    require(call.dry or torch.cuda.is_available(), "torch finds no GPU; install torch with CUDA")
    table = call.table or drawn_collection(call)
    collection = read_collection(table)
    note(f"{len(collection.cases)} radiographs{', drawn' if collection.synthetic else ''}")
    started = time.monotonic()
    # The cache is filled once, and not by all processes at the same time.
    load_training_set([collection], recipe_of(call.sizes, collection, 0).preprocessing, cache=call.folder / "cache")
    show("radiographs prepared", [time.monotonic() - started], "s")
    chosen = [(seed, fold) for seed in call.sizes.seeds for fold in range(call.sizes.folds)]

    def run(seed: int, fold: int) -> tuple[Path, float, str]:
        out, began = call.folder / "runs" / f"{seed}-{fold}", time.monotonic()
        threads = max(1, (os.cpu_count() or 1) // call.jobs)
        failure = run_python(
            ["--step", "fold", "--seed", str(seed), "--fold", str(fold), "--folder", str(out), str(table)],
            call,
            {"OMP_NUM_THREADS": str(threads)},
        )
        return out, time.monotonic() - began, failure

    with ThreadPoolExecutor(call.jobs) as pool:
        done = dict(zip(chosen, pool.map(lambda pair: run(*pair), chosen), strict=True))
    failures = [f"seed {s}, fold {f + 1}: {failure}" for (s, f), (_, _, failure) in done.items() if failure]
    for failure in failures:
        note(failure)
    show(f"a fold, {call.jobs} at once", [seconds for _, seconds, failure in done.values() if not failure], "s")
    show("all folds", [time.monotonic() - started], "s")
    figures: dict[str, list[float]] = {}
    for seed in call.sizes.seeds:
        finished = [out for (fold_seed, _), (out, _, failure) in done.items() if fold_seed == seed and not failure]
        if len(finished) < call.sizes.folds:
            continue
        predictions = [row for out in finished for row in read_predictions(out / "runs" / "bundled" / "calls.csv")]
        labels = np.array([row.label for row in predictions])
        for reader, predictor in predictors_of(predictions).items():
            measured = measure(labels, predictor)
            for metric in COMPARED:
                figures.setdefault(f"{metric} of the {reader}", []).append(float(measured[metric][0]))
    for name, values in figures.items():
        show(f"{name}, a value for each seed", values, "")
    check("every fold of every seed is finished", not failures)


def train_fold(call: Call, seed: int, fold: int) -> None:
    """One fold of one seed, as `mura-search experiment` trains, indexes and judges it."""
    from retrieval.datasets.collection import read_collection
    from training.experiments.experiment import divided, run_experiment
    from training.experiments.grid import Grid, Run

    assert call.table
    collection = read_collection(call.table)
    learned, judged = divided(collection, call.sizes.folds)[fold]
    recipe = recipe_of(call.sizes, collection, seed)
    grid = Grid(title="The bundled recipe", part=recipe.part, runs=(Run(name="bundled", recipe=recipe),))
    fold_collection = replace(collection, cases=(*learned.cases, *judged.cases))
    (result,) = run_experiment(grid, fold_collection, [], call.folder, cache=call.folder.parents[1] / "cache")
    require("error" not in result, str(result.get("error")))


STEPS: dict[str, Callable[[Call], None]] = {
    "faiss": search_on_gpu,
    "encode": encode_on_gpu,
    "train": train_on_gpu,
    "folds": train_folds,
}


def require(condition: object, text: str) -> None:
    """End the step with a sentence unless the condition holds."""
    if not condition:
        sys.exit(text)


def recipe_of(sizes: Sizes, collection: "Collection", seed: int) -> "Recipe":
    """The bundled recipe with this seed; of all parts if the collection has not the recipe's."""
    from training.recipe import Recipe

    file = ROOT / "training" / "bundled.json"
    recipe = Recipe.from_dict({**json.loads(file.read_text(encoding="utf-8")), **(sizes.recipe or {})}, str(file))
    known = recipe.part in {case.part for case in collection.cases}
    return replace(recipe, seed=seed, part=recipe.part if known else "")


def drawn_collection(call: Call) -> Path:
    """The folder of drawn radiographs, which the first step that needs it draws."""
    from retrieval.synthetic.dataset import write_collection

    folder = call.folder / "drawn"
    if not folder.exists():
        write_collection(folder, patients=call.sizes.patients, abnormal=0.5)
    return folder


def run_python(words: Sequence[str], call: Call, environment: Mapping[str, str] | None = None, grace: float = 0) -> str:
    """Run this file with these words until the call's end and `grace` seconds more; gives why it failed, or ""."""
    command = [sys.executable, __file__, *words, f"--jobs={call.jobs}", f"--until={call.until}"]
    try:
        done = subprocess.run(
            command + ["--dry-run"] * call.dry,
            env={**os.environ, **(environment or {})},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL if environment else None,
            text=True,
            check=False,
            timeout=max(1.0, call.until + grace - time.monotonic()),
        )
    except subprocess.TimeoutExpired:
        return "stopped, since its time was over; give --minutes or --jobs"
    last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
    return last[0] if done.returncode else ""


def run_all(call: Call, out: Path) -> bool:
    """Run every step and write the file after each; gives whether all checks hold."""
    results: dict[str, Any] = {}
    step_file = call.folder / "step.json"
    for name in STEPS:
        print(f"\n{name}", flush=True)
        step_file.unlink(missing_ok=True)
        began = time.monotonic()
        words = ["--step", name, "--folder", str(call.folder), *([str(call.table)] if call.table else [])]
        # A step ends its own processes before it is ended itself, so that what is finished is kept.
        failure = run_python(words, replace(call, until=call.until - GRACE_S), grace=GRACE_S)
        results[name] = json.loads(step_file.read_text(encoding="utf-8")) if step_file.exists() else dict(RESULTS)
        results[name]["seconds"] = round(time.monotonic() - began, 1)
        if failure:
            results[name]["error"] = failure
            print(f"{name} failed: {failure}")
        content = {"schema": SCHEMA, "dry_run": call.dry, "benchmarks": results}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return not any("error" in result or not all(result["checks"].values()) for result in results.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, default=Path(".out/gpu.json"))
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--dry-run", action="store_true")
    for name in ("--step", "--folder", "--seed", "--fold", "--until"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        call = Call(
            sizes=DRY if given.dry_run else FULL,
            folder=Path(given.folder or temporary),
            table=given.table and given.table.absolute(),
            jobs=given.jobs,
            until=float(given.until) if given.until else time.monotonic() + 60 * given.minutes,
            dry=given.dry_run,
        )
        if given.step == "fold":
            train_fold(call, int(given.seed), int(given.fold))
        elif given.step:
            STEPS[given.step](call)
            (call.folder / "step.json").write_text(json.dumps(RESULTS), encoding="utf-8")
        elif not run_all(call, given.out):
            sys.exit("a check or a step failed")


if __name__ == "__main__":
    main()
