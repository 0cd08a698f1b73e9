"""The atlas: a map of the indexed studies, and a selection of them as the query."""

import json

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import HTMLResponse, RedirectResponse, Response

from web.errors import Refused
from web.models import refusals
from web.responses import NOT_MODIFIED, page, tagged
from web.routes.access import form_of
from web.routes.api import TOKEN, service_of
from web.routes.pages import head_of
from web.service.atlas import Atlas, place_of
from web.service.indexed import from_selection

__all__ = ["atlas_api", "atlas_pages"]

atlas_api = APIRouter(tags=["index"], responses=refusals(401, 403, 404, 421, 429, 503), dependencies=[Depends(TOKEN)])
atlas_pages = APIRouter(include_in_schema=False)


class Coded(BaseModel):
    """A field of the studies: its values, and the number of each study's value."""

    names: list[str]
    values: list[int]


class AtlasDocument(BaseModel):
    """The map: where each study lies, x to the right and y upwards in [0, 1]; `cases` has a radiograph of each."""

    generation: int
    unplaced: int
    studies: list[str]
    cases: list[str]
    x: list[float]
    y: list[float]
    fields: dict[str, Coded]


class Point(BaseModel):
    x: float
    y: float


class PlaceDocument(BaseModel):
    """Where the views of a remembered study would lie on the map."""

    views: list[Point]


@atlas_api.get(
    "/api/atlas", summary="The map of the indexed studies", response_model=AtlasDocument, responses=NOT_MODIFIED
)
async def atlas_map(request: Request) -> Response:
    atlas: Atlas = request.app.state.atlas
    text = await service_of(request).use(atlas.text)
    return tagged(request, Response(text, media_type="application/json"))


@atlas_api.get("/api/atlas/place", summary="Where a remembered study would lie on the map")
async def atlas_place(request: Request, study: str) -> PlaceDocument:
    service = service_of(request)
    return PlaceDocument(views=[Point(**place) for place in await service.use(place_of(service.studies.get(study)))])


@atlas_pages.get("/atlas")
async def show(request: Request, study: str = "") -> HTMLResponse:
    service = service_of(request)
    atlas: Atlas = request.app.state.atlas
    head = await head_of(request)
    try:
        await service.use(atlas.text)
    except Refused as error:
        if error.status != 404:
            raise
    return page(
        "atlas.html", made=bool(atlas.placed), unplaced=head["index"].studies - atlas.placed, query=study,
        most=service.limits.views, **head,
    )  # fmt: skip


@atlas_pages.post("/atlas/ask")
async def ask(request: Request) -> Response:
    """Remember a selection as one study, and go to its answer."""
    fields, service = await form_of(request, "cases", "mode"), service_of(request)
    try:
        names = json.loads(fields["cases"])
    except ValueError as error:
        raise Refused(422, "cases is a list of names in JSON") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused(422, "cases is a list of names in JSON")
    selection = from_selection(names, mean=fields["mode"] != "each", most=service.limits.views)
    return RedirectResponse(f"/studies/{service.remember(await service.use(selection))}", 303)
