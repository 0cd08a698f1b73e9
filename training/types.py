"""Types that several parts of training share."""

from collections.abc import Callable, Mapping

__all__ = ["Report"]

Report = Callable[[str, int, int, Mapping[str, float]], None]
"""Called as `report(stage, done, total, figures)` while work proceeds."""
