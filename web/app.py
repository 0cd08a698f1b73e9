"""The application: routes, refusals and the middleware around them. /openapi.json describes the API."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from index.errors import IndexFailure, IndexMissing
from retrieval.errors import RadiographError, SiteKeyError
from retrieval.wording import DISCLAIMER
from web.errors import Refused
from web.metrics import Metrics
from web.models import API_TAGS, add_problems, refused_question
from web.responses import refusal, wants_page
from web.routes.api import api, health
from web.routes.atlas import atlas_api, atlas_pages
from web.routes.drift import drift_pages
from web.routes.filing import filing_api, filing_pages
from web.routes.indexed import indexed_api, indexed_pages
from web.routes.pages import Report, pages
from web.routes.regions import region_api, region_pages
from web.routes.worklist import worklist_pages
from web.security.middleware import SecurityMiddleware
from web.security.session import Sessions
from web.service.atlas import Atlas
from web.service.regions import Regions
from web.service.searcher_pool import SearcherPool
from web.service.service import Service
from web.service.worklist import Worklist
from web.settings import Settings

__all__ = ["create_app"]

logger = logging.getLogger("mura-search")

_ABOUT = f"Answers a radiograph with a diagnosis and its evidence. {DISCLAIMER}"

_HANDLED: tuple[type[Exception], ...] = (
    Refused, RadiographError, IndexFailure, SiteKeyError, HTTPException, RequestValidationError, Exception,
)  # fmt: skip
# FastAPI would send the path of each request, which names a case, to wherever the variables of OpenTelemetry point.
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False,
}  # fmt: skip


def create_app(pool: SearcherPool, settings: Settings, report: Report | None = None) -> ASGIApp:
    """The server's application, which closes the pool when it ends.

    report: makes the HTML report of an answer; without it the page offers none.
    """
    service = Service(pool, settings.limits, files=settings.files)
    worklist = Worklist(settings.worklist, service) if settings.worklist else None

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        if worklist:
            worklist.start()
        yield
        if worklist:
            await worklist.close()
        await service.close()

    # FastAPI's own pages about the API load scripts from other servers; `web.routes.pages` has one without.
    app = FastAPI(
        title="mura-search", version=version("mura-search"), description=_ABOUT, docs_url=None, redoc_url=None,
        openapi_url=None, openapi_tags=API_TAGS, generate_unique_id_function=_operation, lifespan=lifespan,
        exception_handlers=dict.fromkeys(_HANDLED, _refuse), telemetry=_NO_TELEMETRY,
    )  # fmt: skip
    metrics, sessions = Metrics(service, app.version), Sessions(settings.token, settings.filing_token)
    app.state.service, app.state.metrics, app.state.sessions = service, metrics, sessions
    app.state.atlas, app.state.regions = Atlas(), Regions()
    app.state.settings, app.state.report, app.state.worklist = settings, report, worklist
    own_pages = (pages, worklist_pages, indexed_pages, filing_pages, atlas_pages, region_pages, drift_pages)
    for router in (atlas_api, indexed_api, region_api, filing_api, api, health, *own_pages):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app.state.description = add_problems(app.openapi())

    return _shared(SecurityMiddleware(app, settings, sessions, metrics), settings.origins)


def _shared(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application, whose API pages of other `origins` may ask with the token; they never get a session."""
    if not origins:
        return app
    return CORSMiddleware(
        app, origins, allow_methods=("GET", "POST", "DELETE"), allow_headers=("Authorization", "If-None-Match"),
        expose_headers=("ETag", "Retry-After"),
    )  # fmt: skip


def _operation(route: APIRoute) -> str:
    """The name of an operation in /openapi.json, which stays the same from version to version."""
    return route.name


def _allowed(request: Request) -> str:
    """The methods that the request's URL takes, for `Allow`."""
    scope = {"type": "http", "path": request.url.path, "root_path": "", "headers": []}
    methods = {
        method
        for method in ("GET", "POST", "DELETE")
        for route in request.app.routes
        if route.matches({**scope, "method": method})[0] is Match.FULL and (method == "GET" or type(route) is not Mount)
    }
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


async def _refuse(request: Request, error: Exception) -> Response:
    allowed = _allowed(request) if isinstance(error, HTTPException) and error.status_code == 405 else ""
    if isinstance(error, RequestValidationError):
        error = refused_question(error.errors())
    elif isinstance(error, HTTPException):
        words = {404: "nothing is at this URL", 405: "this URL does not take this method"}
        error = Refused(error.status_code, words.get(error.status_code, "this request cannot be answered"))
    elif isinstance(error, IndexMissing):  # which names the path
        error = Refused(503, "the index no longer exists; ask the server's administrator", retry=30)
    elif isinstance(error, IndexFailure):
        error = Refused(503, "the index is busy or cannot be read; try again in a moment", retry=2)
    elif isinstance(error, SiteKeyError):  # which names the file
        logger.error("the site key cannot be used, so a patient's own studies cannot be recognised")
        error = Refused(503, "this server's site key cannot be used; ask its administrator")
    reply = refusal(error, as_page=wants_page(request.url.path, request.headers))
    if allowed:
        reply.headers["Allow"] = allowed
    return reply
