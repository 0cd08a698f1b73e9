"""The figures of a run by epoch, drawn: losses on the left, held-out figures on the right."""

import math
from collections.abc import Mapping, Sequence

from retrieval.reports.svg_chart import Axis, Chart, drawing

__all__ = ["metrics_drawing"]

# Each figure with its words and its kind of line.
_LOSSES = (
    ("triplet", "triplet", "classifier"),
    ("classification", "classification", "vote"),
    ("regions", "regions", "mean"),
    ("valid_loss", "embedding, held out", "abnormal"),
)
_HELD_OUT = (
    ("valid_auroc", "AUROC, classifier", "classifier"),
    ("valid_vote_auroc", "AUROC, vote", "vote"),
    ("valid_suspicion_auroc", "AUROC, suspicion", "mean"),
    ("valid_kappa", "kappa by study", "abnormal"),
)


def metrics_drawing(rows: Sequence[Mapping[str, float]]) -> str:
    """An SVG file of the figures of each epoch. A figure that a row lacks, or that is NaN, leaves a gap."""
    epochs = [row.get("epoch", float(number)) for number, row in enumerate(rows, 1)]
    panels = []
    for title, figures in (("Losses", _LOSSES), ("Held-out patients", _HELD_OUT)):
        curves = {name: [row.get(name, math.nan) for row in rows] for name, _, _ in figures}
        values = [value for curve in curves.values() for value in curve if math.isfinite(value)]
        low, high = min([0.0, *values]), max([*values, 0.0]) or 1.0
        chart = Chart(f"{title} by epoch", Axis("epoch", 0.5, max([*epochs, 1.0]) + 0.5), Axis("", low, high * 1.05))
        for name, words, kind in figures:
            points = list(zip(epochs, curves[name], strict=True))
            if not any(math.isfinite(value) for _, value in points):
                continue
            for run in _unbroken(points):
                chart.line(run, kind)
            chart.marks([point for point in points if math.isfinite(point[1])], kind)
            chart.key(words, kind, "both")
        panels.append((title, chart))
    return drawing(panels)


def _unbroken(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The stretches of points that follow each other without a gap."""
    stretches: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if math.isfinite(point[1]):
            stretches[-1].append(point)
        elif stretches[-1]:
            stretches.append([])
    return [stretch for stretch in stretches if len(stretch) > 1]
