"""Measures everything that the documentation says of the bundled model, and fills its tables.

    python -m experiments.bundled_model FOLDER [NAME...] [--fill]

FOLDER has the case tables in `fracatlas/` (`experiments/fracatlas_table.py --copies` makes them) and gets the indexes.
The measurements of `bundled_model.toml` run there one after the other, or those named. `bundled_model.json` gets what
each printed, and keeps it for as long as the model stays the same: a measurement that it has is not repeated, so an
interrupted run continues. With --fill nothing is measured: in the documentation, what stands between the lines
`<!-- bundled: NAME -->` and `<!-- end -->` is replaced by what the measurement NAME printed.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.encoding.bundle import BUNDLED, Bundle
from retrieval.wording import metric_title

SCHEMA = "mura-search/bundled-model/1"
ROOT = Path(__file__).parent.parent
LIST, RESULT = (ROOT / "experiments" / f"bundled_model.{ending}" for ending in ("toml", "json"))
BLOCK = re.compile(r"(<!-- bundled: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
READERS = {"classifier": "classifier", "knn": "vote", "mean": "mean of both"}


def measured(command: str, folder: Path) -> str:
    """What a command prints in `folder`; ROOT stands for that of the checkout. Raises CalledProcessError."""
    words = shlex.split(command.replace("ROOT", str(ROOT)))
    program = {"mura-search": ["-m", "cli"], "python": []}[words[0]]
    known = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *program, *words[1:]], cwd=folder, env=known, check=True, text=True, stdout=subprocess.PIPE
    )
    return done.stdout


def read_result(model: str) -> dict[str, Any]:
    """What was measured of this model so far."""
    if RESULT.exists():
        result: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
        if result["model"] == model:
            return result
    return {"schema": SCHEMA, "model": model, "measurements": {}}


def table(output: str) -> str:
    """An evaluation in JSON as a table, the tables among the lines of another output, or the output as it is."""
    if output.startswith("{"):
        return evaluation_table(json.loads(output))
    lines = output.strip().splitlines()
    if not any(line.startswith("|") for line in lines):
        return "\n".join(f"    {line}".rstrip() for line in lines)
    kept = (line for line in lines if line.startswith("|") or not line)
    return re.sub(r"\n\n+", "\n\n", "\n".join(kept)).strip()


def evaluation_table(evaluation: Mapping[str, Any]) -> str:
    """Each figure by study, with its interval, for classifier, vote and the mean of both."""
    by_study = evaluation["study"]
    lines = [f"| by study | {' | '.join(READERS.values())} |", "|---" * (len(READERS) + 1) + "|"]
    for figure in by_study["classifier"]:
        cells = [estimate(by_study[reader][figure]) for reader in READERS]
        lines.append(f"| {metric_title(figure)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def estimate(figure: Mapping[str, float | None]) -> str:
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    return "" if value is None else f"{value:.3f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")


def fill(measurements: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the measurements into the documentation."""
    for page in (ROOT / "README.md", ROOT / "retrieval" / "model" / "README.md", *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")

        def filled(match: re.Match[str]) -> str:
            known = measurements.get(match[2])
            return f"{match[1]}\n{table(known['output'])}\n\n{match[3]}" if known else match[0]

        page.write_text(BLOCK.sub(filled, text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--fill", action="store_true")
    given = parser.parse_args()
    result = read_result(Bundle.open(BUNDLED).sha256)
    measurements = result["measurements"]
    if given.fill:
        fill(measurements)
        return
    for wanted in tomllib.loads(LIST.read_text(encoding="utf-8"))["measurement"]:
        name, command = wanted["name"], wanted["command"]
        if name in measurements or (given.names and name not in given.names):
            continue
        began = time.monotonic()
        output = measured(command, given.folder)
        measurements[name] = {"command": command, "seconds": round(time.monotonic() - began), "output": output}
        RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{name}: {measurements[name]['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
