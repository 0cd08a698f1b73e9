"""The application: routes, refusals and the middleware around them. /openapi.json describes the API."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from index.errors import IndexFailure
from retrieval.errors import RadiographError, SiteKeyError
from retrieval.wording import DISCLAIMER
from web.errors import Refused
from web.metrics import Metrics
from web.models import refused_question
from web.responses import refusal, wants_page
from web.routes.api import api, health
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

_ABOUT = f"Answers a radiograph with a diagnosis and its evidence. {DISCLAIMER}"

_HANDLED: tuple[type[Exception], ...] = (
    Refused, RadiographError, IndexFailure, SiteKeyError, HTTPException, RequestValidationError, Exception,
)  # fmt: skip


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

    # FastAPI's own pages about the API load scripts from other servers.
    app = FastAPI(
        title="mura-search", version=version("mura-search"), description=_ABOUT, docs_url=None, redoc_url=None,
        lifespan=lifespan, exception_handlers=dict.fromkeys(_HANDLED, _refuse),
    )  # fmt: skip
    metrics, sessions = Metrics(service), Sessions(settings.token)
    app.state.service, app.state.metrics, app.state.sessions = service, metrics, sessions
    app.state.settings, app.state.report, app.state.worklist = settings, report, worklist
    for router in (api, health, pages, worklist_pages):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))

    return SecurityMiddleware(app, settings, sessions, metrics)


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        error = refused_question(error.errors())
    elif isinstance(error, HTTPException):
        words = {404: "nothing is at this URL", 405: "this URL does not take this method"}
        error = Refused(error.status_code, words.get(error.status_code, "this request cannot be answered"))
    elif isinstance(error, IndexFailure):
        error = Refused(503, "the index is busy or cannot be read; try again in a moment", retry=2)
    elif isinstance(error, SiteKeyError):  # which names the file
        logger.error("the site key cannot be used, so a patient's own studies cannot be recognised")
        error = Refused(503, "this server's site key cannot be used; ask its administrator")
    return refusal(error, as_page=wants_page(request.url.path, request.headers))
