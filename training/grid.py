"""A grid of training runs, and the tables and figures that compare them: a TOML file.

title, description   words for the report
folds                0: the collection's own splits; k: cross-validation in k folds by patient
part                 only studies of this body part are judged and indexed; all parts train ("": all)
[recipe]             fields of `training.recipe.Recipe` that all runs share
[[run]]              a run's own fields, and its name; a list stands for one run of each value, "{field}" in the name
                     for the value
[[table]]            title, rows, and columns of {title, run, value, published}: the run whose name has the row in
                     place of "{row}", the figure of its result ("valid.kappa"), and what the report published, a
                     number a row
[[figure]]           title, and the runs whose maps of embeddings stand side by side
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from training.errors import TrainingError
from training.recipe import Recipe

__all__ = ["Column", "Figure", "Grid", "Run", "Table", "grid_named", "read_grid"]

INCLUDED = Path(__file__).parent / "grids"
VALUES = tuple(f"{side}.{figure}" for side in ("train", "valid") for figure in ("loss", "accuracy", "error", "kappa"))
_RECIPE = {field.name for field in fields(Recipe)}


@dataclass(frozen=True, slots=True)
class Run:
    name: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: for each row a run's name, and the report's published numbers, None where it has none."""

    title: str
    runs: tuple[str, ...]
    value: str
    published: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    rows: tuple[str, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    title: str
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    title: str
    description: str
    folds: int
    part: str
    runs: tuple[Run, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]


def grid_named(word: str) -> Path:
    """The file of a grid: a path, or the name of an included one. Raises TrainingError."""
    included = {file.stem: file for file in sorted(INCLUDED.glob("*.toml"))}
    file = included.get(word, Path(word))
    if not file.is_file():
        raise TrainingError(f"there is no grid {word}; give a TOML file or one of: {', '.join(included)}")
    return file


def read_grid(file: Path) -> Grid:
    """Read a grid. Raises TrainingError, naming the file and the key, where anything in it does not fit."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        known = {"title", "description", "folds", "part", "recipe", "run", "table", "figure"}
        _refuse_unknown(content, known, "the grid")
        folds = content.get("folds", 0)
        if not isinstance(folds, int) or folds < 0 or folds == 1:
            raise TrainingError(f"folds is 0 or at least 2, not {folds}")
        runs = [run for own in content["run"] for run in _expand(own, content.get("recipe", {}))]
        names = [run.name for run in runs]
        for name in names:
            if names.count(name) > 1:
                raise TrainingError(f"two runs are called {name}; put what differs in the name as {{field}}")
        return Grid(
            str(content["title"]),
            str(content.get("description", "")).strip(),
            folds,
            str(content.get("part", "")),
            tuple(runs),
            tuple(_table(own, names) for own in content.get("table", [])),
            tuple(_figure(own, names) for own in content.get("figure", [])),
        )
    except TrainingError as error:
        raise TrainingError(f"{file}: {error}") from error
    except KeyError as error:
        raise TrainingError(f"{file}: the key {error.args[0]} is missing") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise TrainingError(f"{file} is no grid ({error}); see the included ones") from error


def _expand(own: Mapping[str, Any], shared: Mapping[str, Any]) -> list[Run]:
    own = dict(own)
    pattern = own.pop("name")
    lists = {field: values for field, values in own.items() if isinstance(values, list)}
    runs = []
    for values in product(*lists.values()):
        recipe = {**shared, **own, **dict(zip(lists, values, strict=True))}
        _refuse_unknown(recipe, _RECIPE, f"run {pattern}")
        try:
            name = pattern.format(**recipe)
        except KeyError as error:
            raise TrainingError(f"run {pattern}: there is no field {error.args[0]} to put in the name") from error
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
            raise TrainingError(f"run {name}: a name has letters, digits and . _ + - only, since it names a folder")
        try:
            runs.append(Run(name, Recipe(**recipe)))
        except TrainingError as error:
            raise TrainingError(f"run {name}: {error}") from error
    return runs


def _table(own: Mapping[str, Any], names: Sequence[str]) -> Table:
    _refuse_unknown(own, {"title", "rows", "columns"}, "a table")
    title, rows = str(own["title"]), tuple(str(row) for row in own["rows"])
    columns = []
    for column in own["columns"]:
        _refuse_unknown(column, {"title", "run", "value", "published"}, title)
        runs = tuple(column["run"].replace("{row}", row) for row in rows)
        published = tuple(column.get("published", [None] * len(rows)))
        _require_runs(runs, names, title)
        if column["value"] not in VALUES:
            raise TrainingError(f"{title}: there is no value {column['value']}; use one of {', '.join(VALUES)}")
        if len(published) != len(rows):
            raise TrainingError(
                f"{title}: {column['title']} has {len(published)} published numbers for {len(rows)} rows"
            )
        columns.append(Column(str(column["title"]), runs, column["value"], published))
    return Table(title, rows, tuple(columns))


def _figure(own: Mapping[str, Any], names: Sequence[str]) -> Figure:
    _refuse_unknown(own, {"title", "runs"}, "a figure")
    _require_runs(own["runs"], names, own["title"])
    return Figure(str(own["title"]), tuple(own["runs"]))


def _require_runs(wanted: Sequence[str], names: Sequence[str], where: str) -> None:
    for name in wanted:
        if name not in names:
            raise TrainingError(f"{where}: there is no run {name}; there are {', '.join(names)}")


def _refuse_unknown(given: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise TrainingError(f"{where} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
