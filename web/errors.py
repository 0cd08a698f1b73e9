"""What can go wrong on the way of a request; continues the tree of `index.errors`.

MuraSearchError
├── ServerError            a server that cannot be started, or not safely
└── Refused                a request that is refused, with its status
"""

from index.errors import MuraSearchError

__all__ = ["CLIENT_GONE", "PROBLEMS", "SEVERAL_STUDIES", "Refused", "ServerError"]

CLIENT_GONE = 499
"""The status, in log and metrics, of a request whose client has closed the connection."""

SEVERAL_STUDIES = "several-studies"
"""The kind of problem of radiographs that are known to be of several patients or studies."""

PROBLEMS = {
    400: ("damaged-form", "Damaged form"),
    401: ("no-token", "Missing or wrong token"),
    403: ("foreign-site", "Request from another site's page"),
    404: ("not-found", "Not found"),
    405: ("wrong-method", "Method not allowed"),
    408: ("too-slow", "Sent too slowly"),
    409: ("refused-change", "Refused change"),
    413: ("too-large", "Too large"),
    415: ("no-form", "Not a multipart form"),
    421: ("unknown-host", "Unknown host name"),
    422: ("not-answerable", "Invalid question or unreadable radiograph"),
    429: ("too-many-tokens", "Too many wrong tokens"),
    CLIENT_GONE: ("client-gone", "Connection closed by the client"),
    500: ("unexpected", "Unexpected error"),
    503: ("unavailable", "Busy or unavailable; see Retry-After"),
}
"""The kind and the title of the problem of each status (RFC 9457)."""


class ServerError(MuraSearchError):
    pass


class Refused(MuraSearchError):
    """`status` is the HTTP status, `retry` the seconds after which to try again, if that helps.

    `kind` names the problem where the status alone does not; see PROBLEMS.
    """

    def __init__(self, status: int, sentence: str, *, retry: int | None = None, kind: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.retry = retry
        self.kind = kind
