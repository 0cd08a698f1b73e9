"""The worklist as a page: the studies of a folder in the order to read them, each to be opened as an answer."""

from html import escape
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from retrieval.answer import Answer
from retrieval.reports.page import Html, join, label_mark, paragraph, safe, table, warnings
from retrieval.reports.stack import named
from retrieval.reports.worklist_report import marks, probability
from retrieval.worklist.worklist import SYNTHETIC_ORDER, Entry
from web.markup import whole_page
from web.routes.api import service_of
from web.routes.pages import head_of
from web.service.question import Asked
from web.service.worklist import Listed, Worklist, worklist_of

__all__ = ["worklist_pages"]

worklist_pages = APIRouter(include_in_schema=False)
_SHOWN = 500  # studies on the page
_HEADINGS = ("place", "picture", "study", "mean", "classifier", "vote", "agree", "nearest study", "answer")
_ORDER = (
    "The most probably abnormal first, by the mean of both probabilities. What is marked unfamiliar is unlike what is "
    "indexed: its figures say little, high or low."
)


@worklist_pages.get("/worklist")
async def show(request: Request) -> HTMLResponse:
    worklist = worklist_of(request)
    about = await service_of(request).about()
    content = _content(worklist, synthetic=bool(about["synthetic"]))
    page = whole_page("Worklist - mura-search", content, foot=await head_of(request), script="worklist.js")
    return HTMLResponse(page)


@worklist_pages.get("/worklist/changes")
async def changes(request: Request) -> JSONResponse:
    """How often the list has become another one, by which a page that is open sees that it is old."""
    return JSONResponse({"changes": worklist_of(request).changes})


@worklist_pages.post("/worklist")
async def rank_again(request: Request) -> Response:
    worklist_of(request).start()
    return RedirectResponse("/worklist", 303)


@worklist_pages.post("/worklist/{number}")
async def open_study(number: str, request: Request) -> Response:
    """Read a study's files as they are now, remember it, and go to its answer."""
    files = worklist_of(request).get(number).found.files
    service = service_of(request)
    with service.gate.enter() as share:
        _, study = await service.ask_files(files, Asked(), share)
    return RedirectResponse(f"/studies/{service.kept.add(study)}", 303)


@worklist_pages.get("/worklist/{number}/picture")
async def picture(number: str, request: Request) -> Response:
    return Response(worklist_of(request).get(number).picture, media_type="image/jpeg")


def _content(worklist: Worklist, *, synthetic: bool) -> Html:
    ranked = worklist.ranked()
    blocks = [
        Html(f"<h1>Worklist of {safe(named(worklist.folder.resolve().name))}</h1>"),
        warnings(_remarks(worklist, [listed.entry for _, listed in ranked], synthetic=synthetic)),
        paragraph(_state(worklist)),
        Html(f'<p id="news" role="status" data-changes="{worklist.changes}"></p>'),
    ]
    if worklist.running:
        blocks.append(Html('<p><a class="button plain" href="/worklist">Look again</a></p>'))
    else:
        blocks.append(Html('<form method="post" action="/worklist"><p><button>Rank again</button></p></form>'))
    if ranked:
        rows = [_row(rank, number, listed) for rank, (number, listed) in enumerate(ranked[:_SHOWN], 1)]
        caption = "Studies in the order to read them"
        blocks += [paragraph(_ORDER, "quiet"), table(caption, _HEADINGS, rows, "list")]
    if worklist.skipped:
        left_out = [(named(one.study), named(one.reason)) for one in worklist.skipped[:_SHOWN]]
        blocks.append(table("Could not be read", ("study", "reason"), left_out, "prose"))
    return join(*blocks)


def _state(worklist: Worklist) -> str:
    count = len(worklist.ranked())
    made = f"Ranked {_studies(count)} at {worklist.made:%Y-%m-%d %H:%M} UTC." if worklist.made else ""
    if not worklist.running:
        return f"{made or 'Nothing was ranked yet.'} The folder is watched for studies that come or go."
    progress = f"{worklist.done:,} of {_studies(worklist.all)} are read"
    if made:
        return f"{made} It is being ranked again: {progress}. Until all are, the former order is shown."
    return f"It is being ranked: {progress}, and only those are in the order below."


def _remarks(worklist: Worklist, entries: list[Entry], *, synthetic: bool) -> list[str]:
    remarks = [f"{worklist.trouble}."] if worklist.trouble else []
    if worklist.left and not worklist.running:
        were = "was" if worklist.left == 1 else "were"
        why = f"at most {worklist.most:,} are on the list" if len(entries) >= worklist.most else "the server was busy"
        remarks.append(f"{_studies(worklist.left)} of the folder {were} not read yet: {why}.")
    if len(entries) > _SHOWN:
        remarks.append(f"Only the first {_SHOWN:,} are shown.")
    unfamiliar = sum(entry.answer.familiarity.familiar is False for entry in entries)
    if unfamiliar:
        remarks.append(f"{unfamiliar:,} {'is' if unfamiliar == 1 else 'are'} unlike what is indexed.")
    if worklist.skipped:
        remarks.append(f"{len(worklist.skipped):,} could not be read; look at them yourself.")
    if synthetic:
        remarks.append(SYNTHETIC_ORDER)
    return remarks


def _row(rank: int, number: str, listed: Listed) -> list[str]:
    answer, study = listed.entry.answer, named(listed.entry.study)
    return [
        f"{rank:,}",
        Html(f'<img src="/worklist/{number}/picture" alt="First radiograph of study {escape(study)}" loading="lazy">'),
        Html(f"{safe(study)}{marks(listed.entry)}"),
        f"{listed.entry.mean:.3f}",
        probability(answer.classifier.probability, answer.classifier.abnormal),
        probability(answer.knn.probability, answer.knn.abnormal),
        {True: "yes", False: "no", None: "no vote"}[answer.agreement],
        _nearest(answer),
        Html(
            f'<form method="post" action="/worklist/{number}"><button class="plain" aria-label="Open study '
            f'{escape(study)}">Open</button></form>'
        ),
    ]


def _nearest(answer: Answer) -> str:
    if not answer.cases:
        return "none"
    case = answer.cases[0]
    picture = f"/api/cases/{quote(case.case, safe='')}/image?small=true"
    words = f"<span>{label_mark(case.label)} {case.similarity:.3f}<br>{safe(named(case.study))}</span>"
    return Html(f'<div class="near"><img src="{escape(picture)}" alt="" loading="lazy">{words}</div>')


def _studies(count: int) -> str:
    return f"{count:,} {'study' if count == 1 else 'studies'}"
