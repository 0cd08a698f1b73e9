"""The application: routes, refusals and the guard around them. The API is described at /openapi.json."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from index.errors import IndexFailure
from retrieval.errors import RadiographError, SiteKeyError
from web.describe import describe
from web.errors import Refused
from web.metrics import Metrics
from web.responses import refusal, wants_page
from web.routes.api import api
from web.routes.pages import Report, pages
from web.routes.worklist import worklist_pages
from web.security.middleware import SecurityMiddleware
from web.security.session import Sessions
from web.service.searcher_pool import SearcherPool
from web.service.service import Service
from web.service.worklist import Worklist
from web.settings import Settings

__all__ = ["create_app"]

logger = logging.getLogger("mura-search")

_HANDLED: tuple[type[Exception], ...] = (
    Refused, RadiographError, IndexFailure, SiteKeyError, HTTPException, RequestValidationError, Exception,
)  # fmt: skip


def create_app(engine: SearcherPool, settings: Settings, report: Report | None = None) -> ASGIApp:
    """The server's application, which closes the engine when it ends.

    report: makes the HTML report of an answer; without it none is offered.
    """
    service = Service(engine, settings.limits, files=settings.files)
    worklist = Worklist(settings.worklist, service) if settings.worklist else None

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if worklist:
            worklist.start()
        yield
        if worklist:
            await worklist.close()
        await service.close()

    # The pages that FastAPI would make of the description load scripts from elsewhere.
    app = FastAPI(
        title="mura-search", version=version("mura-search"), docs_url=None, redoc_url=None, lifespan=lifespan,
        exception_handlers=dict.fromkeys(_HANDLED, _refuse),
    )  # fmt: skip
    meters, sessions = Metrics(service), Sessions(settings.token)
    app.state.service, app.state.metrics, app.state.sessions = service, meters, sessions
    app.state.settings, app.state.report, app.state.worklist = settings, report, worklist
    app.include_router(api)
    app.include_router(pages)
    app.include_router(worklist_pages)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    app.openapi = description  # type: ignore[method-assign]  # as FastAPI's manual says
    return SecurityMiddleware(app, settings, sessions, meters)


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        error = Refused(422, "a number in the address is none")
    elif isinstance(error, HTTPException):
        words = {404: "there is nothing at this address", 405: "this address cannot be asked in that way"}
        error = Refused(error.status_code, words.get(error.status_code, "this cannot be answered"))
    elif isinstance(error, IndexFailure):
        error = Refused(503, "the index is busy or cannot be read; try again in a moment", retry=2)
    elif isinstance(error, SiteKeyError):  # which names the file
        logger.error("the site key cannot be used, so nobody's own studies can be told")
        error = Refused(503, "this server's site key cannot be used; whoever runs it can look")
    return refusal(error, page=wants_page(request.url.path, request.headers))
