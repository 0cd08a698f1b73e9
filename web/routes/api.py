"""The HTTP API: the answers of the command line and the Python API, and the pictures that belong to them."""

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import HTTPBearer
from starlette.responses import JSONResponse, PlainTextResponse, Response

from index.errors import IndexFailure
from retrieval.answer import Answer
from web.errors import Refused
from web.models import (
    AnswerDocument,
    CaseRecord,
    IndexSummary,
    Label,
    StudyQuestion,
    WorklistDocument,
    refusals,
)
from web.responses import NOT_MODIFIED, tagged
from web.routes.query_form import FORM, ask, while_connected
from web.service.service import Service
from web.service.worklist import Worklist
from web.settings import TOKEN_VARIABLE

__all__ = ["TOKEN", "answer_document", "api", "health", "service_of", "worklist_of"]

# The middleware checks the token; this describes it.
TOKEN = HTTPBearer(auto_error=False, scheme_name="token", description=f"The token of --token-file or {TOKEN_VARIABLE}.")
api = APIRouter(responses=refusals(401, 403, 421, 429), dependencies=[Depends(TOKEN)])
health = APIRouter(tags=["server"], default_response_class=PlainTextResponse, responses=refusals(403, 421))
# A case's name may have any character, also slashes. So a URL has it as one encoded part, which browsers leave alone.
_STUDY = "/api/studies/{study}"
_VIEW = _STUDY + "/views/{number}"
_OF_STUDY: dict[str, Any] = {"tags": ["studies"], "responses": refusals(404, 422, 503)}
_JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {"schema": {"type": "string"}}}}}
PREVIEW = 256  # pixels


class Png(Response):
    """A picture, for the description of the API as well."""

    media_type = "image/png"


@api.post(
    "/api/search",
    summary="Ask about a study",
    tags=["studies"],
    response_model=AnswerDocument,
    openapi_extra=FORM,
    responses=refusals(400, 404, 408, 413, 415, 422, 503),
)
async def search(request: Request) -> JSONResponse:
    answer, name, _ = await ask(request)
    return JSONResponse(answer_document(answer, name, service_of(request)))


@api.get(_STUDY, summary="Ask again about a remembered study", response_model=AnswerDocument, **_OF_STUDY)
async def answer_again(study: str, request: Request, question: Annotated[StudyQuestion, Query()]) -> JSONResponse:
    service = service_of(request)
    answer = await service.again(study, question)
    headers = {"content-disposition": 'attachment; filename="answer.json"'} if question.download else {}
    return JSONResponse(answer_document(answer, study, service), headers=headers)


@api.delete(_STUDY, summary="Forget a remembered study", tags=["studies"], status_code=204, responses=refusals(404))
async def forget_study(study: str, request: Request) -> None:
    service_of(request).studies.forget(study)


@api.get(_VIEW + "/image", summary="A view of a remembered study", response_class=Png, **_OF_STUDY)
async def view_image(study: str, number: int, request: Request, small: Literal["true", "false"] = "false") -> Png:
    pictures = service_of(request).pictures
    picture = pictures.view(study, number, PREVIEW) if small == "true" else pictures.view(study, number)
    return Png(await while_connected(request, picture))


@api.get(_VIEW + "/heatmap", summary="Where the classifier looks, or what is normal", response_class=Png, **_OF_STUDY)
async def view_heatmap(
    study: str,
    number: int,
    request: Request,
    target: Label = "abnormal",
    below: Literal["true", "false"] = "false",
) -> Png:
    work = service_of(request).pictures.class_heatmap(study, number, target, always=below == "true")
    return Png(await while_connected(request, work))


class Values(Response):
    """Grey values as bytes, for the description of the API as well."""

    media_type = "application/octet-stream"


