"""The command line. Importing it makes sure first that nothing hides the packages that it needs."""

import importlib.util
from pathlib import Path

__all__ = ["hidden_package"]


def hidden_package() -> str | None:
    """A sentence that names the first of our packages that another file hides, and the remedy; None if all are ours."""
    root = Path(__file__).resolve().parent.parent
    for name in ("retrieval", "index", "training", "web"):
        spec = importlib.util.find_spec(name)
        if spec and spec.origin and Path(spec.origin).resolve().parent != root / name:
            return (
                f"{spec.origin} hides mura-search's package {root / name}. Rename it, start mura-search in another "
                "folder, or install mura-search into an environment of its own: pipx install mura-search"
            )
    return None


if _hidden := hidden_package():
    raise SystemExit(f"error: {_hidden}")
