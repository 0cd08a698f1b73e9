"""Drawings as SVG: a run's metrics by epoch, and the frame of any other."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.pca import Plane
from training.document import INK, PAPER, write_text

__all__ = ["Drawing", "plot_metrics", "principal_plane"]

_LOSSES = {
    "triplet": "triplet",
    "classification": "classification",
    "regions": "regions",
    "valid_loss": "embedding, held out",
}
_HELD_OUT = {
    "valid_auroc": "AUROC, classifier",
    "valid_vote_auroc": "AUROC, vote",
    "valid_suspicion_auroc": "AUROC, suspicion",
    "valid_kappa": "kappa by study",
}
# Okabe and Ito's colours, each with a marker of its own.
_LINES = (("#0072b2", "o"), ("#d55e00", "^"), ("#009e73", "s"), ("#cc79a7", "D"))


def plot_metrics(rows: Sequence[Mapping[str, float]], file: Path) -> None:
    """Draw the figures of each epoch as one SVG: losses on the left, held-out figures on the right.

    A figure that a row does not have, or that is NaN, leaves a gap.
    """
    epochs = [row.get("epoch", number) for number, row in enumerate(rows, 1)]
    with Drawing(2, 10, 4) as drawing:
        for axes, title, names in zip(drawing.axes, ("Losses", "Held-out patients"), (_LOSSES, _HELD_OUT), strict=True):
            for (name, label), (colour, marker) in zip(names.items(), _LINES, strict=True):
                values = [row.get(name, math.nan) for row in rows]
                if not all(map(math.isnan, values)):
                    axes.plot(epochs, values, color=colour, marker=marker, markersize=4, label=label)
            axes.set(title=title, xlabel="epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            if axes.get_lines():
                axes.legend(frameon=False)
    write_text(file, drawing.svg)


def principal_plane(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], list[float]]:
    """The embeddings (N, D) on their first two principal components (N, 2), and the share of variance of each."""
    plane = Plane.fit(embeddings, labels)
    return plane.project(embeddings), list(plane.shares)


class Drawing:
    """Panels side by side, to be drawn on within `with`; `svg` afterwards. The same panels give the same bytes."""

    def __init__(self, panels: int, width: float, height: float, *, shared: bool = False) -> None:
        import matplotlib
        from matplotlib.figure import Figure as Sheet

        self._style = matplotlib.rc_context(
            {
                "svg.hashsalt": "mura-search",
                "svg.fonttype": "none",
                "font.family": "sans-serif",
                "text.color": INK,
                "axes.labelcolor": INK,
                "axes.edgecolor": INK,
                "xtick.color": INK,
                "ytick.color": INK,
                "axes.facecolor": PAPER,
                "figure.facecolor": PAPER,
                "savefig.facecolor": PAPER,
                "axes.spines.top": False,
                "axes.spines.right": False,
            }
        )
        self._style.__enter__()
        self._figure = Sheet(figsize=(width, height), layout="constrained")
        self.axes = self._figure.subplots(1, panels, squeeze=False, sharex=shared, sharey=shared)[0]
        self.svg = ""

    def __enter__(self) -> "Drawing":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                text = io.StringIO()
                about = dict.fromkeys(("Creator", "Date", "Format", "Type"))
                self._figure.savefig(text, format="svg", metadata=about)
                self.svg = text.getvalue()
        finally:
            self._style.__exit__(None, None, None)
