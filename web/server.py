"""The server itself: Uvicorn on one process, with time limits for who connects, and a log without names."""

import asyncio
import functools
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from web.app import create_app
from web.errors import ServerError
from web.routes.pages import Report
from web.service.searcher_pool import SearcherPool
from web.settings import Settings

__all__ = ["Server", "serve"]


class _Impatient(H11Protocol):
    """Uvicorn's protocol, which by itself waits forever for a request's first lines; here `head` seconds."""

    head = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._forget()
        if self.conn.trailing_data[0]:  # the beginning of the next request came with this one
            self._expect()

    def _expect(self) -> None:
        """Set the time for a request's head while none is being answered; what arrives does not prolong it."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Server(uvicorn.Server):
    """A server that listens already; `run` answers until it is interrupted or `should_exit` is set."""

    def __init__(
        self,
        index: Path | None,
        settings: Settings,
        *,
        ready: Callable[[str], None],
        report: Report | None = None,
    ) -> None:
        """Listen and open the index. `ready` is called with the page's address when the first request can come.

        index: as `Searcher.open` takes it. Raises ServerError where it cannot listen, and what `Searcher.open` raises.
        """
        self._ready = ready
        self._listening = _listen(settings)
        with ExitStack() as opened:  # closed again where the rest cannot be had
            opened.callback(self._listening.close)
            pool = SearcherPool.open(index)
            opened.callback(pool.close)
            super().__init__(_config(create_app(pool, settings, report), settings))
            opened.pop_all()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        super().run(sockets or [self._listening])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            port = self._listening.getsockname()[1]
            self._ready(address(self.config.host, port, tls=self.config.is_ssl))


def serve(
    index: Path | None, settings: Settings, *, ready: Callable[[str], None], report: Report | None = None
) -> None:
    """Answer until interrupted, with a log on stderr; see `Server`."""
    server = Server(index, settings, ready=ready, report=report)
    _log_to_stderr()
    server.run()


def _config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    protocol = type("Impatient", (_Impatient,), {"head": settings.limits.head})
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, http=protocol, ws="none", lifespan="on", log_config=None,
        access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=5,
        limit_concurrency=settings.limits.connections, timeout_graceful_shutdown=10, ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key, ssl_keyfile_password=settings.key_password,
    )  # fmt: skip
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise ServerError(
            f"the certificate {settings.certificate} cannot be used ({error}); it and its key must be PEM files"
        ) from error
    return config


def address(host: str, port: int, *, tls: bool) -> str:
    """Where a browser on this machine finds the page."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if tls else 'http'}://{shown}:{port}/"


def _listen(settings: Settings) -> socket.socket:
    try:
        found: list[tuple[Any, ...]] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.socket(found[0][0], socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(found[0][4])
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise ServerError(
            f"cannot listen on {settings.host} port {settings.port}: {words}; name another with --host and --port"
        ) from error
    listening.set_inheritable(True)
    return listening


@functools.cache
def _stderr() -> TextIO:
    """Standard error of its own: while a cut JPEG is decoded, `images.radiograph` keeps the process's own silent."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1, errors="backslashreplace")
    except (OSError, ValueError, AttributeError):  # there is none, or it is no file
        return sys.stderr


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(_stderr())
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    for name, level in (("mura-search", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
