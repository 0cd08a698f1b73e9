"""What is asked about a study that was sent."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from retrieval.wording import printable

__all__ = ["MOST_SHOWN", "Asked", "Upload", "shortened", "shown_name", "too_many_views"]

MOST_SHOWN = 50  # studies in an answer


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked about a study: how many similar ones, of which, and whose it is."""

    k: int = 5
    patient: str | None = None
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    heatmap: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    """(name, bytes) of each file, and what is asked about them."""

    files: tuple[tuple[str, bytes], ...]
    asked: Asked


def too_many_views(most: int) -> str:
    return f"at most {most} radiographs of one study can be sent at once"


def shown_name(given: str, number: int) -> str:
    """What a file is called in the answer: the last part of its name on the other machine, on one line."""
    last = PurePosixPath(given.replace("\\", "/")).name
    shown = shortened(last)
    return shown if shown.strip(". ") else f"radiograph {number}"


def shortened(text: str) -> str:
    """At most 100 printable characters of a text."""
    return printable(text if len(text) <= 100 else text[:97] + "...")
