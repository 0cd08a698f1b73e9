"""`mura-search index calibrate` and `mura-search drift`, from the first word to the last line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from retrieval.datasets.collection import Collection
from retrieval.images.measures import MEASURES
from retrieval.indexing.build import build_index

Run = Callable[..., Result]
Squares = Callable[..., Collection]


def studies(count: int, dark: int, bright: int, name: str, spread: int = 6) -> list[tuple[str, str, int, list[int]]]:
    return [
        (f"{name}{n}", f"{name}{n}-s", n % 2, [(bright if n % 2 else dark) + n // 2 * 7 % (2 * spread + 1) - spread])
        for n in range(count)
    ]


@pytest.fixture
def index(squares: Squares, model: Path, tmp_path: Path) -> Path:
    """Dark squares from 30 to 90 are normal, bright ones from 160 to 220 abnormal."""
    build_index(squares(studies(60, 60, 190, "p", spread=30)), tmp_path / "index", model=model)
    return tmp_path / "index"


@pytest.fixture
def local(squares: Squares) -> Path:
    """The table of a hospital whose normal squares are as bright as the index's abnormal ones."""
    return table_of(squares(studies(60, 168, 210, "l"), "local"))


def table_of(collection: Collection) -> Path:
    """A collection as a case table."""
    rows = [f"{case.case},{case.label_name},{case.patient},{case.study}" for case in collection.cases]
    file = collection.root / "cases.csv"
    file.write_text("\n".join(["path,label,patient,study", *rows]) + "\n", encoding="utf-8")
    return file


def test_calibrate_say_so_and_undo(run: Run, index: Path, local: Path) -> None:
    query = local.parent / "l0-s-1.png"
    assert run(query, "--index", index, "--patient", "new").stdout.startswith("ABNORMAL")
    done = run("index", "calibrate", local, "--index", index)
    assert done.exit_code == 0
    assert done.stdout.startswith("Calibrated on 60 studies (30 abnormal) of 60 patients, in ")
    words = " ".join(done.stdout.split())
    assert "the model's classifier 1.000" in words  # both are shown, whichever is in use
    assert "a local classifier 1.000" in words
    assert "gain in log loss" in words
    assert "mura-search index calibrate --undo" in done.stdout
    assert run(query, "--index", index).stdout.startswith("NORMAL")
    info = run("index", "info", "--index", index).stdout
    assert "calibrated on 60 local studies" in info
    assert "\nclassifier " in info
    assert "calibrate" in info
    undone = run("index", "calibrate", "--undo", "--index", index)
    assert undone.stdout.startswith("The former rules are in use again: learned on 60 studies")
    assert run(query, "--index", index, "--patient", "new").stdout.startswith("ABNORMAL")
    refused = run("index", "calibrate", "--undo", "--index", index)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)


def test_calibrate_as_json(run: Run, index: Path, local: Path) -> None:
    report = json.loads(run("index", "calibrate", local, "--index", index, "--json").stdout)
    assert report["schema"] == "mura-search/calibration/1"
    assert (report["studies"], report["abnormal"], report["patients"]) == (60, 30, 60)
    assert report["trial"]["kept"] is ("local" in report["rules"])
    assert report["trial"]["model"]["auroc"] == 1
    assert report["former"]["classifier_threshold"] != report["rules"]["classifier_threshold"]


def test_calibrate_needs_data_or_undo(run: Run, index: Path, local: Path) -> None:
    assert run("index", "calibrate", "--index", index).exit_code == 2
    assert run("index", "calibrate", local, "--undo", "--index", index).exit_code == 2


def test_drift_of_labelled_and_unlabelled_studies(run: Run, index: Path, local: Path, tmp_path: Path) -> None:
    table = tmp_path / "drift.csv"
    shown = run("drift", local, "--index", index, "--csv", table)
    assert shown.exit_code == 0
    assert shown.stdout.startswith("60 studies beside 60 of the index.")
    words = " ".join(shown.stdout.split())
    assert "of 60 studies 100 % are called abnormal by the classifier, of the indexed ones 50 %" in words
    names = [line.split(",")[0] for line in table.read_text().splitlines()]
    assert names == ["score", "classifier", "knn", "similarity", *MEASURES]
    local.unlink()  # a folder without labels
    found = json.loads(run("drift", local.parent, "--index", index, "--json").stdout)
    assert found["schema"] == "mura-search/drift/1"
    assert (found["studies"], found["enough"]) == (60, True)
    assert "classifier" in found["parted"]


def test_a_worklist_says_that_scores_have_parted(run: Run, index: Path, local: Path) -> None:
    listed = run("worklist", local.parent, "--index", index)
    assert "The scores of these studies differ from those of the index: of 60 studies 100 %" in " ".join(
        listed.stdout.split()
    )
    assert json.loads(run("worklist", local.parent, "--index", index, "--json").stdout)["drift"]["parted"]


def test_after_calibration_nothing_has_parted(run: Run, index: Path, squares: Squares) -> None:
    """Calibrated on one half of a hospital's studies, the other half is as it should be; before, it was not."""
    halves = [table_of(squares(studies(60, 170, 200, name, spread=25), name)) for name in ("l", "m")]
    assert "differ from those of the index" in " ".join(run("drift", halves[1], "--index", index).stdout.split())
    assert run("index", "calibrate", halves[0], "--index", index).exit_code == 0
    shown = run("drift", halves[1], "--index", index)
    assert "No score differs from those of the index." in shown.stdout


def test_an_index_without_scores_of_its_own_says_so(run: Run, place: Path, local: Path) -> None:
    refused = run("drift", local, "--index", place)
    assert refused.exit_code == 1
    assert "does not know the scores of its own studies" in refused.stderr
