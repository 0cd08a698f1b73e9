"""How often an exhaustive test repeats: few times by default, many times with MURA_SEARCH_TESTS=all."""

import os

__all__ = ["repetitions"]


def repetitions(few: int, many: int) -> int:
    return many if os.environ.get("MURA_SEARCH_TESTS") == "all" else few
