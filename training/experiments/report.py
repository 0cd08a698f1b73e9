"""The results of a grid of runs: one report as Markdown, CSV and HTML, from the same blocks.

OUT/
  report.md  results.csv  report.html (complete in itself)
  figures/       the drawings of report.md
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.atomic import write_whole
from retrieval.evaluation.metrics import Estimate
from retrieval.evaluation.paired_comparison import COMPARED, Prediction, compare, read_predictions
from retrieval.evaluation.pca import Plane
from retrieval.reports.svg_chart import Axis, Chart, drawing
from retrieval.wording import estimate_text, footnotes
from training.experiments.blocks import Block, Cell, Heading, Panels, Sheet, Text, as_html, as_markdown
from training.experiments.grid import Column, Figure, Grid, Table

__all__ = ["write_report"]

Result = Mapping[str, Any]
_OVERVIEW = (
    ("kappa, classifier", "study.classifier.kappa"),
    ("kappa, vote", "study.knn.kappa"),
    ("AUROC, classifier", "study.classifier.auroc"),
    ("AUROC, vote", "study.knn.auroc"),
    ("precision at 5", "retrieval.precision_at_5"),
)
_COUNTS = ("studies", "abnormal_studies", "images", "abnormal_images", "patients")


def write_report(grid: Grid, results: Sequence[Result], out: Path) -> None:
    """Write OUT/report.md, results.csv, report.html and figures/, from the results so far.

    `results` are what `run_experiment` gives: a run may be missing, or have failed ({"name", "error"}). Embeddings are
    read from OUT/runs/NAME/embeddings.npz, and predictions of studies from calls.csv there. The same results give the
    same files, byte for byte.
    """
    by_name = {result["name"]: result for result in results}
    blocks = [
        *_head(grid, by_name),
        *_overview(grid, by_name),
        *_parts(grid, by_name),
        *_gains(grid, by_name, out),
        *_tables(grid, by_name),
        *_figures(grid, by_name, out),
        *_settings(grid),
    ]
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for block in blocks:
        if isinstance(block, Panels):
            write_whole(out / block.file, drawing(block.panels).encode())
    write_whole(out / "results.csv", _csv(grid, by_name).encode())
    write_whole(out / "report.md", as_markdown(grid.title, blocks).encode())
    write_whole(out / "report.html", as_html(grid.title, blocks).encode())


def _head(grid: Grid, results: Mapping[str, Result]) -> Iterator[Block]:
    if grid.description:
        yield Text(grid.description)
    done = [results[run.name] for run in grid.runs if "seconds" in results.get(run.name, {})]
    failed = [run.name for run in grid.runs if "error" in results.get(run.name, {})]
    state = f"{len(done)} of {len(grid.runs)} runs are done" + (f", {len(failed)} failed" if failed else "")
    minutes = sum(result["seconds"] for result in done) / 60
    yield Text(f"{state}. {_initial_weights(grid)}" + (f" They took {minutes:.0f} minutes in all." if done else ""))
    if done:
        first = done[0]
        studies, abnormal_studies, images, abnormal_images, patients = (first[name] for name in _COUNTS)
        part = f" of {grid.part}" if grid.part else ""
        protocol = f"{grid.folds}-fold cross-validation by patient" if grid.folds else "the collection's own split"
        versions = ", ".join(f"{package} {number}" for package, number in first["versions"].items())
        yield Text(
            f"Evaluated{part}: {studies} studies ({abnormal_studies} abnormal) with {images} radiographs "
            f"({abnormal_images} abnormal) of {patients} patients, none of whom the model was trained on: {protocol}. "
            f"Fingerprint of the data: {first['data_sha256']}. Made with {versions}."
        )
    for name in failed:
        yield Text(f"{name} failed: {results[name]['error']}")


def _initial_weights(grid: Grid) -> str:
    """What the networks began from, in one sentence."""
    words = {"": "from scratch (random weights)", "imagenet": "pretrained, from ImageNet weights"}
    began = {
        run.name: words.get(run.recipe.weights, f"pretrained, from the weights {Path(run.recipe.weights).name}")
        for run in grid.runs
    }
    groups = [(text, list(names)) for text, names in groupby(sorted(began, key=lambda n: began[n]), lambda n: began[n])]
    if len(groups) == 1:
        return f"All networks started {groups[0][0]}."
    return " ".join(f"Started {text}: {', '.join(names)}." for text, names in groups)


def _overview(grid: Grid, results: Mapping[str, Result]) -> Iterator[Block]:
    yield Heading("All runs")
    yield Text("By study, the mean over its radiographs; in brackets 95 % intervals from resampled patients.")
    rows = []
    for run in grid.runs:
        result = results.get(run.name, {})
        minutes = f"{result['seconds'] / 60:.1f}" if "seconds" in result else ""
        rows.append([run.name, *(_shown(results, run.name, value) for _, value in _OVERVIEW), minutes])
    yield Sheet("All runs, by study", ["Run", *(title for title, _ in _OVERVIEW), "minutes"], rows)
    yield from map(Text, footnotes(estimate for result in results.values() for estimate in _estimates(result)))


def _estimates(figures: Mapping[str, Any]) -> Iterator[Estimate]:
    """The estimates within a result."""
    if "value" in figures:
        yield Estimate(**figures)
        return
    for inner in figures.values():
        if isinstance(inner, Mapping):
            yield from _estimates(inner)


def _parts(grid: Grid, results: Mapping[str, Result]) -> Iterator[Block]:
    rows = [
        [
            f"{run.name}, {part}",
            f"{figures['studies']} ({figures['abnormal']})",
            *(_estimate(figures[reader][metric]) for metric in COMPARED for reader in ("classifier", "knn")),
        ]
        for run in grid.runs
        for part, figures in results.get(run.name, {}).get("parts", {}).items()
        if len(results[run.name]["parts"]) > 1
    ]
    if rows:
        yield Heading("By body part")
        columns = [f"{metric}, {reader}" for metric in ("kappa", "AUROC") for reader in ("classifier", "vote")]
        yield Sheet("Runs by body part", ["Run and part", "studies (abnormal)", *columns], rows)


def _gains(grid: Grid, results: Mapping[str, Result], out: Path) -> Iterator[Block]:
    def predictions(name: str) -> list[Prediction]:
        return read_predictions(out / "runs" / name / "calls.csv")

    if "seconds" not in results.get(grid.baseline, {}):
        return
    yield Heading(f"Against {grid.baseline}")
    yield Text("The gain of each run by study, paired: both are evaluated on the same resampled patients.")
    rows, columns = [], [f"{kind} {metric}" for kind in ("classifier", "vote") for metric in COMPARED]
    shown: list[Estimate] = []
    for run in grid.runs:
        if run.name != grid.baseline and "seconds" in results.get(run.name, {}):
            gains = compare(predictions(run.name), predictions(grid.baseline))
            shown += [gains[column] for column in columns]
            rows.append([run.name, *(estimate_text(gains[column], sign=True) for column in columns)])
    yield Sheet(f"Gains on {grid.baseline}", ["Run", *columns], rows)
    yield from map(Text, footnotes(shown))


def _tables(grid: Grid, results: Mapping[str, Result]) -> Iterator[Block]:
    if not grid.tables:
        return
    yield Heading("Tables")
    over = f", each the mean over {grid.folds} folds" if grid.folds else ""
    yield Text(
        "Losses are those of the embedding; accuracy, error and kappa are the classifier's by radiograph, unless a "
        f"title says otherwise{over}. Train: every radiograph of the index; valid: those of the evaluation."
    )
    if any(column.published for table in grid.tables for column in table.columns):
        source = f" ({grid.source})" if grid.source else ""
        yield Text(
            f"In bold: measured here. After the dot: published{source}. They come from different data, so compare "
            "the pattern within a table rather than a number with its neighbour."
        )
    for table in grid.tables:
        yield Heading(table.title, 3)
        yield _sheet(table, results)


def _sheet(table: Table, results: Mapping[str, Result]) -> Sheet:
    def cell(column: Column, number: int) -> Cell:
        published = column.published_in(number)
        measured = _shown(results, column.run_in(table.rows[number]), column.value)
        return measured if published is None else (measured, f"{published:g}")

    rows = [[row, *(cell(column, n) for column in table.columns)] for n, row in enumerate(table.rows)]
    return Sheet(table.title, [table.corner, *(column.title for column in table.columns)], rows)


def _shown(results: Mapping[str, Result], name: str, value: str) -> str:
    """A figure of a run, with its interval where it has one; or why there is none."""
    result: Any = results.get(name)
    if result is None:
        return "not run"
    if "error" in result:
        return "failed"
    for key in value.split("."):
        if key not in result:
            return "not measured"  # by the version that ran it
        result = result[key]
    return _estimate(result if isinstance(result, Mapping) else {"value": result}, 4 if value.endswith(".loss") else 3)


def _estimate(figures: Mapping[str, Any], digits: int = 3) -> str:
    return estimate_text(Estimate(**figures), digits)


def _figures(grid: Grid, results: Mapping[str, Result], out: Path) -> Iterator[Block]:
    if not grid.figures:
        return
    yield Heading("Figures")
    yield Text(
        "Every point is a radiograph of the evaluation (of the first fold, where there are several): its embedding on "
        "the two directions along which the embeddings of the run differ most (principal components). Scales are "
        "equal; each axis points to where the abnormal ones lie on average."
    )
    for number, figure in enumerate(grid.figures, 1):
        yield Heading(figure.title, 3)
        yield _maps(figure, results, out, number)


def _maps(figure: Figure, results: Mapping[str, Result], out: Path, number: int) -> Panels:
    planes: dict[str, tuple[NDArray[np.float64], Sequence[float], NDArray[np.int64]]] = {}
    for name in figure.runs:
        file = out / "runs" / name / "embeddings.npz"
        if "seconds" in results.get(name, {}) and file.exists():
            with np.load(file) as arrays:
                plane = Plane.fit(arrays["embeddings"], arrays["labels"])
                planes[name] = plane.project(arrays["embeddings"]), plane.shares, arrays["labels"]
    low, high = _frame([points for points, _, _ in planes.values()])
    height = 330 * float((high - low)[1] / (high - low)[0]) + 54  # of a panel about 330 wide, on equal scales
    panels, states, most = [], [], max((len(labels) for _, _, labels in planes.values()), default=0)
    for name in figure.runs:
        points, shares, labels = planes.get(name, (np.empty((0, 2)), (0.0, 0.0), np.empty(0, np.int64)))
        axes = [
            Axis(f"component {n + 1} ({share:.0%})", float(low[n]), float(high[n]), grid=False)
            for n, share in enumerate(shares)
        ]
        chart = Chart(f"Map of the embeddings of {name}", *axes, height=height)
        if name in planes:
            for label, kind in enumerate(("normal", "abnormal")):
                chart.marks([(float(x), float(y)) for x, y in points[labels == label]], kind, size=3.5, faint=True)
                chart.key(kind, kind, "mark")
            states.append(f"{name}: {sum(shares):.0%} of the variance ({shares[0]:.0%} and {shares[1]:.0%})")
        else:
            state = "failed" if "error" in results.get(name, {}) else "not run"
            chart.note((float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2), state, "middle")
            states.append(f"{name}: {state}")
        panels.append((name, chart))
    caption = f"Explained by the two components in {'; '.join(states)}."
    alt = f"Maps of {most} radiographs' embeddings side by side, normal as blue dots and abnormal as orange triangles"
    return Panels(f"figures/figure-{number}.svg", panels, alt, caption)


def _frame(planes: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower left and upper right corner of a frame around all points (N, 2), at least half as high as it is wide."""
    points = np.concatenate([*planes, np.zeros((1, 2))])
    low, high = points.min(0), points.max(0)
    middle, wide = (low + high) / 2, float(max(1e-6, *(high - low)))
    span = 1.1 * np.array([wide, np.clip((high - low)[1], wide / 2, wide)])
    return middle - span / 2, middle + span / 2


