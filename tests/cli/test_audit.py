"""`mura-search audit`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from cli.audit import LISTED, print_list

Run = Callable[..., Result]


def test_findings(run: Run, table: Path) -> None:
    folder = table.parent
    (folder / "s1-2.png").write_bytes(b"")
    shutil.copyfile(folder / "s2-1.png", folder / "s3-1.png")
    result = run("audit", folder)
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["6", "radiographs,", "4", "studies,", "4", "patients"] in lines
    assert ["-", "finger", "normal", "3", "2", "2"] in lines
    assert ["-", "finger", "abnormal", "3", "2", "2"] in lines
    assert ["unreadable:", "1"] in lines
    assert "  s2-1.png = s3-1.png (across patients and labels)" in result.stdout
    assert "patients in two splits: none" in result.stdout
    assert "published" not in result.stdout

    findings = json.loads(run("audit", folder, "--json").stdout)
    assert [one["case"] for one in findings["unreadable"]] == ["s1-2.png"]
    assert [one["cases"] for one in findings["duplicates"]] == [["s2-1.png", "s3-1.png"]]


def test_a_mura_copy_is_compared_with_the_published_counts(run: Run, table: Path, tmp_path: Path) -> None:
    study = tmp_path / "mura" / "valid" / "XR_FINGER" / "patient11184" / "study1_negative"
    study.mkdir(parents=True)
    shutil.copyfile(table.parent / "s1-1.png", study / "image1.png")
    text = run("audit", tmp_path / "mura").stdout
    assert "  valid finger normal: 1 studies here, 92 published" in text
    assert "  valid finger abnormal: 0 images here, 247 published" in text


def test_nothing_there(run: Run, tmp_path: Path) -> None:
    result = run("audit", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")


def test_long_lists_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_list("unreadable", [f"{number}.png" for number in range(LISTED + 3)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"unreadable: {LISTED + 3}"
    assert len(lines) == LISTED + 2
    assert lines[-1] == "  and 3 more; --json lists all"
