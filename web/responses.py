"""Pages, and refusals: a sentence in JSON, or on a page."""

from collections.abc import Mapping
from pathlib import Path

from starlette.responses import HTMLResponse, JSONResponse, Response

from retrieval.errors import RadiographError
from retrieval.reports.templating import render
from web.errors import Refused

__all__ = ["page", "refusal", "wants_page"]

_TEMPLATES = (Path(__file__).parent / "templates",)


def page(template: str, status: int = 200, /, **values: object) -> HTMLResponse:
    """A page, or part of one, from a template in `web/templates/` with its values."""
    return HTMLResponse(render(template, _TEMPLATES, **values), status)


def wants_page(path: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser goes to a page; otherwise a program or a script asks."""
    accepted = headers.get("accept", "")
    return not path.startswith("/api/") and "text/html" in accepted and "x-fragment" not in headers


def refusal(error: Exception, *, as_page: bool) -> Response:
    """The reply for an error. Only the errors that are raised on purpose show their own sentence."""
    status, sentence, retry = 500, "unexpected error; the server's log says where", None
    if isinstance(error, Refused):
        status, sentence, retry = error.status, str(error), error.retry
    elif isinstance(error, RadiographError):
        status, sentence = 422, str(error)
    reply = page("problem.html", status, sentence=sentence) if as_page else JSONResponse({"error": sentence}, status)
    if retry is not None:
        reply.headers["Retry-After"] = str(retry)
    if status == 401:
        reply.headers["WWW-Authenticate"] = "Bearer"
    return reply
