"""An index of eight grey squares, and rules that can be computed by hand."""

from retrieval.decision.rules import Rules

__all__ = ["RULES", "STUDIES"]

RULES = Rules(k=3, temperature=0.1, vote_threshold=0.4, slope=2.0, intercept=-1.0, familiarity_limit=0.9, source="test")

STUDIES = [
    ("patient00001", "dark", 0, [40, 44]),
    ("patient00001", "dim", 0, [80]),
    ("patient00002", "grey", 0, [120]),
    ("patient00003", "light", 1, [160, 170]),
    ("patient00004", "bright", 1, [200]),
    ("patient00005", "white", 1, [240]),
]
