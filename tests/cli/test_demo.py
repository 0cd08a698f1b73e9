"""`mura-search demo`, with the model that comes along."""

import json
import re
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from cli.demo import making_regions
from cli.serve import ServerOptions
from index.reader import IndexReader
from retrieval.datasets.collection import Collection, read_collection
from retrieval.encoding.bundle import BUNDLED
from retrieval.indexing.build import build_index

Run = Callable[..., Result]


@pytest.mark.slow
def test_the_whole_way(run: Run, tmp_path: Path) -> None:
    """The query is a study of the split valid, every answer says that it is synthetic, and --keep keeps everything."""
    result = run("demo", "--patients", "20", "--keep", tmp_path / "demo", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["index"]["synthetic"] is True
    assert len(answer["cases"]) == 5
    assert all(case["case"].startswith("train/") for case in answer["cases"])
    assert all("/valid/" in file for file in answer["query"]["files"])
    indexed = read_collection(tmp_path / "demo" / "radiographs", split="train")
    assert answer["index"]["cases"] == len(indexed.cases)
    assert run("index", "info", "--index", tmp_path / "demo" / "index").exit_code == 0
    with IndexReader.open(tmp_path / "demo" / "index") as reader:
        assert reader.has_extra("projection")  # for the atlas
        assert not reader.has_extra("regions")


def test_it_serves_what_it_drew_and_leaves_nothing_behind(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[ServerOptions] = []

    def run_server(index: Path, options: ServerOptions) -> None:
        assert index.is_relative_to(tmp_path / "temporary")
        assert json.loads(run("index", "info", "--index", index, "--json").stdout)["collection"]["synthetic"] is True
        served.append(options)

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("cli.demo.run_server", run_server)
    result = run("demo", "--patients", "20", "--serve", "--port", "0")
    assert result.exit_code == 0
    assert "synthetic" in result.stdout
    assert served == [ServerOptions(port=0, files=True)]
    asked = re.search(r"such as (.+)", result.stderr)
    assert asked
    assert Path(asked[1]).is_relative_to(tmp_path / "temporary")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_regions_are_made_while_the_page_is_served(
    squares: Callable[..., Collection], model: Path, tmp_path: Path
) -> None:
    build_index(squares([("ann", "s1", 0, [20]), ("bob", "s2", 1, [215])]), tmp_path / "index", model=model)
    with making_regions(tmp_path / "index"):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with IndexReader.open(tmp_path / "index") as reader:
                if reader.has_extra("regions"):
                    return
            time.sleep(0.05)
    raise AssertionError("no regions were made")


def test_regions_are_no_longer_made_when_the_server_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[threading.Thread] = []

    def endless(_path: Path, progress: Callable[[int, int], None]) -> None:
        while True:
            progress(len(calls), 2)
            calls.append(threading.current_thread())

    monkeypatch.setattr("retrieval.search_by.region.add_regions", endless)
    with making_regions(tmp_path):
        while not calls:
            time.sleep(0.01)
    assert not calls[0].is_alive()


def test_what_is_kept_needs_an_empty_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    for folder in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        result = run("demo", "--patients", "20", "--keep", folder)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"{folder} is not an empty folder" in result.stderr.replace("\n", " ")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_the_model_comes_along() -> None:
    assert {"model.json", "encoder.onnx", "head.safetensors"} <= {file.name for file in BUNDLED.iterdir()}
    assert sum(file.stat().st_size for file in BUNDLED.iterdir()) <= 16_000_000
