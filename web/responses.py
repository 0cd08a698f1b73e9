"""Pages, and refusals: a problem in JSON (RFC 9457), or a sentence on a page."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from retrieval.errors import RadiographError
from retrieval.reports.templating import render
from web.errors import PROBLEMS, Refused

__all__ = ["NOT_MODIFIED", "ProblemResponse", "page", "refusal", "tagged", "wants_page"]

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "The client has it already (If-None-Match)"}}
"""For FastAPI's `responses`, of what `tagged` gives."""

_TEMPLATES = (Path(__file__).parent / "templates",)


class ProblemResponse(JSONResponse):
    """An error as RFC 9457 describes it."""

    media_type = "application/problem+json"


def page(template: str, status: int = 200, /, **values: object) -> HTMLResponse:
    """A page, or part of one, from a template in `web/templates/` with its values."""
    return HTMLResponse(render(template, _TEMPLATES, **values), status)


def wants_page(path: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser goes to a page; otherwise a program or a script asks."""
    accepted = headers.get("accept", "")
    return not path.startswith("/api/") and "text/html" in accepted and "x-fragment" not in headers


def refusal(error: Exception, *, as_page: bool) -> Response:
    """The reply for an error. Only the errors that are raised on purpose show their own sentence."""
    status, sentence, retry, kind = 500, "unexpected error; the server's log says where", None, ""
    if isinstance(error, Refused):
        status, sentence, retry, kind = error.status, str(error), error.retry, error.kind
    elif isinstance(error, RadiographError):
        status, sentence = 422, str(error)
    if as_page:
        reply: Response = page("problem.html", status, sentence=sentence)
    else:
        reply = ProblemResponse(_problem(status, sentence, kind), status)
    if retry is not None:
        reply.headers["Retry-After"] = str(retry)
    if status == 401:
        reply.headers["WWW-Authenticate"] = "Bearer"
    return reply


def _problem(status: int, sentence: str, kind: str) -> dict[str, Any]:
    usual, title = PROBLEMS.get(status, ("refused", "Refused"))
    return {
        "type": f"urn:mura-search:problem:{kind or usual}",
        "title": title,
        "status": status,
        "detail": sentence,
        "error": sentence,
    }


def tagged(request: Request, reply: Response) -> Response:
    """The reply with an ETag of its body; 304 without a body if the client has it already (If-None-Match)."""
    tag = f'"{hashlib.sha256(bytes(reply.body)).hexdigest()[:32]}"'
    known = [name.strip().removeprefix("W/") for name in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers={"etag": tag})
    reply.headers["etag"] = tag
    return reply
