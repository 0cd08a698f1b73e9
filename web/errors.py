"""What can go wrong on the way of a request; continues the tree of `index.errors`.

MuraSearchError
├── ServerError            a server that cannot be started, or not safely
└── Refused                a request that is refused, with its status
"""

from index.errors import MuraSearchError

__all__ = ["CLIENT_GONE", "Refused", "ServerError"]

CLIENT_GONE = 499
"""The status, in log and metrics, of a request whose client has closed the connection."""


class ServerError(MuraSearchError):
    pass


class Refused(MuraSearchError):
    """`status` is the HTTP status, `retry` the seconds after which to try again, if that helps."""

    def __init__(self, status: int, sentence: str, *, retry: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry = retry
