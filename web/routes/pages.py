"""The pages, the parts of pages that scripts ask for, and the login."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from retrieval.answer import Answer
from retrieval.images.raster_headers import IMAGE_SUFFIXES
from retrieval.reports.templating import static
from retrieval.searcher import Searcher
from retrieval.wording import DRIFT_SHORT, FINDINGS, PROBABILITY, THRESHOLD, evaluation_text, verdict, vote_share
from web.errors import Refused
from web.models import ComparisonQuestion, IndexSummary, Question
from web.responses import page, tagged
from web.routes.access import may_file
from web.routes.api import service_of
from web.routes.query_form import ask, while_connected
from web.security.middleware import client_address
from web.security.session import COOKIE, LIFETIME, Sessions
from web.service.indexed import similarities_to
from web.service.study_store import Study
from web.settings import Settings

__all__ = ["Report", "head_of", "pages"]

Report = Callable[[Searcher, Study, Answer], str]
"""Makes the HTML report of an answer; given to `web.app.create_app`."""

pages = APIRouter(include_in_schema=False)
_ACCEPTED = ",".join(["image/*", *sorted(IMAGE_SUFFIXES), ".dcm"])
_COUNTS = (5, 10, 20, 50)


@pages.get("/")
async def front(request: Request) -> HTMLResponse:
    return await _front(request)


@pages.post("/search")
async def search(request: Request) -> Response:
    answer, name, question = await ask(request)
    if name and not _is_part(request):  # so that going back does not send the form again
        return RedirectResponse(f"/studies/{name}", 303)
    return await _answered(request, answer, name, question)


@pages.get("/studies/{study}")
async def again(study: str, request: Request, question: Annotated[Question, Query()]) -> Response:
    return await _answered(request, await service_of(request).again(study, question), study, question)


@pages.post("/studies/{study}/remove")
async def remove(study: str, request: Request) -> Response:
    """Take a view off a remembered study, which gets another address: the former one stays as it was."""
    async with request.form(max_files=0, max_fields=1, max_part_size=64) as form:
        view = str(form.get("view", ""))
    if not (view.isascii() and view.isdigit()):
        raise Refused(422, "view is the number of the view to remove")
    service = service_of(request)
    name = service.remove_view(study, int(view[:9]))
    if not _is_part(request):
        return RedirectResponse(f"/studies/{name}", 303)
    question = Question()
    return await _answered(request, await service.again(name, question), name, question)


@pages.get("/studies/{study}/compare")
async def compare(study: str, request: Request, question: Annotated[ComparisonQuestion, Query()]) -> Response:
    service = service_of(request)
    case = await service.case(question.case)
    cases = await service.cases_of(case.study)
    asked = service.studies.get(study)
    similarities = await service.use(similarities_to(asked, [each.case for each in cases]))
    place = [each.case for each in cases].index(case.case)
    return await _front(
        request,
        "comparison.html",
        case=case,
        place=place,
        similarities=similarities.T.tolist(),
        number=int(similarities[:, place].argmax()) + 1,
        own_views=[view.name for view in asked.views],
        name=study,
        full=service.files,
        cases=cases,
        preview=await service.preview_side(),
        report_text=getattr(case, "report", ""),
    )


@pages.get("/studies/{study}/report")
async def report(study: str, request: Request, question: Annotated[Question, Query()]) -> Response:
    make: Report | None = request.app.state.report
    if make is None:
        raise Refused(404, "this server does not make reports")
    text = await while_connected(request, service_of(request).report(study, question, make))
    return HTMLResponse(text, headers={"content-disposition": 'attachment; filename="report.html"'})


@pages.get("/login")
async def login_form(request: Request) -> Response:
    sessions = _sessions(request)
    needed = sessions.needed or sessions.files
    return page("login.html", problem="") if needed else RedirectResponse("/", 303)


@pages.post("/login")
async def login(request: Request) -> Response:
    try:
        async with request.form(max_files=0, max_fields=1, max_part_size=4096) as form:
            token = form.get("token")
    except (UnicodeError, LookupError):  # a form in an unknown encoding
        token = None
    sessions = _sessions(request)
    if not isinstance(token, str) or not await sessions.check_token(token.strip(), client_address(request.scope)):
        return page("login.html", 401, problem="That is not the token of this server.")
    reply = RedirectResponse("/", 303)
    settings: Settings = request.app.state.settings
    session = sessions.begin(filing=sessions.is_filing_token(token.strip()))
    reply.set_cookie(COOKIE, session, max_age=LIFETIME, secure=settings.tls, httponly=True, samesite="strict")
    return reply


@pages.post("/logout")
async def logout(request: Request) -> Response:
    reply = RedirectResponse("/login", 303)
    reply.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return reply


@pages.get("/openapi.json")
async def description(request: Request) -> Response:
    return _kept(request, JSONResponse(request.app.state.description))


@pages.get("/docs")
async def documentation(request: Request) -> Response:
    """The description of the API for people, without scripts."""
    return _kept(request, page("docs.html", document=request.app.state.description, **await head_of(request)))


@pages.get("/static/base.css")
async def base_style(request: Request) -> Response:
    """The style sheet that the page shares with the reports."""
    return _kept(request, Response(static("theme.css") + static("base.css"), media_type="text/css"))


def _kept(request: Request, reply: Response) -> Response:
    """A reply without anything of a patient, which a browser may keep and ask for again by its ETag."""
    reply = tagged(request, reply)
    reply.headers["cache-control"] = "no-cache"
    return reply


async def _answered(request: Request, answer: Answer, name: str, question: Question) -> HTMLResponse:
    service = service_of(request)
    index, worklist = await service.about(), request.app.state.worklist
    listed = service.studies.get(name).listed if name else ""
    return await _front(
        request, "answer.html", index, answer=answer, verdict=verdict(answer), view_rows=_view_rows(answer), name=name,
        doubts=_sentences(answer.doubts), warnings=_sentences(answer.other_warnings), question=question,
        counts=sorted({*_COUNTS, question.k}), report=request.app.state.report is not None,
        place=worklist.place(listed) if worklist and listed else None, vote_share=vote_share(answer),
        regions=await service.has_regions(),
        FINDINGS=FINDINGS, PROBABILITY=PROBABILITY, THRESHOLD=THRESHOLD, evaluated=evaluation_text(answer),
    )  # fmt: skip


def _sentences(texts: Sequence[str]) -> list[str]:
    return [text if text.endswith(("?", ".")) else f"{text}." for text in texts]


def _view_rows(answer: Answer) -> list[tuple[str, ...]]:
    return [
        (f"{number} {view.file}", f"{view.classifier:.2f}", _number(view.knn, 2), _number(view.similarity, 3))
        for number, view in enumerate(answer.views, start=1)
    ]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


async def _front(request: Request, part: str = "", index: IndexSummary | None = None, **values: object) -> HTMLResponse:
    """The front page with a part below the form; for the page's own script, the part alone."""
    index = index or await service_of(request).about()
    if part and _is_part(request):
        return page(part, index=index, filing=may_file(request), **_drift(request), **values)
    limits = service_of(request).limits
    shown = await head_of(request, index) | values
    return page("front.html", part=part, accepted=_ACCEPTED, views=limits.views, megabytes=limits.body >> 20, **shown)


async def head_of(request: Request, index: IndexSummary | None = None) -> dict[str, Any]:
    """The values of a page's head: what the index holds, and whether there are a login and a worklist."""
    return {
        "index": index or await service_of(request).about(),
        "login": _sessions(request).needed,
        "worklist_link": request.app.state.worklist is not None,
        "filing": may_file(request),
        "filing_login": _sessions(request).files and not may_file(request),
        **_drift(request),
    }


def _drift(request: Request) -> dict[str, Any]:
    """Whether the latest answers differ from the index, for a line where an answer is read."""
    return {"drift": service_of(request).scores.monitor.drift, "DRIFT_SHORT": DRIFT_SHORT}


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def _is_part(request: Request) -> bool:
    """Whether the page's own script asks, to put the part into the page."""
    return "x-fragment" in request.headers
