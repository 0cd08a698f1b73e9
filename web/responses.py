"""Refusals as the one who asked can read them: a sentence in JSON, or on a page."""

from collections.abc import Mapping

from starlette.responses import HTMLResponse, JSONResponse, Response

from retrieval.errors import RadiographError
from web.errors import Refused
from web.markup import problem_page

__all__ = ["refusal", "status_of", "wants_page"]


def wants_page(path: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser is going to a page, rather than a program or a script asking."""
    accepted = headers.get("accept", "")
    return not path.startswith("/api/") and "text/html" in accepted and "x-fragment" not in headers


def status_of(error: Exception) -> tuple[int, str, int | None]:
    """Status, sentence, and seconds to wait, of what a request can raise on purpose."""
    if isinstance(error, Refused):
        return error.status, str(error), error.retry
    if isinstance(error, RadiographError):
        return 422, str(error), None
    return 500, "something went wrong that should not have; the server's log says where", None


def refusal(error: Exception, *, page: bool) -> Response:
    """The reply for an error."""
    status, sentence, retry = status_of(error)
    headers = {"Retry-After": str(retry)} if retry is not None else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if page:
        return HTMLResponse(problem_page(sentence), status, headers)
    return JSONResponse({"error": sentence}, status, headers)
