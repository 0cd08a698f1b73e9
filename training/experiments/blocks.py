"""The parts of a report: headings, paragraphs, tables and charts, as HTML and as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from retrieval.reports.svg_chart import Chart
from retrieval.reports.templating import render

__all__ = ["Block", "Cell", "Heading", "Panels", "Sheet", "Text", "as_html", "as_markdown"]

_TEMPLATES = (Path(__file__).parent / "templates",)
Cell = str | tuple[str, str]  # a measured figure, or that and the published one


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; one of level 2 begins a section, and `name` is where links to it point."""

    kind: ClassVar[str] = "heading"
    text: str
    level: int = 2

    @property
    def name(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.text.lower()).strip("-") if self.level == 2 else ""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table; the first cell of a row names it."""

    kind: ClassVar[str] = "sheet"
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Panels:
    """Charts side by side, each with its title; `file` is the path of their drawing, relative to the report."""

    kind: ClassVar[str] = "chart"
    file: str
    panels: Sequence[tuple[str, Chart]]
    alt: str
    caption: str


Block = Heading | Text | Sheet | Panels


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """A page that is complete in itself."""
    sections = [(block.name, block.text) for block in blocks if isinstance(block, Heading) and block.level == 2]
    return render("experiment.html", _TEMPLATES, title=title, sections=sections, script="", blocks=blocks)


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same as Markdown, with the drawings as files."""
    pieces = [f"# {_plain(title)}"]
    for block in blocks:
        match block:
            case Heading(text, level):
                pieces.append(f"{'#' * level} {_plain(text)}")
            case Text(text):
                pieces.append(_plain(text))
            case Panels(file, _, alt, caption):
                pieces += [f"![{_plain(alt)}]({file})", _plain(caption)]
            case Sheet(_, headings, rows):
                lines = [[*map(_plain, headings)], ["---", *["---:"] * (len(headings) - 1)]]
                lines += [[_markdown_cell(cell) for cell in row] for row in rows]
                pieces.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(pieces) + "\n"


def _markdown_cell(cell: Cell) -> str:
    return _plain(cell) if isinstance(cell, str) else "**{}** · {}".format(*map(_plain, cell))


def _plain(text: str) -> str:
    """Text in which nothing means anything to Markdown, on one line."""
    return re.sub(r"([\\`*<\[\]|~])", r"\\\1", " ".join(text.split()))
