"""Kappa under each corruption, drawn: a line for each, both readers side by side."""

from collections.abc import Sequence

from retrieval.evaluation.robustness import Condition
from retrieval.reports.svg_chart import Axis, Chart
from retrieval.wording import PREDICTORS

__all__ = ["robustness_chart"]

_LINE = 22  # pixels


def robustness_chart(conditions: Sequence[Condition]) -> Chart:
    """Kappa with its 95 % interval by corruption and strength, the studies as they are first and as dashed lines."""
    rows = len(conditions)
    named = tuple((float(rows - row), _name(condition)) for row, condition in enumerate(conditions))
    chart = Chart(
        "Cohen's kappa by study of classifier and vote under each corruption",
        Axis("kappa", -0.2, 1.0),
        Axis("", 0.0, rows + 1.0, named=named, grid=False),
        width=620,
        height=90 + _LINE * rows,
    )
    for reader, kind, offset in (("classifier", "classifier", 0.16), ("knn", "vote", -0.16)):
        chart.key(PREDICTORS[reader], kind, "mark")
        for row, condition in enumerate(conditions):
            kappa, y = condition.figures[reader]["kappa"], rows - row + offset
            if kappa.value is None:
                continue
            if not condition.corruption:
                chart.guide((kappa.value, 0.0), (kappa.value, rows + 1.0))
            if kappa.low is not None and kappa.high is not None:
                chart.interval((kappa.low, y), (kappa.high, y), kind)
            chart.marks([(max(-0.2, kappa.value), y)], kind)
    return chart


def _name(condition: Condition) -> str:
    return f"{condition.corruption} {condition.amount:g}" if condition.amount is not None else "as they are"
