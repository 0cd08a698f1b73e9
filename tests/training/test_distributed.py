"""Two processes on one machine, as torchrun starts them, over gloo."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retrieval.encoding.bundle import Bundle
from retrieval.synthetic.dataset import write_collection
from training.distributed import joined

TWO = """
import json
from pathlib import Path
import torch
from training.distributed import joined
with joined() as world:
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    inputs = torch.arange(6.0).view(2, 3)
    network(inputs[world.rank : world.rank + 1]).square().sum().backward()
    network.bias.grad = None if world.rank else network.bias.grad
    world.average(network)
    Path(f"{world.rank}.json").write_text(json.dumps({
        "gradient": network.weight.grad.tolist(), "bias": network.bias.grad.tolist(),
        "agreed": world.agreed({"mine": world.rank}),
        "any": [world.any(world.rank == 1), world.any(False)], "leads": world.leads,
    }))
# Threads that outlive the group may abort the process at its end.
names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").glob("*")]
Path(f"threads-{world.rank}.json").write_text(json.dumps([name for name in names if "gloo" in name]))
"""

TRAIN = """
import sys
from cli.main import main
for recipe, out in (("recipe.json", "run"), ("large.json", "other")):
    sys.argv = ["mura-search", "train", "data", "--recipe", recipe, "--cache", "cache", "--out", out]
    try:
        main()
    except SystemExit as end:
        print("stopped with", end.code)
"""


def torchrun(*words: str | Path, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_alone_nothing_is_shared() -> None:
    with joined() as world:
        assert (world.rank, world.size, world.leads) == (0, 1, True)
        assert world.agreed("mine") == "mine"
        assert (world.any(True), world.any(False)) == (True, False)
        network = torch.nn.Linear(2, 1)
        network(torch.ones(1, 2)).sum().backward()
        before = network.weight.grad
        world.average(network)
        assert network.weight.grad is before


def test_two_processes_share_gradients_and_decisions(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    done = torchrun(tmp_path / "two.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    (network(torch.arange(6.0).view(2, 3)).square().sum() / 2).backward()
    assert network.weight.grad is not None
    for told in (first, second):
        assert told["gradient"][0] == pytest.approx(network.weight.grad[0].tolist())
        assert told["bias"] == first["bias"] != [0.0]
        assert told["agreed"] == {"mine": 0}
        assert told["any"] == [True, False]
    assert (first["leads"], second["leads"]) == (True, False)
    assert [json.loads((tmp_path / f"threads-{rank}.json").read_text()) for rank in (0, 1)] == [[], []]


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    write_collection(tmp_path / "data", patients=24, seed=1, abnormal=0.5, valid=0.0)
    recipe = {
        "backbone": "timm:test_efficientnet", "weights": "", "size": 64, "epochs": 2, "images": 2, "identities": 2,
        "holdout": 0.3, "precision": "float32", "patience": 0,
    }  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    (tmp_path / "large.json").write_text(json.dumps({**recipe, "images": 16}))
    (tmp_path / "train.py").write_text(TRAIN)
    done = torchrun(tmp_path / "train.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Trained in") == 1
    record = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert record["processes"] == 2
    with (tmp_path / "run" / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    assert all(math.isfinite(float(row["triplet"])) for row in rows)
    assert Bundle.open(tmp_path / "run" / "model").dimension == 128
    assert sum(path.is_file() for path in (tmp_path / "cache").rglob("*")) == record["images"]
    # With more processes than batches each process stops, and the last sentence says why.
    assert done.stdout.count("stopped with 1") == 2
    assert "too few for 2 processes; start fewer" in done.stderr