def _settings(grid: Grid) -> Iterator[Block]:
    yield Heading("Settings")
    recipes, varying = [run.recipe.to_dict() for run in grid.runs], _varying(grid)
    if varying:
        rows = [[run.name, *(_word(run.recipe.to_dict()[key]) for key in varying)] for run in grid.runs]
        yield Sheet("What varies", ["Run", *varying], rows)
    same = ", ".join(f"{key} {_word(value)}" for key, value in recipes[0].items() if key not in varying)
    yield Text(f"The same in all runs: {same}.")


def _varying(grid: Grid) -> list[str]:
    recipes = [run.recipe.to_dict() for run in grid.runs]
    return [key for key in recipes[0] if any(recipe[key] != recipes[0][key] for recipe in recipes)]


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value) or "none"


def _csv(grid: Grid, results: Mapping[str, Result]) -> str:
    """One line a run: its name, what varies, its error, and all of its figures by their path."""
    varying = _varying(grid)
    lines = []
    for run in grid.runs:
        result = results.get(run.name, {"error": "not run"})
        recipe = run.recipe.to_dict()
        line = {"name": run.name, **{key: recipe[key] for key in varying}, "error": result.get("error", "")}
        about = ("schema", "name", "recipe", "versions", "error")
        lines.append(line | dict(_flat({key: value for key, value in result.items() if key not in about})))
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(column for line in lines for column in line), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves by their path; an estimate's value has the path of the estimate."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}".removesuffix(".value"), value
