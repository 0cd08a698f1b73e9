"""Helpers of the benchmarks: the machine, raw samples, medians with their spread, and ratios within one run.

What is printed is also kept in RESULTS, which `run_all.py` writes to a file.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

__all__ = ["RESULTS", "alternate", "check", "machine", "note", "ratio", "run_command", "show"]

RESULTS: dict[str, Any] = {"machine": [], "notes": [], "samples": {}, "ratios": {}, "checks": {}}


def machine(*packages: str) -> None:
    """Print the processor, the number of cores, and the versions of Python and of packages."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(processor := f"{_processor()}, {cores} cores, Python {platform.python_version()}")
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} missing")
    print(", ".join(versions))
    RESULTS["machine"] = [processor, *versions]


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def alternate(runs: int, *actions: Callable[[], float], warm_up: int = 1) -> tuple[list[float], ...]:
    """Call the actions in turn, A B A B ..., so that a disturbance hits all; gives the figures that each returns."""
    samples: tuple[list[float], ...] = tuple([] for _ in actions)
    for run in range(warm_up + runs):
        for values, action in zip(samples, actions, strict=True):
            figure = action()
            if run >= warm_up:
                values.append(figure)
    return samples


def show(name: str, samples: Sequence[float], unit: str) -> None:
    """Print and keep median, spread and the raw samples."""
    RESULTS["samples"][name] = {"unit": unit, "values": list(samples)}
    raw = " ".join(f"{value:.4g}" for value in samples)
    print(f"{name}: median {median(samples):.4g} {unit} (min {min(samples):.4g}, max {max(samples):.4g}; {raw})")


def ratio(name: str, samples: Sequence[float], reference: Sequence[float], *, lower_is_better: bool = False) -> float:
    """Print, keep and give the median of the pairwise ratios samples / reference."""
    pairs = [a / b for a, b in zip(samples, reference, strict=True)]
    RESULTS["ratios"][name] = {
        "median": median(pairs), "low": min(pairs), "high": max(pairs), "lower_is_better": lower_is_better,
    }  # fmt: skip
    print(f"{name}: {median(pairs):.3g} (pairwise {min(pairs):.3g} to {max(pairs):.3g})")
    return median(pairs)


def check(promise: str, holds: bool) -> None:
    """Print and keep whether something holds that must."""
    RESULTS["checks"][promise] = holds
    print(f"{promise}: {'yes' if holds else 'NO'}")


def note(text: str) -> None:
    """Print and keep what a reader of the figures has to know."""
    RESULTS["notes"].append(text)
    print(text)


def run_command(command: Sequence[str]) -> float:
    """Seconds from starting a process to its end; a failing one ends the benchmark."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return seconds
