"""The one folder for what can be made again: prepared radiographs of a training, encoded ones of a deep audit."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The folder that MURA_SEARCH_CACHE names, else mura-search in the user's cache."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("MURA_SEARCH_CACHE") or user_cache_path("mura-search"))
