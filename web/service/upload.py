"""A study that is sent with a question, and how its files are called."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from web.models import Question, shortened

__all__ = ["Upload", "shown_name", "too_many_views"]


@dataclass(frozen=True, slots=True)
class Upload:
    """(name, bytes) of each file, and the question about them."""

    files: tuple[tuple[str, bytes], ...]
    question: Question


def too_many_views(most: int) -> str:
    return f"at most {most} radiographs of one study can be sent at once"


def shown_name(given: str, number: int) -> str:
    """What a file is called in the answer: the last part of its name, on one line."""
    name = shortened(PurePosixPath(given.replace("\\", "/")).name)
    return name if name.strip(". ") else f"radiograph {number}"
