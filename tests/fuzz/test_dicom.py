"""Mutated DICOM files: each is read, or refused with one sentence; see tests/fuzz/fuzz_dicom.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repetitions import repetitions

pytest.importorskip("pydicom", reason="the extra dicom is not installed")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.repeated
def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    mutants = repetitions(1_000, 20_000)
    command = [sys.executable, str(ROOT / "tests" / "fuzz" / "fuzz_dicom.py"), "--mutants", str(mutants)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--workers", "2", "--keep", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{mutants:,} mutants" in done.stdout
