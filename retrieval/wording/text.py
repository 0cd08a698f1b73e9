"""Texts of others, made fit to be shown."""

from collections.abc import Sequence

__all__ = ["listed", "printable", "reason_text"]


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


def listed(names: Sequence[str]) -> str:
    """The first five names, and whether there are more."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
