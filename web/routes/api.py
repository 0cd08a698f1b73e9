"""The HTTP API: the same answers as the command line and the Python API give, and the pictures that belong to them."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from retrieval.answer import Answer
from retrieval.explain.smooth_grad_cam import TARGETS
from web.describe import ANSWERS, CASE, ERRORS, INDEX, PICTURE, QUESTION, SEARCH, TEXT, WORKLIST, parameters
from web.errors import Refused
from web.routes.query_form import asked, read_upload
from web.service.service import Service
from web.service.worklist import worklist_of

__all__ = ["answer_document", "api"]

api = APIRouter()
# A case's name may hold any character, slashes among them; only as one encoded part does a browser leave it alone.
_STUDY = "/api/studies/{study}"


@api.post("/api/search", summary="Ask about a study", openapi_extra=SEARCH, responses=ANSWERS)
async def search(request: Request) -> JSONResponse:
    service = service_of(request)
    with service.gate.enter() as share:
        upload = await read_upload(request, service.limits.views, share)
        answer, name = await service.ask(upload, share)
    return JSONResponse(answer_document(answer, name, service.limits.kept_time))


@api.get(_STUDY, summary="Ask anew about a remembered study", openapi_extra=QUESTION, responses=ANSWERS)
async def again(study: str, request: Request) -> JSONResponse:
    service = service_of(request)
    fields = [(name, value) for name, value in request.query_params.multi_items() if name != "download"]
    answer = await service.again(study, asked(fields))
    headers = {}
    if "download" in request.query_params:
        headers["content-disposition"] = 'attachment; filename="answer.json"'
    return JSONResponse(answer_document(answer, study, service.limits.kept_time), headers=headers)


@api.delete(_STUDY, summary="Forget a remembered study", status_code=204, responses=ERRORS)
async def forget(study: str, request: Request) -> Response:
    service_of(request).kept.forget(study)
    return Response(status_code=204)


@api.get(_STUDY + "/views/{number}/image", summary="A view of a remembered study", responses=PICTURE)
async def view_image(study: str, number: int, request: Request) -> Response:
    return _png(await service_of(request).picture(study, number))


@api.get(
    _STUDY + "/views/{number}/heatmap",
    summary="What speaks for abnormal, or for normal",
    openapi_extra=parameters(target=TARGETS),
    responses=PICTURE,
)
async def heatmap(study: str, number: int, request: Request) -> Response:
    target = request.query_params.get("target", TARGETS[0])
    if target not in TARGETS:
        raise Refused(422, f"target is {' or '.join(TARGETS)}")
    return _png(await service_of(request).class_heatmap(study, number, target))


@api.get(
    _STUDY + "/views/{number}/likeness",
    summary="What makes a view and a case alike",
    openapi_extra=parameters(case=None, where=("view", "case")),
    responses=PICTURE,
)
async def likeness(study: str, number: int, request: Request) -> Response:
    where = request.query_params.get("where", "view")
    if where not in ("view", "case"):
        raise Refused(422, "where is view or case: in which of the two the likeness is shown")
    case = request.query_params.get("case", "")
    return _png(await service_of(request).likeness(study, number, case, inside=where == "case"))


@api.get("/api/index", summary="What the index holds", responses=INDEX)
async def index(request: Request) -> JSONResponse:
    return JSONResponse(await service_of(request).about())


@api.get(
    "/api/cases/{case:path}/image",
    summary="An indexed case's picture",
    openapi_extra=parameters(small=("true", "false")),
    responses=PICTURE,
)
async def case_image(case: str, request: Request) -> Response:
    small = request.query_params.get("small", "false")
    if small not in ("true", "false"):
        raise Refused(422, "small is true or false")
    data, kind = await service_of(request).case_picture(case, small=small == "true")
    return Response(data, media_type=kind)


@api.get("/api/cases/{case:path}", summary="An indexed case", responses=CASE)
async def case_record(case: str, request: Request) -> JSONResponse:
    found = await service_of(request).case(case)
    fields = ("case", "study", "patient", "part", "view", "split")
    return JSONResponse({"label": found.label_name, **{field: getattr(found, field) for field in fields}})


@api.get("/api/worklist", summary="The studies of the server's folder, in the order to read them", responses=WORKLIST)
async def worklist(request: Request) -> JSONResponse:
    return JSONResponse(worklist_of(request).to_dict())


@api.get("/healthz", summary="Whether the server runs", responses=TEXT)
async def health() -> Response:
    return Response("ok\n", media_type="text/plain")


@api.get("/readyz", summary="Whether it answers from the index as it is now", responses=TEXT)
async def ready(request: Request) -> Response:
    trouble = await service_of(request).trouble()
    text = "the index was changed and cannot be opened; the former one still answers\n" if trouble else "ok\n"
    return Response(text, 503 if trouble else 200, media_type="text/plain")


@api.get("/metrics", summary="Figures for Prometheus", responses=TEXT)
async def metrics(request: Request) -> Response:
    return Response(request.app.state.meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def answer_document(answer: Answer, name: str, seconds: float) -> dict[str, Any]:
    """The JSON object "mura-search/answer/1"; where the study is remembered, with where its heatmaps are."""
    document: dict[str, Any] = answer.to_dict()
    if name:
        for number, view in enumerate(document["views"], start=1):
            view["heatmap"] = f"/api/studies/{name}/views/{number}/heatmap"
        document["remembered"] = {"study": f"/api/studies/{name}", "seconds": seconds}
    return document


def _png(data: bytes) -> Response:
    return Response(data, media_type="image/png")
