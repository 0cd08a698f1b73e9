"""Texts of others, made fit to be shown."""

from collections.abc import Iterable

__all__ = ["listed", "printable", "reason_text"]

_LISTED = 5


def printable(text: str) -> str:
    r"""Untrusted text with each character that is not printable replaced, so that it cannot steer a terminal or a page.

    >>> printable("a\x1b[31mb")
    'a\ufffd[31mb'
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def reason_text(error: object) -> str:
    """The first line of an error of a library, printable and at most 200 characters."""
    return printable(str(error).partition("\n")[0])[:200]


def listed(names: Iterable[str]) -> str:
    """The first five names, and how many more there are."""
    texts = list(names)
    return ", ".join(texts[:_LISTED]) + (f" and {len(texts) - _LISTED:,} more" if len(texts) > _LISTED else "")
