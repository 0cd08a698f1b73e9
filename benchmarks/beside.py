"""A benchmark of this checkout beside the same benchmark of another one, such as a former commit, in turns.

    git worktree add ../former 8e41f54
    python benchmarks/beside.py ../former encode DATA --images 48 --runs 1
    python benchmarks/beside.py ../former cold_start --runs 1 --pairs 10

What is after NAME goes to the benchmark as it is, but for --pairs. Each checkout is measured by its own script, so what
it measures must be the same in both. The medians that both print under one name are compared.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks._timing import machine, ratio, show

_FIGURE = re.compile(r"^(?P<name>.+): median (?P<value>[-+.\de]+) (?P<unit>.+?) \(min ", re.MULTILINE)

Figures = dict[str, tuple[float, str]]
"""The median and the unit of each figure that a benchmark prints."""


def figures(printed: str) -> Figures:
    """The figures in what a benchmark printed.

    >>> figures("mura-search: median 30.18 images/s (min 29.14, max 36.84; 36.84 29.14 30.18)")
    {'mura-search': (30.18, 'images/s')}
    """
    return {match["name"]: (float(match["value"]), match["unit"]) for match in _FIGURE.finditer(printed)}


def measured(checkout: Path, name: str, words: Sequence[str]) -> Figures:
    """The figures of a benchmark of a checkout. A failing one ends the program."""
    command = [sys.executable, f"benchmarks/{name}.py", *words]
    environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} of {checkout} failed:\n{done.stderr}")
    return figures(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("name")
    parser.add_argument("--pairs", type=int, default=8)
    given, words = parser.parse_known_args()
    machine("onnxruntime")
    words = [str(Path(word).resolve()) if Path(word).exists() else word for word in words]
    checkouts = {"this checkout": Path(__file__).resolve().parents[1], "the other": given.other.resolve()}
    runs: dict[str, list[Figures]] = {of: [] for of in checkouts}
    for pair in range(given.pairs):
        for of in sorted(checkouts, reverse=bool(pair % 2)):
            runs[of].append(measured(checkouts[of], given.name, words))
    own, other = runs["this checkout"], runs["the other"]
    for name, (_, unit) in own[0].items():
        if name not in other[0]:
            continue
        samples = [[found[name][0] for found in of] for of in (own, other)]
        for of, values in zip(checkouts, samples, strict=True):
            show(f"{name}, {of}", values, unit)
        ratio(f"{name}, this checkout / the other", *samples, lower_is_better=not unit.endswith("/s"))


if __name__ == "__main__":
    main()
