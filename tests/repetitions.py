"""How often tests repeat what they do at random."""

import os

__all__ = ["repetitions"]


def repetitions(few: int, many: int) -> int:
    """`few` in `make test`; in `make test-all` the share of `many` that MURA_SEARCH_REPEAT names, but never fewer."""
    return max(few, round(many * float(os.environ.get("MURA_SEARCH_REPEAT", "0"))))
