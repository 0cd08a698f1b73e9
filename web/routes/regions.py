"""Search by a region: what a rectangle of a remembered radiograph shows, among the regions of the index."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import HTMLResponse, JSONResponse

from retrieval.search_by.region import Box, RegionAnswer, SimilarRegion
from web.models import MOST_SHOWN, refusals
from web.responses import page
from web.routes.api import TOKEN, service_of
from web.routes.query_form import while_connected
from web.service.regions import Regions

__all__ = ["region_api", "region_pages"]

region_api = APIRouter(responses=refusals(401, 403, 421, 429), dependencies=[Depends(TOKEN)])
region_pages = APIRouter(include_in_schema=False)

Part = Annotated[float, Field(ge=0, le=1)]


class RegionQuestion(BaseModel):
    """A rectangle, as parts of the sides of its radiograph: the upper left corner and the size."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    x: Part
    y: Part
    width: Annotated[float, Field(gt=0, le=1)]
    height: Annotated[float, Field(gt=0, le=1)]
    k: int = Field(default=5, ge=1, le=MOST_SHOWN, description="How many similar studies to show.")


class RegionDocument(BaseModel):
    """The JSON object "mura-search/region/1". `region` is in pixels, the regions found in parts of their sides."""

    schema_: Literal["mura-search/region/1"] = Field(alias="schema")
    file: str
    region: Box
    abnormal: float | None
    regions: list[SimilarRegion]
    excluded_patients: list[str]


@region_api.get(
    "/api/studies/{study}/views/{number}/regions",
    summary="Studies with a region like a rectangle of a view",
    tags=["studies"],
    response_model=RegionDocument,
    responses=refusals(404, 422, 503),
)
async def similar_regions(
    study: str, number: int, request: Request, question: Annotated[RegionQuestion, Query()]
) -> JSONResponse:
    return JSONResponse((await _ask(study, number, request, question)).to_dict())


@region_pages.get("/studies/{study}/views/{number}/regions")
async def region_part(
    study: str, number: int, request: Request, question: Annotated[RegionQuestion, Query()]
) -> HTMLResponse:
    """The part of the page with the studies that have a region like the marked one."""
    answer = await _ask(study, number, request, question)
    return page("regions.html", answer=answer, number=number, name=study)


async def _ask(study: str, number: int, request: Request, question: RegionQuestion) -> RegionAnswer:
    regions: Regions = request.app.state.regions
    service = service_of(request)
    parts = Box(question.x, question.y, question.width, question.height)
    work = regions.asked(service.studies.get(study), number, parts, question.k)
    return await while_connected(request, service.use(work))
