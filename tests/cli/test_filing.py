"""Changes that can be undone, the order to label in, the map, and indexed studies and regions as queries."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index

Run = Callable[..., Any]
STUDIES = [("ann", "s1", 0, [20, 25]), ("bob", "s2", 0, [40]), ("cid", "s3", 1, [215]), ("dee", "s4", 1, [235])]


@pytest.fixture
def place(squares: Callable[..., Collection], model: Path, tmp_path: Path) -> Path:
    build_index(squares(STUDIES), tmp_path / "index", model=model)
    return tmp_path / "index"


def as_json(run: Run, *arguments: object) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def test_changes_are_listed_and_undone(run: Run, place: Path) -> None:
    run("index", "relabel", "s1", "abnormal", "--note", "second reading", "--index", place)
    aside = run("index", "set-aside", "s3", "--reason", "a toe", "--index", place)
    assert aside.stdout == "Study s3 is set aside: 1 radiograph.\n"
    changes = as_json(run, "index", "filed", "--index", place)["changes"]
    assert [(change["action"], change["study"], change["note"]) for change in changes] == [
        ("set-aside", "s3", "a toe"), ("relabel", "s1", "second reading"),
    ]  # fmt: skip
    listed = run("index", "filed", "--index", place).stdout
    assert "normal to abnormal" in listed
    assert as_json(run, "index", "info", "--index", place)["labels"] == {"normal": 1, "abnormal": 3}
    first = changes[1]["generation"]
    assert run("index", "undo", first, "--index", place).stdout == (
        f"Undone: change {first}, relabel of study s1 (2 radiographs).\n"
    )
    assert as_json(run, "index", "undo", "--index", place)["action"] == "set-aside"
    assert as_json(run, "index", "info", "--index", place)["labels"] == {"normal": 3, "abnormal": 2}
    nothing = run("index", "undo", "--index", place)
    assert (nothing.exit_code, nothing.stderr.startswith("error: there is nothing to undo")) == (1, True)


def test_an_indexed_study_as_query(run: Run, place: Path, tmp_path: Path) -> None:
    answer = as_json(run, "--case", "s1", "--k", 2, "--index", place)
    assert answer["query"]["files"] == ["s1-1.png", "s1-2.png"]
    assert [case["study"] for case in answer["cases"]] == ["s2", "s3"]
    shown = run("--case", "s1-2.png", "--index", place).stdout
    assert "the query is the indexed study s1, labelled normal; patient ann is left out" in " ".join(shown.split())
    report = tmp_path / "answer.html"
    assert run("--case", "s3", "--index", place, "--report", report).exit_code == 0
    assert "s3-1.png" in report.read_text() or "array 1" in report.read_text()
    unknown = run("--case", "s9", "--index", place)
    assert (unknown.exit_code, "holds no study and no radiograph s9" in unknown.stderr) == (1, True)
    for wrong in ((), ("q.png", "--case", "s1"), ("--case", "s1", "--dicom-out", tmp_path)):
        assert run("query", *wrong, "--index", place).exit_code == 2


def test_regions(run: Run, place: Path, square: Callable[..., Path]) -> None:
    query = square("query.png", 220)
    missing = run(query, "--region", "0,0,20,20", "--index", place)
    assert (missing.exit_code, "mura-search index regions" in missing.stderr) == (1, True)
    assert as_json(run, "index", "regions", "--index", place) == {
        "schema": "mura-search/regions/1", "encoded": 5, "unread": [],
    }  # fmt: skip
    answer = as_json(run, query, "--region", "0,0,20,20", "--k", 2, "--index", place)
    assert [region["label"] for region in answer["regions"]] == ["abnormal"] * 2
    assert "Of these 5 studies" not in (shown := run(query, "--region", "0,0,20,20", "--index", place).stdout)
    assert " of these 4 studies are abnormal." in shown
    for region in ("0,0,20", "0,0,0,5", "a,b,c,d"):
        assert run(query, "--region", region, "--index", place).exit_code == 2


def test_regions_with_the_build(run: Run, squares: Callable[..., Collection], model: Path, tmp_path: Path) -> None:
    squares(STUDIES, "more")
    rows = [f"{study}-1.png,{('normal', 'abnormal')[label]},{patient},{study}" for patient, study, label, _ in STUDIES]
    table = tmp_path / "more" / "cases.csv"
    table.write_text("\n".join(["path,label,patient,study", *rows]))
    place = tmp_path / "with-regions"
    built = run("index", "build", table, "--model", model, "--regions", "--index", place)
    assert (built.exit_code, built.stderr) == (0, "")
    again = run("index", "regions", "--index", place)
    assert again.stdout == "Encoded the regions of 0 radiographs; not read: 0.\n"
    assert run("index", "build", table, "--regions", "--shard", "1/2", "--index", tmp_path / "s").exit_code == 2


def test_a_map(run: Run, place: Path) -> None:
    made = as_json(run, "index", "project", "--method", "pca", "--index", place)
    assert (made["studies"], made["method"]) == (4, "pca")
    assert run("index", "project", "--method", "umap", "--index", place).exit_code == 2


def test_what_to_label_first(run: Run, place: Path, square: Callable[..., Path], tmp_path: Path) -> None:
    for number, brightness in enumerate((22, 128, 233)):
        square(f"in/study{number}/a.png", brightness, number)
    table = tmp_path / "to-label.csv"
    shown = run("label", tmp_path / "in", "--order", "mixed", "--index", place, "--csv", table)
    assert shown.stdout.splitlines()[1].split()[:2] == ["1", "study1"]
    header, *lines = table.read_text().splitlines()
    assert header == "path,label,study,rank,reasons,classifier,vote,similarity"
    assert len(lines) == 3
    filled = [header, *(line.replace(",,", ",normal,", 1) for line in lines[:1])]
    table.write_text("\n".join(filled))
    assert run("index", "add", table, "--index", place).stdout.startswith("Added 1 radiograph")
    left = as_json(run, "label", tmp_path / "in", "--order", "unlike", "--index", place)
    assert {study["study"] for study in left["studies"]} == {"study0", "study2"}
    assert left["skipped"] == [{"study": "study1", "reason": "it is in the index already, and so has a label"}]
    assert run("label", tmp_path / "in", "--order", "best", "--index", place).exit_code == 2
