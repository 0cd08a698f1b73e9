"""A page of headings, paragraphs, tables and pictures, as Markdown and as HTML from one description."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

__all__ = [
    "ABNORMAL",
    "INK",
    "NORMAL",
    "PAPER",
    "Block",
    "Cell",
    "Heading",
    "Picture",
    "Sheet",
    "Text",
    "as_html",
    "as_markdown",
    "write_text",
]

# Colours that a picture is drawn in; on an HTML page they follow its light or dark theme. Blue and vermilion of Okabe
# and Ito's palette (2008), which people with any kind of colour vision can tell apart.
INK, PAPER = "#24292f", "#ffffff"
NORMAL, ABNORMAL = "#0072b2", "#d55e00"


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Cell:
    """What was measured and, beside it, what was published, where anything was."""

    measured: str
    published: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table; the first cell of a row names it."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing: `file` relative to the page, and its SVG; `alt` says in words what it shows."""

    file: str
    svg: str
    alt: str
    caption: str


Block = Heading | Text | Sheet | Picture


def as_markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """One page that needs nothing else: no script, no network, light or dark as the reader's system is."""
    body = "\n".join(_html(block, number) for number, block in enumerate(blocks))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Text(text):
            return _plain(text)
        case Picture(file, _, alt, caption):
            return f"![{_plain(alt)}]({file})\n\n{_plain(caption)}"
        case Sheet(headings, rows):
            lines = [[_plain(text) for text in headings], ["---", *["---:"] * (len(headings) - 1)]]
            lines += [[_markdown_cell(cell) for cell in row] for row in rows]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return _plain(cell)
    return f"**{_plain(cell.measured)}** · {_plain(cell.published)}" if cell.published else _plain(cell.measured)


def _plain(text: str) -> str:
    """Text in which nothing means anything to Markdown, on one line."""
    return re.sub(r"([\\`*<\[\]|~])", r"\\\1", " ".join(text.split()))


def _html(block: Block, number: int) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Picture(_, svg, alt, caption):
            return f"<figure>{_inline(svg, alt, number)}<figcaption>{escape(caption)}</figcaption></figure>"
        case Sheet(headings, rows):
            head = "".join(f'<th scope="col">{escape(text)}</th>' for text in headings)
            body = "\n".join(f"<tr>{_html_row(row)}</tr>" for row in rows)
            return (
                f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
            )


def _html_row(row: Sequence[str | Cell]) -> str:
    first, *others = (_html_cell(cell) for cell in row)
    return f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others)


def _html_cell(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    if not cell.published:
        return escape(cell.measured)
    return f"<b>{escape(cell.measured)}</b> <i>· {escape(cell.published)}</i>"


def _inline(svg: str, alt: str, number: int) -> str:
    """A drawing as part of the page: in the page's colours, and with ids that no other drawing has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1p{number}-", svg)
    for colour, variable in ((INK, "ink"), (PAPER, "paper"), (NORMAL, "normal"), (ABNORMAL, "abnormal")):
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)


_STYLE = """
:root { color-scheme: light dark; --ink: #24292f; --paper: #ffffff; --soft: #59636e; --line: #d1d9e0; --band: #f6f8fa;
  --normal: #0072b2; --abnormal: #d55e00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --soft: #9198a1; --line: #3d444d; --band: #151b23;
    --normal: #56b4e9; --abnormal: #e69f00; } }
@media print { :root { --ink: #000000; --paper: #ffffff; --soft: #444444; --line: #bbbbbb; --band: #ffffff;
    --normal: #0072b2; --abnormal: #d55e00; }
  main { max-width: none; padding: 0; } table, figure { break-inside: avoid; } h2, h3 { break-after: avoid; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { line-height: 1.2; } h2 { margin: 2.5rem 0 0.5rem; border-bottom: 1px solid var(--line); padding-bottom: 0.25rem; }
h3 { margin: 1.75rem 0 0.5rem; font-size: 1.05rem; } p { max-width: 46rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.35rem 0.75rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
thead th { background: var(--band); vertical-align: bottom; }
th:first-child { text-align: left; } tbody th { font-weight: 500; white-space: nowrap; }
td i { font-style: normal; color: var(--soft); white-space: nowrap; }
figure { margin: 1rem 0 2rem; } figure svg { width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 0.9rem; }
"""


def write_text(file: Path, text: str) -> None:
    """Write a page or a drawing, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(file)
