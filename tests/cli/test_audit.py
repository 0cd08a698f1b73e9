"""`mura-search audit`."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import Result

from cli.audit import LISTED, print_list
from retrieval.datasets.collection import read_collection
from retrieval.encoding.batches import encoded_batches
from retrieval.indexing.build import build_index

Run = Callable[..., Result]
ROOT = Path(__file__).parents[2]


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


def test_without_splits_the_split_to_be_drawn_is_judged(run: Run, table: Path) -> None:
    """Every radiograph is that of every patient, so whatever is drawn is on both sides."""
    for file in table.parent.glob("s*.png"):
        if file.name != "s1-1.png":
            shutil.copyfile(table.parent / "s1-1.png", file)
    text = run("audit", table).stdout.splitlines()
    assert text[-1].startswith("No splits are named. With those that --split draws: Do not trust figures on the valid")
    findings = json.loads(run("audit", table, "--json").stdout)
    (leak,) = findings["leakage"]
    assert (leak["split"], leak["by_patient"], leak["by_file"]) == ("valid", 0, leak["studies"])


def test_a_name_that_is_no_text_is_shown_as_far_as_it_is(table: Path) -> None:
    folder = table.parent.rename(table.parent.with_name(os.fsdecode(b"data\xff")))
    command = [sys.executable, "-c", "from cli.main import main; main()", "audit", str(folder), "--json"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["root"].endswith("data?")


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


# The deep audit


@pytest.fixture
def planted(tmp_path: Path, texture: Callable[..., np.ndarray]) -> Path:
    """Dark normal and bright abnormal studies, s09 with the other label, and a smaller copy of s01 in valid."""
    rows = []
    (tmp_path / "planted").mkdir()
    for study in range(44):
        picture = texture(study, 160 + study % 7 if study % 2 else 80 + study % 5)
        assert cv2.imwrite(str(tmp_path / "planted" / f"{study:02}.png"), picture)
        label = study % 2 ^ (study == 9)
        rows.append(f"{study:02}.png,{label},p{study:02},s{study:02},{'valid' if study > 30 else 'train'}")
        if study == 1:
            small = cv2.resize(picture, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
            assert cv2.imwrite(str(tmp_path / "planted" / "copy.png"), small)
            rows.append("copy.png,1,other,other,valid")
    (tmp_path / "planted" / "cases.csv").write_text("\n".join(["path,label,patient,study,split", *rows]))
    return tmp_path / "planted"


def test_deep(run: Run, planted: Path, model: Path, tmp_path: Path) -> None:
    table, sheet = tmp_path / "findings.csv", tmp_path / "sheet.html"
    result = run("audit", planted, "--model", model, "--csv", table, "--sheet", sheet)
    assert result.exit_code == 0
    text = result.stdout
    assert "near duplicates: 1\n  01.png ~ copy.png (across splits and patients; details " in text
    assert "labels that look wrong: 1" in text
    (suspect,) = [line for line in text.splitlines() if line.startswith("  s09")]
    assert suspect.split()[1] == "normal"
    assert text.splitlines()[-1] == (
        "Do not trust figures on the valid split as they are: 1 of its 14 studies (7.1%) are tied to another split "
        "(1 by a near duplicate)."
    )
    kinds = [row["finding"] for row in csv.DictReader(table.read_text().splitlines())]
    assert kinds == ["near duplicate", "suspect label", "leaking study"]
    assert "radiograph copy.png, labelled abnormal" in sheet.read_text()
    assert f"Wrote {table}" in result.stderr


def test_an_interrupted_deep_audit_goes_on(
    run: Run, planted: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = json.loads(run("audit", planted, "--model", model, "--json").stdout)
    with monkeypatch.context() as patch:

        def interrupted(*arguments: object, **options: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("retrieval.audit.audit.deep_audit", interrupted)
        assert run("audit", planted, "--model", model).exit_code == 130
    asked: list[int] = []

    def spied(cases, *rest, **more):  # type: ignore[no-untyped-def]
        asked.append(len(cases))
        return encoded_batches(cases, *rest, **more)

    monkeypatch.setattr("retrieval.encoding.batches.encoded_batches", spied)
    assert json.loads(run("audit", planted, "--model", model, "--json").stdout) == plain
    assert asked == [0]
    assert json.loads(run("audit", planted, "--model", model, "--json").stdout) == plain
    assert asked == [0, 45]  # a finished audit leaves nothing


def test_deep_with_an_index_says_the_same(run: Run, planted: Path, model: Path, tmp_path: Path) -> None:
    build_index(read_collection(planted), tmp_path / "index", model=model)
    plain, indexed = (
        json.loads(run("audit", planted, *options, "--json").stdout)
        for options in (("--model", model), ("--index", tmp_path / "index"))
    )
    assert (plain["deep"].pop("reused"), indexed["deep"].pop("reused")) == (0, 45)
    assert [one["cases"] for one in indexed["deep"]["twins"]] == [["01.png", "copy.png"]]
    assert [one["study"] for one in indexed["deep"]["labels"]["issues"]] == ["s09"]
    assert indexed["verdict"] == plain["verdict"]


def test_the_assumed_share_moves_the_chances(run: Run, planted: Path, model: Path) -> None:
    few, many = (
        json.loads(run("audit", planted, "--model", model, "--wrong", share, "--json").stdout)["deep"]["labels"]
        for share in ("0.02", "0.2")
    )
    assert (few["assumed"], many["assumed"]) == (0.02, 0.2)
    assert few["issues"][0]["chance"] < many["issues"][0]["chance"]


def test_the_quick_audit_says_what_it_did_not_look_for(run: Run, planted: Path, tmp_path: Path) -> None:
    result = run("audit", planted, "--csv", tmp_path / "none.csv", "--sheet", tmp_path / "sheet.html")
    assert result.stdout.splitlines()[-1].endswith("Near duplicates were not searched: use --deep.")
    assert "near duplicates" not in result.stdout
    assert len((tmp_path / "none.csv").read_text().splitlines()) == 1
    assert "Labels that look wrong" not in (tmp_path / "sheet.html").read_text()
    findings = json.loads(run("audit", planted, "--json").stdout)
    assert findings["deep"] is None


def test_the_quick_audit_loads_no_model(planted: Path) -> None:
    script = "import sys; from cli.main import main\ntry: main()\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "audit", str(planted)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    modules = set(done.stdout.splitlines()[-1].split())
    assert "retrieval.audit.audit" in modules
    assert not modules & {"onnxruntime", "faiss", "torch"}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--model", "a", "--index", "b"), 2, "give --model or --index"),
        (("--wrong", "0.6"), 2, "--wrong"),
        (("--index", "nowhere"), 1, "error: "),
        (("--model", "nowhere"), 1, "error: "),
        (("--csv", "no/such/folder.csv"), 1, "error: "),
    ],
)
def test_wrong_usage_is_said_before_the_work(
    run: Run, planted: Path, options: tuple[str, ...], code: int, words: str
) -> None:
    result = run("audit", planted, *options)
    assert (result.exit_code, result.stdout) == (code, "")
    assert words in result.stderr
