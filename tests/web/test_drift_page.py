"""That scores differ from those of the index, where an answer is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import httpx

from retrieval.decision.reference import Distribution, Reference
from retrieval.evaluation.drift import DriftMonitor, Scored, drift_between
from retrieval.wording import DRIFT_SHORT

Serve = Callable[..., str]


def drifted() -> DriftMonitor:
    """A monitor that has seen 60 studies whose scores are far above those of the index."""
    low, high = np.linspace(0.1, 0.4, 100), np.linspace(0.6, 0.9, 60)
    reference = Reference(
        len(low), dict.fromkeys(("classifier", "knn", "similarity"), Distribution.of(low)), {"classifier": 0, "knn": 0}
    )
    monitor = DriftMonitor()
    monitor.drift = drift_between(reference, [Scored(v, v, v, (True, True)) for v in map(float, high)])
    return monitor


def pages(base: str, png: Callable[..., bytes]) -> list[str]:
    answer: Any = httpx.post(f"{base}/search", files={"files": png(200)}, data={"heatmap": "true"}, timeout=60)
    part = httpx.get(base + answer.headers["location"], headers={"X-Fragment": "1"}).text
    return [httpx.get(f"{base}/").text, part, httpx.get(f"{base}/worklist").text]


def test_it_is_said_with_a_link_to_the_figures(
    serve: Serve, png: Callable[..., bytes], square: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = square("in/a/pa.png", 220).parents[1]
    base = serve(worklist=folder)
    assert all(DRIFT_SHORT not in text for text in pages(base, png))
    assert "Nothing is concluded yet" in httpx.get(f"{base}/drift").text
    monkeypatch.setattr("web.service.score_watch.DriftMonitor", drifted)
    base = serve(worklist=folder)
    for text in pages(base, png):
        assert text.count(DRIFT_SHORT) == 1
        assert 'href="/drift"' in text
    details = httpx.get(f"{base}/drift").text
    assert "of 60 studies 100 % are called abnormal by the classifier, of the indexed ones 0 %" in details
    assert details.count("<td>yes</td>") == 3
