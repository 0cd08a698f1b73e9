"""Indexed studies: a page of each, and the way to ask about one."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from web.models import AnswerDocument, Question, refusals
from web.responses import page
from web.routes.access import form_of
from web.routes.api import TOKEN, answer_document, service_of
from web.routes.pages import head_of
from web.service.indexed import cases_of_study, from_index

__all__ = ["indexed_api", "indexed_pages"]

indexed_api = APIRouter(responses=refusals(401, 403, 421, 429), dependencies=[Depends(TOKEN)])
indexed_pages = APIRouter(include_in_schema=False)


@indexed_api.post(
    "/api/cases/{case:path}/search",
    summary="Ask about the study of an indexed case, whose own patient is left out",
    tags=["studies"],
    response_model=AnswerDocument,
    responses=refusals(404, 422, 503),
)
async def search_case(case: str, request: Request, question: Annotated[Question, Query()]) -> JSONResponse:
    service = service_of(request)
    study = await service.use(from_index(case, files=service.files and question.heatmap == "true"))
    name = service.remember(study)
    answer = await service.again(name, question)
    if question.heatmap == "false":
        service.studies.forget(name)
        name = ""
    return JSONResponse(answer_document(answer, name, service))


@indexed_pages.get("/indexed")
async def show(request: Request, case: str = "", back: str = "") -> HTMLResponse:
    """An indexed study: its radiographs and record, and what can be done with it. `back`: the answer that led here."""
    service = service_of(request)
    cases = await service.use(cases_of_study(case))
    return page(
        "indexed.html", cases=cases, study=cases[0], full=service.files, back=back if back in service.studies else "",
        **await head_of(request),
    )  # fmt: skip


@indexed_pages.post("/indexed/ask")
async def ask(request: Request) -> Response:
    """Remember an indexed study, and go to its answer."""
    fields, service = await form_of(request, "case"), service_of(request)
    study = await service.use(from_index(fields["case"], files=service.files))
    return RedirectResponse(f"/studies/{service.remember(study)}", 303)
