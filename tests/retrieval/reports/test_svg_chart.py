"""Charts: points lie where the axes say, ticks are round, and what is written is well-formed."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.reports.svg_chart import Axis, Chart, ticks

SPAN = st.tuples(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))


@given(SPAN, st.integers(2, 12))
def test_ticks_are_few_round_and_inside(span: tuple[float, float], most: int) -> None:
    low, high = span[0], span[0] + span[1]
    found = ticks(low, high, most)
    assert len(found) <= most
    assert all(low - 1e-6 * span[1] <= value <= high + 1e-6 * span[1] for value in found)
    if len(found) > 1:
        step = found[1] - found[0]
        leading = step / 10 ** math.floor(math.log10(step) + 1e-9)
        assert min(abs(leading - round_) for round_ in (1, 2, 5, 10)) < 1e-3  # 9.99 is 1 that was rounded


def test_ticks_by_hand() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(-0.5, 0.5, 3) == [-0.5, 0, 0.5]
    assert ticks(0, 240, 4) == [0, 100, 200]
    assert ticks(3, 3) == [3]


def tree_of(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(chart.svg())


def number_pairs(text: str) -> list[tuple[float, float]]:
    values = [float(value) for value in re.findall(r"-?\d+\.?\d*", text)]
    return list(zip(values[::2], values[1::2], strict=True))


def test_a_line_runs_from_corner_to_corner() -> None:
    chart = Chart("a line", Axis("across", 10, 20), Axis("up", -1, 1), width=300, height=200)
    chart.line([(10, -1), (20, 1), (15, 0)], "vote")
    tree = tree_of(chart)
    frame = next(of for of in tree if of.get("class") == "axis").get("d", "")
    left, top, bottom, right = map(float, re.findall(r"-?\d+\.?\d*", frame))
    points = number_pairs(next(of for of in tree if of.get("class") == "line vote").get("points", ""))
    assert points[:2] == [(left, bottom), (right, top)]
    assert points[2] == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=0.1)
    assert (tree.get("role"), tree.get("aria-label")) == ("img", "a line")
    assert [of.text for of in tree if of.tag == "text"][-2:] == ["across", "up"]


@pytest.mark.parametrize("kind", ["classifier", "vote", "mean", "normal", "abnormal"])
def test_marks_are_around_their_points(kind: str) -> None:
    chart = Chart("marks", Axis("x"), Axis("y"), width=300, height=200)
    chart.marks([(0.5, 0.5)], kind, size=4)
    chart.line([(0.5, 0.5)], kind)
    tree = tree_of(chart)
    ((x, y),) = number_pairs(next(of for of in tree if of.tag == "polyline").get("points", ""))
    path = next(of for of in tree if (of.get("class") or "").startswith("mark")).get("d", "")
    assert path.endswith("z")
    at_x, at_y = map(float, re.match(r"M(\S+) ([\d.]+)", path).groups())  # type: ignore[union-attr]
    assert abs(at_x - x) <= 5
    assert abs(at_y - y) <= 5


def test_bars_stand_on_the_axis() -> None:
    chart = Chart("bars", Axis("x", 0, 10), Axis("y", 0, 4), width=300, height=200)
    chart.bars([(0, 5, 4), (5, 10, 1)], "mean")
    tall, small = ({name: float(of.get(name, "nan")) for name in ("x", "y", "width", "height")}
                   for of in tree_of(chart) if of.tag == "rect")  # fmt: skip
    assert tall["height"] == pytest.approx(4 * small["height"], abs=0.3)
    assert tall["y"] + tall["height"] == pytest.approx(small["y"] + small["height"], abs=0.1)
    assert tall["x"] + tall["width"] == pytest.approx(small["x"], abs=0.1)


def test_an_interval_is_cut_off_at_the_frame() -> None:
    chart = Chart("interval", Axis("x", 0, 1), Axis("y", 0, 1), width=300, height=200)
    chart.interval((-3, 0.5), (0.5, 0.5), "vote")
    tree = tree_of(chart)
    left = float(re.findall(r"-?\d+\.?\d*", next(of for of in tree if of.get("class") == "axis").get("d", ""))[0])
    drawn = next(of for of in tree if of.get("class") == "interval vote").get("d", "")
    assert number_pairs(drawn)[0][0] == left


def test_names_are_escaped_and_a_legend_finds_room() -> None:
    chart = Chart('<&">', Axis("<x>"), Axis("&", named=((0.5, "<b>"),)), width=220)
    chart.note((0.5, 0.5), "<script>")
    for _ in range(4):
        chart.key("a long name & more", "vote", "both")
    tree = tree_of(chart)
    texts = [of.text for of in tree if of.tag == "text"]
    assert {"<x>", "&", "<b>", "<script>", "a long name & more"} <= set(texts)
    assert tree.get("aria-label") == '<&">'
    height = float((tree.get("viewBox") or "").split()[3])
    rows = {float(of.get("y", "0")) for of in tree if of.text == "a long name & more"}
    assert len(rows) == 4
    assert max(rows) < height
