"""The base of everything that is open until it is closed."""

from typing import Self

__all__ = ["Closing"]


class Closing:
    """A context manager that closes itself at the end of its block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError
