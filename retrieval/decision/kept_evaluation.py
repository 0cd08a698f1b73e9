"""The main figures of an evaluation, kept in the index that was evaluated, so that its answers can show them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.atomic import write_whole

__all__ = ["EvaluatedFigure", "KeptEvaluation"]

_FILE = ".evaluation.json"  # hidden: it is no part of the index, and a new index in its place does not count it


@dataclass(frozen=True, slots=True)
class EvaluatedFigure:
    """A figure of the classifier or the vote by study, with its 95 % interval; None where it is undefined."""

    predictor: str
    metric: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class KeptEvaluation:
    """What `evaluate --keep` found on `studies` studies of other patients, on the day `made` (ISO 8601).

    `generation` is that of the index then, and `index` and `model` say of which index and model the figures are.
    """

    studies: int
    abnormal: int
    made: str
    generation: int
    figures: tuple[EvaluatedFigure, ...]
    index: str
    model: str

    def write(self, folder: Path) -> None:
        """Keep it in an index's folder. Raises OSError."""
        figures = [[getattr(figure, name) for name in EvaluatedFigure.__slots__] for figure in self.figures]
        values = {name: getattr(self, name) for name in self.__slots__} | {"figures": figures}
        write_whole(folder / _FILE, json.dumps(values, indent=1).encode())

    @classmethod
    def read(cls, folder: Path, index: str, model: str) -> "KeptEvaluation | None":
        """What is kept of this index and model; None if nothing is, or nothing that can be read."""
        try:
            values = json.loads((folder / _FILE).read_bytes())
            figures = tuple(EvaluatedFigure(*(_plain(value) for value in figure)) for figure in values.pop("figures"))
            kept = cls(**values, figures=figures)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return kept if (kept.index, kept.model) == (index, model) else None


def _plain(value: Any) -> Any:
    if value is not None and not isinstance(value, str | int | float):
        raise TypeError("a figure has a name, a metric and numbers")
    return value
