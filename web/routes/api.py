"""The HTTP API: the answers of the command line and the Python API, and the pictures that belong to them."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import HTTPBearer
from starlette.responses import JSONResponse, PlainTextResponse, Response

from retrieval.answer import Answer
from web.errors import Refused
from web.models import REFUSALS, AnswerDocument, CaseRecord, IndexSummary, Label, StudyQuestion, WorklistDocument
from web.routes.query_form import FORM, ask, while_connected
from web.service.service import Service
from web.service.worklist import Worklist
from web.settings import TOKEN_VARIABLE

__all__ = ["api", "health", "service_of", "worklist_of"]

# The middleware checks the token; this describes it.
_TOKEN = HTTPBearer(
    auto_error=False, scheme_name="token", description=f"The token of --token-file or {TOKEN_VARIABLE}."
)
api = APIRouter(responses=REFUSALS, dependencies=[Depends(_TOKEN)])
health = APIRouter(
    default_response_class=PlainTextResponse,
    responses={503: {"description": "Not ready", "content": {"text/plain": {}}}},
)
# A case's name may have any character, also slashes. So a URL has it as one encoded part, which browsers leave alone.
_STUDY = "/api/studies/{study}"
_VIEW = _STUDY + "/views/{number}"


class Png(Response):
    media_type = "image/png"


@api.post("/api/search", summary="Ask about a study", response_model=AnswerDocument, openapi_extra=FORM)
async def search(request: Request) -> JSONResponse:
    answer, name, _ = await ask(request)
    return JSONResponse(_document(answer, name, service_of(request)))


@api.get(_STUDY, summary="Ask again about a remembered study", response_model=AnswerDocument)
async def again(study: str, request: Request, question: Annotated[StudyQuestion, Query()]) -> JSONResponse:
    service = service_of(request)
    answer = await service.again(study, question)
    headers = {"content-disposition": 'attachment; filename="answer.json"'} if question.download else {}
    return JSONResponse(_document(answer, study, service), headers=headers)


@api.delete(_STUDY, summary="Forget a remembered study", status_code=204)
async def forget(study: str, request: Request) -> None:
    service_of(request).studies.forget(study)


@api.get(_VIEW + "/image", summary="A view of a remembered study", response_class=Png)
async def view_image(study: str, number: int, request: Request) -> Png:
    return Png(await while_connected(request, service_of(request).picture(study, number)))


@api.get(_VIEW + "/heatmap", summary="What speaks for abnormal, or for normal", response_class=Png)
async def heatmap(study: str, number: int, request: Request, target: Label = "abnormal") -> Png:
    return Png(await while_connected(request, service_of(request).class_heatmap(study, number, target)))


@api.get(_VIEW + "/likeness", summary="What makes a view and a case alike", response_class=Png)
async def likeness(
    study: str, number: int, request: Request, case: str, where: Literal["view", "case"] = "view"
) -> Png:
    work = service_of(request).likeness(study, number, case, inside=where == "case")
    return Png(await while_connected(request, work))


@api.get("/api/index", summary="What the index holds")
async def index(request: Request) -> IndexSummary:
    return await service_of(request).about()


@api.get(
    "/api/cases/{case:path}/image",
    summary="An indexed case's picture",
    response_class=Png,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string"}}}}},
)
async def case_image(case: str, request: Request, small: Literal["true", "false"] = "false") -> Response:
    data, kind = await while_connected(request, service_of(request).case_picture(case, small=small == "true"))
    return Response(data, media_type=kind)


@api.get("/api/cases/{case:path}", summary="An indexed case")
async def case_record(case: str, request: Request) -> CaseRecord:
    record = await service_of(request).case(case)
    fields = ("case", "study", "patient", "part", "view", "split")
    return CaseRecord.model_validate({"label": record.label_name} | {field: getattr(record, field) for field in fields})


@api.get(
    "/api/worklist",
    summary="The studies of the server's folder, in the order to read them",
    response_model=WorklistDocument,
)
async def worklist(request: Request) -> JSONResponse:
    return JSONResponse(worklist_of(request).to_dict())


@api.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@health.get("/healthz", summary="Whether the server runs")
async def healthz() -> str:
    return "ok\n"


@health.get("/readyz", summary="Whether the server answers from the index as it is now")
async def readyz(request: Request) -> PlainTextResponse:
    trouble = await service_of(request).trouble()
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


def _document(answer: Answer, name: str, service: Service) -> dict[str, Any]:
    """The JSON object "mura-search/answer/1"; for a remembered study, also where its heatmaps are."""
    document: dict[str, Any] = answer.to_dict()
    if name:
        for number, view in enumerate(document["views"], start=1):
            view["heatmap"] = f"/api/studies/{name}/views/{number}/heatmap"
        document["remembered"] = {"study": f"/api/studies/{name}", "seconds": service.limits.remembered_seconds}
    return document
