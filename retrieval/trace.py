"""What went wrong and where, without the error's own words: those may hold a file's name or a header's values."""

from traceback import walk_tb

__all__ = ["trace"]


def trace(error: BaseException) -> str:
    """The kind of an error and the last six calls that led to it, innermost last: `KeyError in read:12 > parse:7`."""
    calls = [f"{frame.f_code.co_name}:{line}" for frame, line in walk_tb(error.__traceback__)]
    return f"{type(error).__name__} in {' > '.join(calls[-6:])}"