@api.get(_VIEW + "/values", summary="A view's grey values with all their bits", response_class=Values, **_OF_STUDY)
async def view_values(study: str, number: int, request: Request) -> Values:
    """Rows from top to bottom, each value in one byte, or in two with the lower one first.

    The header `grey-values` has a JSON object with what they mean: `width`, `height`, `bytes`, `bits`, `slope`,
    `intercept`, `inverted`, `windows`, `spacing`, `part`, `view`, `laterality`, `colour`.
    """
    grey = await while_connected(request, service_of(request).pictures.grey_values(study, number))
    height, width = grey.values.shape
    about = {"width": width, "height": height, "bytes": grey.values.dtype.itemsize}
    names = ("bits", "slope", "intercept", "inverted", "part", "view", "laterality", "colour")
    about |= {name: getattr(grey, name) for name in names} | {"windows": [asdict(window) for window in grey.windows]}
    about["spacing"] = grey.spacing and asdict(grey.spacing)
    data = grey.values.astype(grey.values.dtype.newbyteorder("<"), copy=False).tobytes()
    return Values(data, headers={"grey-values": json.dumps(about)})


@api.get(_VIEW + "/likeness", summary="What makes a view and a case alike", response_class=Png, **_OF_STUDY)
async def view_likeness(
    study: str, number: int, request: Request, case: str, where: Literal["view", "case"] = "view"
) -> Png:
    work = service_of(request).pictures.likeness(study, number, case, inside=where == "case")
    return Png(await while_connected(request, work))


@api.get(
    "/api/index",
    summary="What the index holds",
    tags=["index"],
    response_model=IndexSummary,
    responses=NOT_MODIFIED | refusals(503),
)
async def index_summary(request: Request) -> Response:
    about = await service_of(request).about()
    return tagged(request, JSONResponse(about.model_dump()))


@api.get(
    "/api/cases/{case:path}/image",
    summary="An indexed case's picture",
    tags=["index"],
    response_class=Png,
    responses=_JPEG | NOT_MODIFIED | refusals(404, 422, 503),
)
async def case_image(case: str, request: Request, small: Literal["true", "false"] = "false") -> Response:
    data, kind = await while_connected(request, service_of(request).pictures.case(case, small=small == "true"))
    return tagged(request, Response(data, media_type=kind))


@api.get(
    "/api/cases/{case:path}",
    summary="An indexed case",
    tags=["index"],
    response_model=CaseRecord,
    responses=NOT_MODIFIED | refusals(404, 503),
)
async def case_record(case: str, request: Request) -> Response:
    record = await service_of(request).case(case)
    fields = ("case", "study", "patient", "part", "view", "split", "finding")
    values = {"label": record.label_name} | {field: getattr(record, field) for field in fields}
    return tagged(request, JSONResponse(CaseRecord.model_validate(values).model_dump()))


@api.get(
    "/api/worklist",
    summary="The studies of the server's folder, in the order to read them",
    tags=["worklist"],
    response_model=WorklistDocument,
    responses=NOT_MODIFIED | refusals(404),
)
async def worklist(request: Request) -> Response:
    return tagged(request, JSONResponse(worklist_of(request).to_dict()))


@api.get("/metrics", summary="Figures for Prometheus", tags=["server"], response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@health.get("/healthz", summary="Whether the server runs")
async def healthz() -> str:
    return "ok\n"


@health.get(
    "/readyz",
    summary="Whether the server answers from the index as it is now",
    responses={503: {"description": "Not ready", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def readyz(request: Request) -> PlainTextResponse:
    try:
        trouble = await service_of(request).trouble()
    except IndexFailure:
        return PlainTextResponse("the index no longer exists\n", 503)
    text = "the changed index cannot be opened; the former index still answers\n" if trouble else "ok\n"
    return PlainTextResponse(text, 503 if trouble else 200)


def service_of(request: Request) -> Service:
    """The server's service."""
    service: Service = request.app.state.service
    return service


def worklist_of(request: Request) -> Worklist:
    """The server's worklist. Raises Refused with 404 if it has none."""
    worklist: Worklist | None = request.app.state.worklist
    if worklist is None:
        raise Refused(404, "this server has no worklist; start it with --worklist FOLDER")
    return worklist


def answer_document(answer: Answer, name: str, service: Service) -> dict[str, Any]:
    """The JSON object "mura-search/answer/1"; for a remembered study, also where its heatmaps are."""
    document: dict[str, Any] = answer.to_dict()
    if name:
        for number, view in enumerate(document["views"], start=1):
            view["heatmap"] = f"/api/studies/{name}/views/{number}/heatmap"
        document["remembered"] = {"study": f"/api/studies/{name}", "seconds": service.limits.remembered_seconds}
    return document
