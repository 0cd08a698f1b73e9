"""Charts as inline SVG, written out: axes, lines, marks, bars and intervals.

Colours are classes ("classifier", "vote", "mean", "normal", "abnormal") whose colours come from the page's theme, light
or dark. Each class also has its own dash or shape. A chart has a text for readers who cannot see it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from retrieval.reports.templating import static
from retrieval.wording import printable

__all__ = ["Axis", "Chart", "drawing", "ticks"]

Point = tuple[float, float]

_SHAPES = {"classifier": "circle", "vote": "square", "mean": "diamond", "normal": "circle", "abnormal": "triangle"}


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` round numbers from low to high, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(1, most - 1)
    if not rough > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * power) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low` to `high`. `named` are marks with names; without them the marks are round numbers."""

    label: str
    low: float = 0.0
    high: float = 1.0
    named: tuple[tuple[float, str], ...] | None = None
    grid: bool = True

    @property
    def marks(self) -> Sequence[tuple[float, str]]:
        """The marked values of the axis, and the text at each."""
        if self.named is not None:
            return self.named
        values = ticks(self.low, self.high)
        decimals = max((len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in values), default=0)
        return [(value, f"{value:.{decimals}f}") for value in values]


class Chart:
    """A frame with two axes, drawn on by its methods in the units of the axes; `svg()` afterwards."""

    def __init__(self, alt: str, x: Axis, y: Axis, *, width: float = 400, height: float = 320, kind: str = "") -> None:
        self._alt, self._x, self._y, self._kind = alt, x, y, kind
        names = max((_length(name) for _, name in y.marks), default=0)
        self._left = 14 + names + (18 if y.label else 0)
        self._right, self._top, self._bottom = width - 14, 10.0, height - 44
        self._width, self._height = width, height
        self._content: list[str] = []
        self._keys: list[tuple[str, str, str]] = []

    def line(self, points: Iterable[Point], kind: str) -> None:
        """Joined points, in the order given."""
        joined = " ".join(f"{_number(x)},{_number(y)}" for x, y in map(self._at, points))
        self._content.append(f'<polyline class="line {kind}" points="{joined}"/>')

    def guide(self, start: Point, end: Point) -> None:
        """A dashed line to compare with."""
        (x, y), (to_x, to_y) = self._at(start), self._at(end)
        self._content.append(f'<path class="guide" d="M{_number(x)} {_number(y)}L{_number(to_x)} {_number(to_y)}"/>')

    def marks(self, points: Iterable[Point], kind: str, *, size: float = 4.5, faint: bool = False) -> None:
        """A mark on each point, in the shape of its kind; `size` is half its width in pixels."""
        shapes = "".join(_shape(_SHAPES[kind], *self._at(point), size) for point in points)
        if shapes:
            self._content.append(f'<path class="mark {kind}{" faint" if faint else ""}" d="{shapes}"/>')

    def bars(self, spans: Iterable[tuple[float, float, float]], kind: str) -> None:
        """Bars that stand on the x axis: (from, to, height) each."""
        for start, end, height in spans:
            (x, y), (to_x, ground) = self._at((start, self._y.low + height)), self._at((end, self._y.low))
            size = f'width="{_number(to_x - x)}" height="{_number(ground - y)}"'
            self._content.append(f'<rect class="bar {kind}" x="{_number(x)}" y="{_number(y)}" {size}/>')

    def interval(self, start: Point, end: Point, kind: str) -> None:
        """A line with ends, across or upright; what lies beyond the frame is cut off at its edge."""
        (x, y), (to_x, to_y) = (self._at(self._inside(point)) for point in (start, end))
        across = abs(to_x - x) >= abs(to_y - y)
        dx, dy = (0, 3.5) if across else (3.5, 0)
        ends = "".join(
            f"M{_number(px - dx)} {_number(py - dy)}L{_number(px + dx)} {_number(py + dy)}"
            for px, py in ((x, y), (to_x, to_y))
        )
        self._content.append(
            f'<path class="interval {kind}" d="M{_number(x)} {_number(y)}L{_number(to_x)} {_number(to_y)}{ends}"/>'
        )

    def note(self, point: Point, value: str, anchor: str = "start") -> None:
        """Words beside a point."""
        x, y = self._at(point)
        self._content.append(f'<text x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}">{_text(value)}</text>')

    def key(self, name: str, kind: str, sign: str = "line") -> None:
        """An entry of the legend. sign: "line", "mark", "both" or "guide"."""
        self._keys.append((name, kind, sign))

    @property
    def size(self) -> Point:
        """Width and height in pixels, with the legend."""
        return self._width, self._legend()[1]

    def svg(self, attributes: str = "") -> str:
        legend, height = self._legend()
        return (
            f'<svg class="chart{f" {self._kind}" if self._kind else ""}" role="img" aria-label="{_text(self._alt)}" '
            f'viewBox="0 0 {_number(self._width)} {_number(height)}"{attributes}>'
            f"{self._frame()}{''.join(self._content)}{legend}</svg>"
        )

    def _at(self, point: Point) -> Point:
        """Pixels from the upper left corner."""
        across = (point[0] - self._x.low) / (self._x.high - self._x.low)
        up = (point[1] - self._y.low) / (self._y.high - self._y.low)
        return (
            self._left + across * (self._right - self._left),
            self._bottom - up * (self._bottom - self._top),
        )

    def _inside(self, point: Point) -> Point:
        return (
            min(max(point[0], self._x.low), self._x.high),
            min(max(point[1], self._y.low), self._y.high),
        )

    def _frame(self) -> str:
        lines, words = [], []
        for value, name in self._x.marks:
            x = self._at((value, self._y.low))[0]
            if self._x.grid:
                lines.append(f"M{_number(x)} {_number(self._top)}V{_number(self._bottom)}")
            words.append(_words(x, self._bottom + 16, name, "middle"))
        for value, name in self._y.marks:
            y = self._at((self._x.low, value))[1]
            if self._y.grid:
                lines.append(f"M{_number(self._left)} {_number(y)}H{_number(self._right)}")
            words.append(_words(self._left - 6, y + 4, name, "end"))
        middle = (self._left + self._right) / 2
        if self._x.label:
            words.append(_words(middle, self._bottom + 34, self._x.label, "middle"))
        if self._y.label:
            up = (self._top + self._bottom) / 2
            turned = f'transform="rotate(-90 11 {_number(up)})"'
            words.append(_words(11, up, self._y.label, "middle", turned))
        corner = f"M{_number(self._left)} {_number(self._top)}V{_number(self._bottom)}H{_number(self._right)}"
        return f'<path class="grid" d="{"".join(lines)}"/><path class="axis" d="{corner}"/>{"".join(words)}'

    def _legend(self) -> tuple[str, float]:
        """The legend below the chart, in as many rows as it needs, and the height of all."""
        drawn, x, y = [], self._left, self._height + 6
        for name, kind, sign in self._keys:
            width = 34 + _length(name) + 14
            if x > self._left and x + width > self._width + 8:
                x, y = self._left, y + 20
            if sign == "guide":
                drawn.append(f'<path class="guide" d="M{_number(x)} {_number(y)}h26"/>')
            if sign in ("line", "both"):
                drawn.append(f'<path class="line {kind}" d="M{_number(x)} {_number(y)}h26"/>')
            if sign in ("mark", "both"):
                drawn.append(f'<path class="mark {kind}" d="{_shape(_SHAPES[kind], x + 13, y, 4.5)}"/>')
            drawn.append(_words(x + 34, y + 4, name, "start"))
            x += width
        return "".join(drawn), (y + 14 if self._keys else self._height)


