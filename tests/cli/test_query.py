"""`mura-search QUERY...` from start to finish, on an index of grey squares."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import Result

from retrieval.encoding.encoder import Encoder
from retrieval.explain.evidence import evidence
from retrieval.explain.rendering import overlay
from retrieval.searcher import Searcher

Run = Callable[..., Result]
Square = Callable[..., Path]


def test_json_is_the_answer_of_the_library(run: Run, place: Path, square: Square) -> None:
    query = square("query.png", 210)
    answer = json.loads(run(query, "--index", place, "--json").stdout)
    with Searcher.open(place) as searcher:
        expected = json.loads(json.dumps(searcher.search(query).to_dict()))
    del answer["seconds"], expected["seconds"]
    assert answer == expected
    assert [case["study"] for case in answer["cases"]] == ["s3", "s4", "s2", "s1"]


def test_the_terminal_shows_the_same(run: Run, place: Path, square: Square) -> None:
    result = run(square("query.png", 210), "--index", place)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith("ABNORMAL: classifier and vote agree\n")
    assert [line.split()[4] for line in result.stdout.splitlines() if " finger " in line] == ["s3", "s4", "s2", "s1"]


def test_several_files_are_views_of_one_study(run: Run, place: Path, square: Square) -> None:
    result = run(square("a.png", 20), square("b.png", 230), "--index", place, "--json")
    assert json.loads(result.stdout)["query"]["views"] == 2


def test_k_patient_part_and_view(run: Run, place: Path, square: Square) -> None:
    def studies(*options: str) -> list[str]:
        result = run(square("query.png", 210), "--index", place, "--json", *options)
        return [case["study"] for case in json.loads(result.stdout)["cases"]]

    assert studies("--k", "1") == ["s3"]
    assert studies("--patient", "cid") == ["s4", "s2", "s1"]
    assert studies("--part", "finger") == ["s3", "s4", "s2", "s1"]
    assert studies("--part", "wrist") == []
    assert studies("--view", "view 2") == ["s4", "s1"]
    assert studies("--view", "view 2", "--view", "view 1") == ["s3", "s4", "s2", "s1"]


def test_a_heatmap_is_drawn_over_the_radiograph(
    run: Run, place: Path, model: Path, square: Square, tmp_path: Path
) -> None:
    query, out = square("query.png", 210), tmp_path / "out.png"
    answer = json.loads(run(query, "--index", place, "--json", "--heatmap", out).stdout)
    assert [view["heatmap"] for view in answer["views"]] == [str(out)]
    pixels = cv2.imread(str(query), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    grey = np.asarray(pixels, np.uint8)
    expected = overlay(grey, evidence(Encoder.open(model), grey, answer["views"][0]["classifier"]))
    drawn = cv2.imread(str(out))
    assert drawn is not None
    assert np.abs(drawn.astype(int) - expected).max() <= 1
    plain = json.loads(run(query, "--index", place, "--json").stdout)
    assert [view["heatmap"] for view in plain["views"]] == [None]
    for one in (answer, plain):
        del one["seconds"], one["views"][0]["heatmap"]
    assert answer == plain


def test_every_view_has_its_own_heatmap(run: Run, place: Path, square: Square, tmp_path: Path) -> None:
    result = run(square("a.png", 20), square("b.png", 230), "--index", place, "--heatmap", tmp_path / "out.png")
    assert result.exit_code == 0
    assert sorted(file.name for file in tmp_path.glob("out*")) == ["out-1.png", "out-2.png"]
    lines = [line for line in result.stdout.splitlines() if line.startswith("heatmap  ")]
    assert [Path(line.removeprefix("heatmap  ")).name for line in lines] == ["out-1.png", "out-2.png"]
    assert "it does not outline a lesion" in " ".join(result.stdout.split())


@pytest.mark.parametrize("name", ["missing/out.png", "out.jpg", "query.png", "taken.png"])
def test_a_heatmap_that_cannot_be_written_is_one_line(
    run: Run, place: Path, square: Square, tmp_path: Path, name: str
) -> None:
    query = square("query.png", 210)
    before = query.read_bytes()
    (tmp_path / "taken.png").mkdir()
    result = run(query, "--index", place, "--heatmap", tmp_path / name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert name in result.stderr
    assert result.stderr.count("\n") == 1
    assert query.read_bytes() == before


def test_the_index_may_be_named_by_the_environment(
    run: Run, place: Path, square: Square, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MURA_SEARCH_INDEX", str(place))
    assert run(square("query.png", 210)).exit_code == 0


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_bad_file_is_one_line(run: Run, place: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bad.png"
    file.write_bytes(content)
    result = run(file, "--index", place)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert "bad.png" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_query_imports_nothing_heavy(place: Path, square: Square) -> None:
    script = "import sys\nfrom cli.main import app\napp(standalone_mode=False)\nprint(*sys.modules, file=sys.stderr)"
    arguments = [str(square("query.png", 210)), "--index", str(place)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        check=True,
    )
    assert done.stdout.startswith("ABNORMAL")
    modules = set(done.stderr.split())
    assert {"numpy", "cv2", "faiss", "onnxruntime"} <= modules
    assert not modules & {"torch", "torchvision", "pandas", "sklearn", "matplotlib", "scipy"}
    assert not modules & {"pydicom", "highdicom", "fastapi", "pymilvus", "pyarrow"}


def test_a_report_is_written_whole_and_named_in_the_json(run: Run, place: Path, square: Square, tmp_path: Path) -> None:
    file = tmp_path / "out.html"
    query = square("query.png", 210)
    result = run(query, "--index", place, "--report", file, "--json")
    assert result.exit_code == 0
    assert result.stderr == f"Wrote {file}\n"
    answer = json.loads(result.stdout)
    assert answer["report"] == str(file)
    page = file.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert f"{answer['classifier']['probability']:.3f}" in page
    assert f"{answer['knn']['probability']:.3f}" in page
    assert len(answer["cases"]) == 4
    for case in answer["cases"]:
        assert f"similarity {case['similarity']:.3f}" in page
    assert json.loads(run(query, "--index", place, "--json").stdout)["report"] is None
    assert "report   " in run(query, "--index", place, "--report", file).stdout


def test_a_report_that_cannot_be_written_is_one_line(run: Run, place: Path, square: Square, tmp_path: Path) -> None:
    query = square("query.png", 210)
    before = query.read_bytes()
    for file, words in [
        (tmp_path / "no" / "out.html", "there is no folder"),
        (tmp_path, "is a folder; name a file in it"),
        (query, "is a radiograph of the query"),
    ]:
        result = run(query, "--index", place, "--report", file)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: ")
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    assert query.read_bytes() == before
    view = square("study/pa.png", 200)  # a view of a study that is named by its folder
    before = view.read_bytes()
    result = run(view.parent, "--index", place, "--report", view)
    assert result.exit_code == 1
    assert "is a radiograph of the query" in result.stderr
    assert view.read_bytes() == before


def test_a_name_that_is_no_file_is_an_error(run: Run, place: Path, square: Square) -> None:
    query = square("pa.png", 210)
    for names in ((query, "latral.png"), ("search", query)):
        result = run(*names, "--index", place)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.endswith("does not exist; check its name\n")


def test_several_studies_are_refused_unless_they_are_one(run: Run, place: Path, square: Square) -> None:
    one = square("XR_HAND/patient00001/study1_positive/image1.png", 210)
    two = square("XR_HAND/patient00002/study1_positive/image1.png", 200)
    result = run(one, two, "--index", place)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "mura-search worklist FOLDER" in result.stderr
    result = run(one, two, "--index", place, "--one-study")
    assert result.exit_code == 0
    assert "of several patients" in result.stdout


def test_a_report_ends_in_html(run: Run, place: Path, square: Square, tmp_path: Path) -> None:
    result = run(square("pa.png", 210), "--index", place, "--report", tmp_path / "answer.pdf")
    assert result.exit_code == 1
    assert "answer.pdf does not end in .html or .htm" in result.stderr


def test_paths_with_blanks_can_be_copied_and_missing_files_are_said_to_be(
    run: Run, place: Path, square: Square, tmp_path: Path
) -> None:
    shown = run(square("my query.png", 210), "--index", place, "--heatmap", tmp_path / "my map.png").stdout
    assert f"heatmap  '{tmp_path}/my map.png'" in shown
    with Searcher.open(place) as searcher:
        (case,) = searcher.search(square("query.png", 210), k=1).cases
    Path(case.path).unlink()
    assert f"{case.path}  (missing)" in run(square("query.png", 210), "--index", place).stdout
