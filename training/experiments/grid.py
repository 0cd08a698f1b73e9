"""A grid of training runs, and the tables and figures that compare them: a TOML file.

title, description   words for the report
source               whose numbers the tables' published ones are
folds                0: the collection's own splits; k: cross-validation in k folds by patient
part                 only studies of this body part are evaluated and indexed; all parts train ("": all)
baseline             the run that the others are compared with in pairs, study by study ("": none)
[recipe]             fields of `training.recipe.Recipe` that all runs share
[[run]]              a run's own fields, and its name; a list stands for one run of each value, several lists for all
                     combinations; "{field}" in the name for the value
[[table]]            title, corner, rows, and columns of {title, run, value, published}: a run's name, in which "{row}"
                     stands for the row; the figure of its result (one of VALUES); and a published number for each row,
                     nan where there is none
[[figure]]           title, and the runs whose maps of embeddings stand side by side
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import product
from math import isnan
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from retrieval.evaluation.metrics import METRICS
from retrieval.evaluation.retrieval_metrics import DEPTHS
from training.errors import TrainingError
from training.recipe import Recipe, first_fault

__all__ = ["VALUES", "Column", "Figure", "Grid", "Run", "Table", "grid_named", "read_grid"]

VALUES = (
    *(f"{side}.{figure}" for side in ("train", "valid") for figure in ("loss", "accuracy", "error", "kappa")),
    *(f"{by}.{reader}.{m}" for by in ("study", "image") for reader in ("classifier", "knn", "mean") for m in METRICS),
    *(f"retrieval.precision_at_{depth}" for depth in DEPTHS),
    *(f"difference.{metric}" for metric in METRICS),
)

INCLUDED = Path(__file__).parent / "grids"
_RECIPE_FIELDS = tuple(field.name for field in fields(Recipe))
_NO_EXTRA = ConfigDict(extra="forbid")
_FOLDER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+-]*[A-Za-z0-9+-])?")
_PLURALS = {"run": "runs", "table": "tables", "figure": "figures"}  # keys of the file, fields of `Grid`


def _folder(name: str) -> str:
    if not _FOLDER.fullmatch(name):
        raise ValueError(f"use letters and digits, and . _ + - between them, not {name!r}: it names a folder")
    return name


def _figure(name: str) -> str:
    if name not in VALUES:
        raise ValueError(f"there is no figure {name}; use one of {', '.join(VALUES)}")
    return name


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_EXTRA)
class Run:
    """A training run of a grid: its name, which is that of its folder, and its recipe."""

    name: Annotated[str, AfterValidator(_folder)]
    recipe: Recipe


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_EXTRA)
class Column:
    """A column of a table: a run's name, in which "{row}" stands for the row, and a figure of its result."""

    title: str
    run: str
    value: Annotated[str, AfterValidator(_figure)]
    published: tuple[float, ...] = ()

    def run_in(self, row: str) -> str:
        """The name of the run in a row."""
        return self.run.replace("{row}", row)

    def published_in(self, number: int) -> float | None:
        """The published number in a row, where there is one."""
        return None if not self.published or isnan(self.published[number]) else self.published[number]


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_EXTRA)
class Table:
    """A table of the report: a figure of a run in each cell. `corner` stands above the names of the rows."""

    title: str
    corner: str = ""
    rows: tuple[str, ...] = Field(min_length=1)
    columns: tuple[Column, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _a_number_for_each_row(self) -> Self:
        for column in self.columns:
            if len(column.published) not in (0, len(self.rows)):
                raise ValueError(f"{column.title}: {len(column.published)} published numbers for {len(self.rows)} rows")
        return self


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_EXTRA)
class Figure:
    """A chart of the report, with a curve for each of the runs."""

    title: str
    runs: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True, config=_NO_EXTRA)
class Grid:
    """The runs of an experiment and what its report shows. `folds`: 0 for a single split, else 2 or more."""

    title: str
    description: str = ""
    source: str = ""
    folds: int = Field(default=0, ge=0, strict=True)
    part: str = ""
    baseline: str = ""
    runs: tuple[Run, ...] = Field(min_length=1)
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.folds == 1:
            raise ValueError("folds must be 0 or at least 2, not 1")
        names = [run.name for run in self.runs]
        for name in names:
            if sum(name.casefold() == other.casefold() for other in names) > 1:  # one folder, on some file systems
                raise ValueError(f"two runs have the name {name}; add a field that differs to it, as {{field}}")
        wanted = [("baseline", self.baseline)] if self.baseline else []
        wanted += [(figure.title, name) for figure in self.figures for name in figure.runs]
        columns = [(table, column) for table in self.tables for column in table.columns]
        wanted += [
            (f"{table.title}, {column.title}", column.run_in(row)) for table, column in columns for row in table.rows
        ]
        for where, name in wanted:
            if name not in names:
                raise ValueError(f"{where}: there is no run {name}; the runs are {', '.join(names)}")
        return self


def grid_named(word: str) -> Path:
    """The file of a grid: a path, or the name of an included one. Raises TrainingError."""
    included = {file.stem: file for file in sorted(INCLUDED.glob("*.toml"))}
    file = included.get(word, Path(word))
    if not file.is_file():
        raise TrainingError(f"there is no grid {word}; give a TOML file or one of: {', '.join(included)}")
    return file


def read_grid(file: Path) -> Grid:
    """Read a grid. Raises TrainingError, which names the file and the field, where it is not valid."""
    try:
        return _grid(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise TrainingError(f"cannot read the grid {file}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{file} is not a TOML file: {error}") from error
    except ValidationError as error:
        raise TrainingError(f"{file}: {first_fault(error)}") from error
    except TrainingError as error:
        raise TrainingError(f"{file}: {error}") from error


def _grid(content: dict[str, Any]) -> Grid:
    shared = content.pop("recipe", {})
    if unknown := set(_PLURALS.values()) & set(content):
        raise TrainingError(f"{unknown.pop()} is unknown; use [[run]], [[table]] and [[figure]]")
    entries = content.get("run", [])
    if not isinstance(shared, dict) or not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise TrainingError("[recipe] must be a table, and each [[run]] too")
    content["run"] = [run for entry in entries for run in _runs(entry, shared)]
    return Grid(**{_PLURALS.get(key, key): value for key, value in content.items()})


def _runs(entry: Mapping[str, Any], shared: Mapping[str, Any]) -> Iterator[Run]:
    """The runs that an entry stands for: one of each combination of the values in its lists."""
    options = {
        field: value if isinstance(value, list) else [value] for field, value in entry.items() if field != "name"
    }
    pattern = str(entry.get("name", ""))
    named = re.findall(r"\{(.*?)\}", pattern)
    if unknown := [field for field in named if field not in _RECIPE_FIELDS]:
        raise TrainingError(f"run {pattern}: a recipe has no field {unknown[0]}; it has {', '.join(_RECIPE_FIELDS)}")
    if [] in options.values():
        raise TrainingError(f"run {pattern}: an empty list stands for no run; give a value")
    for values in product(*options.values()):
        recipe = Recipe.from_dict({**shared, **dict(zip(options, values, strict=True))}, f"run {pattern}")
        name = pattern
        for field in named:
            value = getattr(recipe, field)
            name = name.replace(f"{{{field}}}", str(value).lower() if isinstance(value, bool) else str(value))
        yield Run(name=name, recipe=recipe)
