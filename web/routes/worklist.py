"""The worklist as a page: the studies of a folder in the order to read them. Each opens as an answer."""

from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from retrieval.wording import printable
from retrieval.worklist.worklist import SYNTHETIC_ORDER
from web.models import NewQuestion
from web.responses import page
from web.routes.api import service_of, worklist_of
from web.routes.pages import head_of
from web.routes.query_form import while_connected
from web.service.worklist import Worklist

__all__ = ["worklist_pages"]

worklist_pages = APIRouter(include_in_schema=False)
_SHOWN = 500  # studies on the page


@worklist_pages.get("/worklist")
async def show(request: Request) -> HTMLResponse:
    worklist, head = worklist_of(request), await head_of(request)
    ranked = [
        (rank, number, listed, worklist.read_at(number))
        for rank, (number, listed) in enumerate(worklist.ranked()[:_SHOWN], 1)
    ]
    groups = [
        ("Unlike the index: do not rely on the figures", [row for row in ranked if row[2].entry.unfamiliar]),
        ("The most probably abnormal first", [row for row in ranked if not row[2].entry.unfamiliar]),
    ]
    return page(
        "worklist.html", worklist=worklist, groups=[group for group in groups if group[1]],
        next_unread=next((number for _, number, _, read in ranked if not read), None),
        skipped=[(printable(item.study), printable(item.reason)) for item in worklist.skipped[:_SHOWN]],
        folder=worklist.folder.resolve().name, state=_state(worklist),
        remarks=_remarks(worklist, synthetic=head["index"].synthetic), **head,
    )  # fmt: skip


@worklist_pages.get("/worklist/changes")
async def changes(request: Request) -> JSONResponse:
    """How often the list has changed, so that an open page sees that it is out of date."""
    return JSONResponse({"changes": worklist_of(request).changes})


@worklist_pages.post("/worklist")
async def rank_again(request: Request) -> Response:
    worklist_of(request).start()
    return RedirectResponse("/worklist", 303)


@worklist_pages.get("/worklist/{number}")
@worklist_pages.post("/worklist/{number}")
async def open_study(number: str, request: Request) -> Response:
    """Read a study's files as they are now, remember it, go to its answer, and mark it as read."""
    worklist = worklist_of(request)
    files = worklist.get(number).files
    service = service_of(request)
    with service.admission.enter() as share:
        question = NewQuestion(one_study="true")
        _, study = await while_connected(request, service.ask_files(files, question, share))
    worklist.mark(number, read=True)
    return RedirectResponse(f"/studies/{service.remember(replace(study, listed=number))}", 303)


@worklist_pages.post("/worklist/{number}/unread")
async def mark_unread(number: str, request: Request) -> Response:
    worklist_of(request).mark(number, read=False)
    return RedirectResponse("/worklist", 303)


@worklist_pages.get("/worklist/{number}/picture")
async def picture(number: str, request: Request) -> Response:
    return Response(worklist_of(request).get(number).picture, media_type="image/jpeg")


def _state(worklist: Worklist) -> str:
    made = f"Ranked {_studies(len(worklist.ranked()))}." if worklist.made else ""
    if not worklist.running:
        return f"{made or 'Nothing was ranked yet.'} The folder is watched for studies that come or go."
    progress = f"{worklist.done:,} of {_studies(worklist.all)} are read"
    if made:
        return f"{made} It is being ranked again: {progress}. The former order is shown until then."
    return f"It is being ranked: {progress}. The order below has only those."


def _remarks(worklist: Worklist, *, synthetic: bool) -> list[str]:
    entries = [listed.entry for _, listed in worklist.ranked()]
    remarks = [f"{worklist.trouble}."] if worklist.trouble else []
    if worklist.left and not worklist.running:
        were = "was" if worklist.left == 1 else "were"
        why = f"at most {worklist.most:,} are on the list" if len(entries) >= worklist.most else "the server was busy"
        remarks.append(f"{_studies(worklist.left)} of the folder {were} not read yet: {why}.")
    if len(entries) > _SHOWN:
        remarks.append(f"Only the first {_SHOWN:,} are shown.")
    unfamiliar = sum(entry.answer.familiarity.familiar is False for entry in entries)
    if unfamiliar:
        remarks.append(f"{unfamiliar:,} {'is' if unfamiliar == 1 else 'are'} unlike the index.")
    if worklist.skipped:
        remarks.append(f"{len(worklist.skipped):,} could not be read; look at them yourself.")
    if synthetic:
        remarks.append(SYNTHETIC_ORDER)
    return remarks


def _studies(count: int) -> str:
    return f"{count:,} {'study' if count == 1 else 'studies'}"
