"""The pages and parts of pages that a browser asks for, and the login."""

import asyncio
from collections.abc import Callable, Mapping

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from retrieval.answer import Answer
from retrieval.reports.page import STYLE, Html
from retrieval.searcher import Searcher
from web.errors import Refused
from web.markup import front_page, login_page, top
from web.results import Shown, answer_part, comparison_part
from web.routes.api import service_of
from web.routes.query_form import asked, read_upload
from web.security.session import COOKIE, LIFETIME, Sessions
from web.service.question import Asked
from web.service.study_store import Study
from web.settings import Settings

__all__ = ["Report", "head_of", "pages"]

Report = Callable[[Searcher, Study, Answer], str]
"""Makes the HTML report of an answer; given to `web.app.create_app`."""

pages = APIRouter(include_in_schema=False)
_WRONG = 0.3  # seconds that a wrong token costs


@pages.get("/")
async def front(request: Request) -> HTMLResponse:
    return await _page(request, "")


@pages.post("/search")
async def search(request: Request) -> Response:
    service = service_of(request)
    with service.gate.enter() as share:
        upload = await read_upload(request, service.limits.views, share)
        answer, name = await service.ask(upload, share)
    if name and not _is_part(request):  # going back to it then sends nothing again
        return RedirectResponse(f"/studies/{name}", 303)
    return await _answered(request, answer, name, upload.asked)


@pages.get("/studies/{study}")
async def again(study: str, request: Request) -> Response:
    question = asked(request.query_params.multi_items())
    return await _answered(request, await service_of(request).again(study, question), study, question)


@pages.get("/studies/{study}/compare")
async def compare(study: str, request: Request) -> Response:
    service = service_of(request)
    fields = request.query_params.multi_items()
    question = asked([(name, value) for name, value in fields if name != "case"])
    case = await service.case(request.query_params.get("case", ""))
    number, similarity = await service.nearest_view(study, case.case)
    part = comparison_part(case, similarity, number, Shown(study, question), full=service.files)
    return HTMLResponse(part) if _is_part(request) else await _page(request, part)


@pages.get("/studies/{study}/report")
async def report(study: str, request: Request) -> Response:
    make: Report | None = request.app.state.report
    if make is None:
        raise Refused(404, "this server makes no reports")
    question = asked(request.query_params.multi_items())
    text = await service_of(request).report(study, question, make)
    return HTMLResponse(text, headers={"content-disposition": 'attachment; filename="report.html"'})


@pages.get("/login")
async def login_form(request: Request) -> Response:
    return HTMLResponse(login_page()) if _sessions(request).needed else RedirectResponse("/", 303)


@pages.post("/login")
async def login(request: Request) -> Response:
    try:
        async with request.form(max_files=0, max_fields=1, max_part_size=4096) as form:
            token = form.get("token")
    except (UnicodeError, LookupError):  # a form in letters that do not exist
        token = None
    sessions = _sessions(request)
    if not isinstance(token, str) or not sessions.is_token(token.strip()):
        await asyncio.sleep(_WRONG)
        return HTMLResponse(login_page("That is not the token of this server."), 401)
    reply = RedirectResponse("/", 303)
    settings: Settings = request.app.state.settings
    reply.set_cookie(COOKIE, sessions.begin(), max_age=LIFETIME, secure=settings.tls, httponly=True, samesite="strict")
    return reply


@pages.post("/logout")
async def logout(request: Request) -> Response:
    reply = RedirectResponse("/login", 303)
    reply.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return reply


@pages.get("/static/base.css")
async def base_style() -> Response:
    return Response(STYLE, media_type="text/css", headers={"cache-control": "no-cache"})


async def _answered(request: Request, answer: Answer, name: str, question: Asked) -> HTMLResponse:
    about = await service_of(request).about()
    shown = Shown(name, question, _names(about["parts"]), _names(about["views"]), request.app.state.report is not None)
    part = answer_part(answer, shown)
    return HTMLResponse(part) if _is_part(request) else await _page(request, part)


async def _page(request: Request, answer: str) -> HTMLResponse:
    limits = service_of(request).limits
    head = await head_of(request)
    return HTMLResponse(front_page(head, views=limits.views, megabytes=limits.body >> 20, answer=answer))


async def head_of(request: Request) -> Html:
    """What stands beside the program's name on a page."""
    about = await service_of(request).about()
    words = f"Index of {about['cases']:,} radiographs, {about['studies']:,} studies"
    if about["synthetic"]:
        words += ", synthetic"
    return top(words, login=_sessions(request).needed, worklist=request.app.state.worklist is not None)


def _names(counts: object) -> list[str]:
    return [str(name) for name in counts] if isinstance(counts, Mapping) else []


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def _is_part(request: Request) -> bool:
    """Whether the page's own script asks, which puts the part into the page that is there."""
    return "x-fragment" in request.headers
