"""Run benchmarks one after the other, each in a process of its own, and write all of their figures to one JSON file.

    python benchmarks/run_all.py OUT.json [NAME...]        # without names: those that `make bench` runs
    python benchmarks/run_all.py OUT.json "peers --queries 20" limits

OUT has, by benchmark, the machine and the versions, all samples with their units, and the ratios.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

SCHEMA = "mura-search/benchmarks/1"
NAMES = ("cold_start", "encode", "search", "train")
_RUN = """
import importlib, json, sys
from benchmarks._timing import RESULTS
out, name, *words = sys.argv[1:]
sys.argv = [name, *words]
importlib.import_module(f"benchmarks.{name}").main()
with open(out, "w") as file:
    json.dump(RESULTS, file)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    part = given.out.with_suffix(".part")
    results = {}
    # One thread for NumPy's products, as the commands have it.
    environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ}
    for name in given.names:
        print(f"\n{name}", flush=True)
        words = shlex.split(name)
        subprocess.run([sys.executable, "-c", _RUN, str(part), *words], check=True, env=environment)
        results[words[0]] = json.loads(part.read_text(encoding="utf-8"))
        part.unlink()
        content = json.dumps({"schema": SCHEMA, "benchmarks": results}, indent=1)
        given.out.write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
