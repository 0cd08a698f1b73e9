"""Fill the tables of a page from the JSON files of `run_all.py` and `gpu.py`.

    python benchmarks/tables.py docs/performance.md .out/bench.json [MORE.json...]

What stands between the lines `<!-- bench: NAME -->` and `<!-- end -->` is replaced by the machine and the figures of
the benchmark NAME: medians, and the least and greatest sample. Blocks whose benchmark is in no file stay as they are.
"""

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["filled"]

BLOCK = re.compile(r"(<!-- bench: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str, benchmarks: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of a page with the tables of these benchmarks."""

    def table(match: re.Match[str]) -> str:
        results = benchmarks.get(match[2])
        return match[0] if results is None else "\n".join((match[1], *_lines(results), "", match[3]))

    return BLOCK.sub(table, text)


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    yield f"({'; '.join(results['machine'])})"
    yield ""
    yield "| figure | median | least to greatest |"
    yield "|---|---|---|"
    for name, sample in results["samples"].items():
        values = sample["values"]
        spread = f"{min(values):.3g} to {max(values):.3g}" if len(values) > 1 else ""
        yield f"| {name} | {median(values):.3g} {sample['unit']} | {spread} |"
    for name, ratio in results["ratios"].items():
        yield f"| **{name}** | **{ratio['median']:.3g}** | {ratio['low']:.3g} to {ratio['high']:.3g} |"
    if notes := results.get("notes"):
        yield ""
        yield from (f"- {note}" for note in notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    given = parser.parse_args()
    benchmarks: dict[str, Any] = {}
    for file in given.results:
        benchmarks |= json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
    page: Path = given.page
    page.write_text(filled(page.read_text(encoding="utf-8"), benchmarks), encoding="utf-8")


if __name__ == "__main__":
    main()