def drawing(panels: Sequence[tuple[str, Chart]]) -> str:
    """Charts side by side, each with its title, as the text of an SVG file, light or dark as the reader's system is."""
    content, x, bottom = [], 0.0, 0.0
    for title, chart in panels:
        width, height = chart.size
        position = f' x="{_number(x)}" y="24" width="{_number(width)}" height="{_number(height)}"'
        content.append(f'<text x="{_number(x + 14)}" y="16" class="title">{_text(title)}</text>{chart.svg(position)}')
        x, bottom = x + width + 16, max(bottom, height + 24)
    style = f"{static('theme.css')}{static('chart.css')}svg {{ background: var(--paper); font-family: sans-serif; }}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_number(x)}" height="{_number(bottom)}" '
        f'viewBox="0 0 {_number(x)} {_number(bottom)}">\n<style>{style} .title {{ fill: var(--ink); }}</style>\n'
        f"{chr(10).join(content)}\n</svg>\n"
    )


def _text(value: str) -> str:
    return escape(printable(value))


def _words(x: float, y: float, value: str, anchor: str, more: str = "") -> str:
    position = f'x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}"'
    return f"<text {position}{' ' if more else ''}{more}>{_text(value)}</text>"


def _length(value: str) -> float:
    """The width of a label in pixels, rather too large than too small: the reader's font is unknown."""
    return sum(9.5 if letter.isupper() or letter in "mw@%" else 6.6 for letter in value)


def _shape(shape: str, x: float, y: float, size: float) -> str:
    """A path around (x, y)."""
    if shape == "circle":
        r, across = _number(size), _number(2 * size)
        return f"M{_number(x - size)} {_number(y)}a{r} {r} 0 1 0 {across} 0a{r} {r} 0 1 0 -{across} 0z"
    if shape == "square":
        side = _number(1.8 * size)
        return f"M{_number(x - 0.9 * size)} {_number(y - 0.9 * size)}h{side}v{side}h-{side}z"
    if shape == "diamond":
        r = _number(1.15 * size)
        return f"M{_number(x)} {_number(y - 1.15 * size)}l{r} {r} -{r} {r} -{r} -{r}z"
    return f"M{_number(x)} {_number(y - 1.2 * size)}l{_number(1.1 * size)} {_number(2 * size)}h{_number(-2.2 * size)}z"


def _number(value: float) -> str:
    """One digit behind the point, where it needs one."""
    return f"{round(value, 1) + 0.0:g}"  # + 0.0, since there is a negative zero
