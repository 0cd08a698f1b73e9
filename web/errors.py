"""What can go wrong on the way of a request; continues the tree of `index.errors`.

MuraSearchError
├── ServerError            a server that cannot or must not be started as asked
└── Refused                a request that is not answered, with the status to say so
"""

from index.errors import MuraSearchError

__all__ = ["Refused", "ServerError"]


class ServerError(MuraSearchError):
    pass


class Refused(MuraSearchError):
    """`status` is the HTTP status, `retry` the seconds after which to try again, where that helps."""

    def __init__(self, status: int, sentence: str, *, retry: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry = retry
