"""`mura-search worklist FOLDER` from start to finish."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import Result

from cli.worklist import follow
from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher
from retrieval.worklist.folder_watcher import Watch

Run = Callable[..., Result]
Square = Callable[..., Path]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def inbox(square: Square) -> Path:
    square("in/dark.png", 30)
    square("in/bright/pa.png", 220)
    (square("in/middle.png", 128).parent / "bad.png").write_bytes(b"no picture")
    return square("in/middle.png", 128).parent


def test_the_terminal_shows_the_order(run: Run, place: Path, inbox: Path) -> None:
    result = run("worklist", inbox, "--index", place)
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines() if line[:1].isdigit()]
    assert [row[-1] for row in rows[:3]] == ["bright", "middle.png", "dark.png"]
    assert rows[0][2] == "abnormal"
    assert rows[2][2] == "normal"
    assert "1 could not be read; look at them yourself." in result.stdout
    assert result.stderr.startswith("left out: bad.png: ")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_terminal_says_what_is_to_be_known_of_a_study(
    run: Run, collection: Collection, model: Path, inbox: Path, tmp_path: Path
) -> None:
    (inbox / "bright" / "x.png").write_bytes(b"no picture")
    build_index(replace(collection, synthetic=True), tmp_path / "synthetic", model=model)
    told = " ".join(run("worklist", inbox, "--index", tmp_path / "synthetic").stdout.split())
    assert "bright: left out: " in told
    assert told.count("synthetic radiographs") == 1


def test_json_csv_and_html(run: Run, place: Path, inbox: Path, tmp_path: Path) -> None:
    files = tmp_path / "out.csv", tmp_path / "out.html"
    result = run("worklist", inbox, "--index", place, "--csv", files[0], "--html", files[1], "--json")
    told = json.loads(result.stdout)
    assert [study["study"] for study in told["studies"]] == ["bright", "middle.png", "dark.png"]
    assert [line.split(",")[1] for line in files[0].read_text("utf-8").splitlines()] == [
        "study", "bright", "middle.png", "dark.png", "bad.png"
    ]  # fmt: skip
    assert files[1].read_text("utf-8").endswith("</html>\n")


def test_nothing_that_could_be_done_exits_with_1(run: Run, place: Path, inbox: Path, tmp_path: Path) -> None:
    for arguments in ([tmp_path / "gone"], [tmp_path / "gone", "--watch"], [inbox, "--csv", tmp_path / "no" / "a.csv"]):
        result = run("worklist", *arguments, "--index", place)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


def test_a_share_that_does_not_answer_for_a_while_does_not_end_the_watch(
    place: Path, inbox: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[object] = [OSError(116, "Stale file handle"), OSError(116, "Stale file handle"), ([], set())]

    def look(watch: Watch) -> object:
        if not answers:
            raise KeyboardInterrupt
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(Watch, "look", look)
    with Searcher.open(place) as searcher:
        follow(searcher, inbox, 0.01, True, lambda result: None)
    told = capsys.readouterr().err
    assert told.count(f"{inbox} cannot be read now: Stale file handle") == 1
    assert "stopped; 0 studies were read" in told


def test_watching_prints_what_comes_and_ends_with_ctrl_c(place: Path, inbox: Path, square: Square) -> None:
    table = inbox.parent / "out.csv"
    options = ["--index", str(place), "--watch", "--every", "0.2", "--json", "--csv", str(table)]
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", "from cli.main import main; main()", "worklist", str(inbox), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    )
    assert process.stdout is not None
    try:
        there = {json.loads(process.stdout.readline())["study"] for _ in range(3)}
        assert there == {"bright", "dark.png", "middle.png"}
        square("in/new/pa.png", 245)
        new = json.loads(process.stdout.readline())
        assert (new["study"], new["rank"]) == ("new", 1)
        for _ in range(100):
            if table.exists() and "\n1,new," in table.read_text("utf-8"):
                break
            time.sleep(0.1)
        assert "\n1,new," in table.read_text("utf-8")
        process.send_signal(signal.SIGINT)
        rest, words = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert rest == ""
    assert "left out: bad.png" in words
    assert words.rstrip().endswith("stopped; 4 studies were read")
    assert "Traceback" not in words
