"""The report of a grid, from results that are made up."""

import csv
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from retrieval.evaluation.metrics import METRICS
from retrieval.evaluation.paired_comparison import Prediction, write_predictions
from retrieval.evaluation.pca import Plane
from training.experiments.grid import Grid, read_grid
from training.experiments.report import write_report
from training.loop.metrics_chart import metrics_drawing

GRID = """
title = "Two <networks>"
description = "With & without."
source = "a paper"
baseline = "one-false"

[recipe]
weights = ""

[[run]]
name = "one-{clahe}"
clahe = [false, true]

[[run]]
name = "lost"
margin = 0.7

[[table]]
title = "Kappa"
corner = "CLAHE"
rows = ["false", "true"]
columns = [
    { title = "valid", run = "one-{row}", value = "valid.kappa", published = [0.25, nan] },
    { title = "lost", run = "lost", value = "study.knn.kappa" },
]

[[figure]]
title = "Maps"
runs = ["one-false", "lost"]
"""


def estimate(value: float | None) -> dict[str, float | None]:
    return {
        "value": value,
        "low": None if value is None else value - 0.1,
        "high": None if value is None else value + 0.1,
    }


def result(name: str, kappa: float) -> dict[str, Any]:
    by_side = {"loss": 0.125, "accuracy": 0.75, "error": 0.25, "kappa": kappa}
    readers = {reader: {metric: estimate(kappa) for metric in METRICS} for reader in ("classifier", "knn", "mean")}
    counts = {"studies": 4, "abnormal_studies": 2, "images": 6, "abnormal_images": 3, "patients": 4}
    of_part = {"studies": 2, "abnormal": 1, "classifier": readers["knn"], "knn": readers["knn"]}
    return {
        "name": name,
        "parts": {"hand": of_part, "wrist": of_part},
        "seconds": 90.0,
        "versions": {"torch": "9"},
        "data_sha256": "abc",
        "train": by_side,
        "valid": by_side,
        "study": readers,
        "image": readers,
        "retrieval": {f"precision_at_{depth}": estimate(0.8) for depth in (1, 5, 10)},
        "difference": {metric: estimate(None) for metric in METRICS},
        **counts,
    }


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    (tmp_path / "grid.toml").write_text(GRID, encoding="utf-8")
    return read_grid(tmp_path / "grid.toml")


@pytest.fixture
def results(tmp_path: Path) -> list[Mapping[str, Any]]:
    rng = np.random.default_rng(0)
    for name, right in (("one-false", 0.4), ("one-true", 0.9)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        np.savez(folder / "embeddings.npz", embeddings=rng.standard_normal((6, 8)), labels=[0, 1, 0, 1, 0, 1])
        calls = [Prediction(f"s{i}", f"p{i}", i % 2, right if i % 2 else 0.3, 0.5, 0.5, 0.4) for i in range(8)]
        write_predictions(calls, folder / "calls.csv")
    return [result("one-false", 0.5), result("one-true", 0.625), {"name": "lost", "error": "no <room>"}]


def test_numbers_stand_where_the_grid_wants_them(grid: Grid, results: list[Mapping[str, Any]], tmp_path: Path) -> None:
    write_report(grid, results, tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "one-true" in rows
    assert "2 of 3 runs are done, 1 failed" in text
    assert "They took 3 minutes in all." in text
    assert "started from scratch" in text
    kappa = text[text.index("### Kappa") :]
    assert [line.split("|")[2].strip() for line in kappa.splitlines() if line.startswith("| ")][2:4] == [
        "**0.500** · 0.25",
        "0.625",
    ]
    assert "| one-true, wrist | 2 (1) | 0.625 (0.525 to 0.725) |" in text
    gains = text[text.index("## Against one-false") : text.index("## Tables")]
    assert "| one-true | +1.000\\* |" in gains  # no interval, since no resampling differs
    assert "\n\\* " in gains
    assert "lost" not in gains
    assert "no <room>" not in text.replace("no \\<room>", "")  # nothing in a result is taken for markup


def test_results_as_csv(grid: Grid, results: list[Mapping[str, Any]], tmp_path: Path) -> None:
    write_report(grid, results, tmp_path)
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as lines:
        found = {row["name"]: row for row in csv.DictReader(lines)}
    assert float(found["one-true"]["study.knn.kappa"]) == 0.625
    assert float(found["one-true"]["study.knn.kappa.low"]) == 0.525
    assert found["lost"]["error"] == "no <room>"
    assert (found["one-true"]["clahe"], found["one-false"]["clahe"]) == ("True", "False")


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br", "img", "hr"):
            self.open.append(tag)
        self.outside += [v for k, v in attributes if k in ("src", "href") and v and not v.startswith(("#", "data:"))]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_whole_in_itself(grid: Grid, results: list[Mapping[str, Any]], tmp_path: Path) -> None:
    write_report(grid, results, tmp_path)
    page = Page()
    page.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not page.open
    assert not [place for place in page.outside if not place.startswith("http://www.w3.org/")]
    assert "Two <networks>" in page.texts


def test_the_same_results_give_the_same_files(grid: Grid, results: list[Mapping[str, Any]], tmp_path: Path) -> None:
    def written() -> dict[str, bytes]:
        write_report(grid, json.loads(json.dumps(results)), tmp_path)
        return {str(f): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file() and f.suffix != ".npz"}

    assert written() == written()
    assert any(name.endswith("figure-1.svg") for name in written())


def test_before_any_run_is_done_it_says_so(grid: Grid, tmp_path: Path) -> None:
    write_report(grid, [], tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "0 of 3 runs are done" in text
    assert "not run" in text


def test_a_run_of_an_older_version_may_lack_a_figure(
    grid: Grid, results: list[Mapping[str, Any]], tmp_path: Path
) -> None:
    older = json.loads(json.dumps(results))
    for result in older:
        result.get("retrieval", {}).pop("precision_at_5", None)
    write_report(grid, older, tmp_path)
    assert "not measured" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_the_plane_is_that_of_the_largest_variance() -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(1)
    embeddings = (rng.standard_normal((50, 6)) * [5, 3, 1, 1, 0.5, 0.1]).astype(np.float32)
    labels = (embeddings[:, 0] < 0).astype(np.int64)
    plane = Plane.fit(embeddings, labels)
    points, shares = plane.project(embeddings), plane.shares
    oracle = PCA(2).fit(embeddings.astype(np.float64))
    np.testing.assert_allclose(np.abs(points), np.abs(oracle.transform(embeddings)), atol=1e-5)
    np.testing.assert_allclose(shares, oracle.explained_variance_ratio_, rtol=1e-6)
    assert points[labels == 1, 0].mean() > points[labels == 0, 0].mean()


def test_equal_embeddings_have_a_plane_too() -> None:
    plane = Plane.fit(np.ones((3, 4), np.float32), np.array([0, 1, 0]))
    assert not plane.project(np.ones((3, 4), np.float32)).any()
    assert list(plane.shares) == [0.0, 0.0]


def test_metrics_are_drawn_with_gaps() -> None:
    losses = {"epoch": 1.0, "triplet": 0.5}, {"epoch": 2.0, "valid_auroc": float("nan")}, {"epoch": 3.0, "triplet": 0.4}
    text = metrics_drawing(losses)
    assert "triplet" in text
    assert "AUROC, classifier" not in text
    assert 'class="line' not in text.partition("</style>")[2].replace('<path class="line', "")  # no epoch follows one
    assert 'class="line classifier" points=' in metrics_drawing([{"triplet": 0.5}, {"triplet": 0.4}])
    assert ElementTree.fromstring(text).tag.endswith("svg")
