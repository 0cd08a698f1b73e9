from types import SimpleNamespace

import pytest


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that tenacity slept, on a clock that only its sleeping moves.

    The clock is tenacity's alone: a server of other tests, in another thread of this process, goes on by the real one.
    """
    pytest.importorskip("tenacity", reason="the extra milvus is not installed")
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept))
    monkeypatch.setattr("tenacity.time", clock)
    monkeypatch.setattr("tenacity.nap.time", clock)
    return slept
