"""A grid of training runs, and the tables and figures that compare them: a TOML file.

title, description   words for the report
source               whose numbers the tables' published ones are
folds                0: the collection's own splits; k: cross-validation in k folds by patient
part                 only studies of this body part are judged and indexed; all parts train ("": all)
baseline             the run that the others are compared with in pairs, study by study ("": none)
[recipe]             fields of `training.recipe.Recipe` that all runs share
[[run]]              a run's own fields, and its name; a list stands for one run of each value, several lists for all
                     combinations; "{field}" in the name for the value
[[table]]            title, corner, rows, and columns of {title, run, value, published}: the run whose name has the row
                     in place of "{row}", the figure of its result (one of VALUES), and what was published, a number a
                     row, nan where there is none
[[figure]]           title, and the runs whose maps of embeddings stand side by side
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from math import isnan, nan
from pathlib import Path
from typing import Any

from retrieval.evaluation.metrics import METRICS
from retrieval.evaluation.retrieval_metrics import DEPTHS
from training.errors import TrainingError
from training.recipe import Recipe, typed

__all__ = ["VALUES", "Column", "Figure", "Grid", "Run", "Table", "grid_named", "read_grid"]

VALUES = (
    *(f"{side}.{figure}" for side in ("train", "valid") for figure in ("loss", "accuracy", "error", "kappa")),
    *(f"{of}.{reader}.{m}" for of in ("study", "image") for reader in ("classifier", "knn", "mean") for m in METRICS),
    *(f"retrieval.precision_at_{depth}" for depth in DEPTHS),
    *(f"difference.{metric}" for metric in METRICS),
)

INCLUDED = Path(__file__).parent / "grids"
_FIELDS: Mapping[str, Any] = {field.name: field.type for field in fields(Recipe)}
_FOLDER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+-]*[A-Za-z0-9+-])?")
_REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Run:
    name: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: for each row a run's name and the published number, None where there is none."""

    title: str
    runs: tuple[str, ...]
    value: str
    published: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    corner: str
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
    source: str
    folds: int
    part: str
    baseline: str
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
        return _grid(_Section(tomllib.loads(file.read_text(encoding="utf-8")), "the grid"))
    except OSError as error:
        raise TrainingError(f"cannot read the grid {file}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{file} is no TOML file: {error}") from error
    except TrainingError as error:
        raise TrainingError(f"{file}: {error}") from error


class _Section:
    """A table of the file; every key is taken once, and one that is left over is unknown."""

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        self.left, self.where, self.known = dict(content), where, list[str]()

    def take(self, key: str, kind: type, default: Any = _REQUIRED, *, of: type | None = None) -> Any:
        """The value of a key, of a kind; of a list, its items' kind too. A list that is required is not empty."""
        self.known.append(key)
        value = self.left.pop(key, default)
        if value is _REQUIRED or (value == [] and default is _REQUIRED):
            raise TrainingError(f"{self.where}: {key} is missing")
        if value is default:
            return value
        value = typed(value, kind, f"{self.where}: {key}")
        return [typed(item, of, f"{self.where}: an item of {key}") for item in value] if of else value

    def sections(self, key: str, what: str, default: Any = _REQUIRED) -> Iterator["_Section"]:
        for number, content in enumerate(self.take(key, list, default, of=dict), 1):
            title = content.get("title", content.get("name", number))
            yield _Section(content, f"{self.where}, {what} {title}" if what == "column" else f"{what} {title}")

    def close(self) -> None:
        if self.left:
            raise TrainingError(f"{self.where} has no {', '.join(self.left)}; it has {', '.join(self.known)}")


def _grid(top: _Section) -> Grid:
    folds = top.take("folds", int, 0)
    if folds < 0 or folds == 1:
        raise TrainingError(f"folds is 0 or at least 2, not {folds}")
    shared = top.take("recipe", dict, {})
    runs = tuple(run for section in top.sections("run", "run") for run in _runs(section, shared))
    names = [run.name for run in runs]
    for name in names:
        if sum(name.casefold() == other.casefold() for other in names) > 1:  # one folder, on some file systems
            raise TrainingError(f"two runs are called {name}; put what differs in the name as {{field}}")
    grid = Grid(
        title=top.take("title", str),
        description=top.take("description", str, "").strip(),
        source=top.take("source", str, ""),
        folds=folds,
        part=top.take("part", str, ""),
        baseline=top.take("baseline", str, ""),
        runs=runs,
        tables=tuple(_table(section, names) for section in top.sections("table", "table", [])),
        figures=tuple(_figure(section, names) for section in top.sections("figure", "figure", [])),
    )
    top.close()
    if grid.baseline:
        _known([grid.baseline], names, "baseline")
    return grid


def _runs(section: _Section, shared: Mapping[str, Any]) -> Iterator[Run]:
    pattern = section.take("name", str)
    own = section.left
    unknown = [field for field in (*shared, *own) if field not in _FIELDS]
    if unknown:
        raise TrainingError(f"{section.where}: a recipe has no {', '.join(unknown)}; it has {', '.join(_FIELDS)}")
    lists = {field: values for field, values in own.items() if isinstance(values, list)}
    if [] in lists.values():
        raise TrainingError(f"{section.where}: an empty list stands for no run")
    for values in product(*lists.values()):
        recipe = Recipe.of({**shared, **own, **dict(zip(lists, values, strict=True))}, section.where)
        yield Run(_name(pattern, recipe), recipe)


def _name(pattern: str, recipe: Recipe) -> str:
    for field in re.findall(r"\{(.*?)\}", pattern):
        if field not in _FIELDS:
            raise TrainingError(f"run {pattern}: a recipe has no {field or 'field without a name'} to put in the name")
    name = re.sub(r"\{(.*?)\}", lambda found: _written(getattr(recipe, found[1])), pattern)
    if not _FOLDER.fullmatch(name):
        raise TrainingError(
            f"run {name}: a name has letters, digits and . _ + - between them only, since it names a folder"
        )
    return name


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(section: _Section, names: Sequence[str]) -> Table:
    title, corner = section.take("title", str), section.take("corner", str, "")
    rows = tuple(section.take("rows", list, of=str))
    columns = tuple(_column(column, rows, names) for column in section.sections("columns", "column"))
    section.close()
    return Table(title, corner, rows, columns)


def _column(section: _Section, rows: Sequence[str], names: Sequence[str]) -> Column:
    title, pattern, value = (section.take(key, str) for key in ("title", "run", "value"))
    published = section.take("published", list, [nan] * len(rows), of=float)
    section.close()
    if value not in VALUES:
        raise TrainingError(f"{section.where}: there is no value {value}; use one of {', '.join(VALUES)}")
    if len(published) != len(rows):
        raise TrainingError(f"{section.where} has {len(published)} published numbers for {len(rows)} rows")
    runs = _known([pattern.replace("{row}", row) for row in rows], names, section.where)
    return Column(title, runs, value, tuple(None if isnan(number) else number for number in published))


def _figure(section: _Section, names: Sequence[str]) -> Figure:
    title, runs = section.take("title", str), section.take("runs", list, of=str)
    section.close()
    return Figure(title, _known(runs, names, section.where))


def _known(wanted: Sequence[str], names: Sequence[str], where: str) -> tuple[str, ...]:
    for name in wanted:
        if name not in names:
            raise TrainingError(f"{where}: there is no run {name}; there are {', '.join(names)}")
    return tuple(wanted)
