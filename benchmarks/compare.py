"""What became slower? Compares the ratios of two files of `run_all.py`; the exit status is 1 if one did.

    python benchmarks/compare.py BASELINE.json NEW.json

Absolute times of two machines cannot be compared, but each benchmark runs beside its alternative, so their ratio can. A
ratio is worse if its median lies beyond every pair of the baseline, on the slow side.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def ratios(file: Path) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """The ratios of a file by benchmark and name."""
    content = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
    return {(name, what): ratio for name, benchmark in content.items() for what, ratio in benchmark["ratios"].items()}


def compared(
    before: Mapping[tuple[str, str], Mapping[str, Any]], after: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """(verdict, line) of each ratio that both have."""
    for key in (key for key in before if key in after):
        old, new = before[key], after[key]
        lower, higher = new["median"] < old["low"], new["median"] > old["high"]
        worse, better = (higher, lower) if old["lower_is_better"] else (lower, higher)
        verdict = "worse" if worse else "better" if better else "same"
        spread = f"{old['median']:.3g} ({old['low']:.3g} to {old['high']:.3g})"
        yield verdict, f"{verdict:6} {key[0]}, {key[1]}: {spread} before, {new['median']:.3g} now"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", type=Path)
    parser.add_argument("new", type=Path)
    given = parser.parse_args()
    comparisons = list(compared(ratios(given.baseline), ratios(given.new)))
    if not comparisons:
        sys.exit("the two files have no ratio in common")
    print("\n".join(line for _, line in comparisons))
    sys.exit(int(any(verdict == "worse" for verdict, _ in comparisons)))


if __name__ == "__main__":
    main()
