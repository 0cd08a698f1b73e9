"""The server itself: Uvicorn in one process, with limits for who connects, and a log without names."""

import asyncio
import functools
import json
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, TextIO

import uvicorn

from retrieval.errors import RateLimitedLog, redacted_traceback
from web.app import create_app
from web.connections import Connections, CountedProtocol
from web.errors import ServerError
from web.routes.pages import Report
from web.service.searcher_pool import SearcherPool
from web.settings import Settings

__all__ = ["Server", "serve"]

_QUEUE = 2048  # clients that the operating system lets wait
_UNREAD = 128 << 10  # bytes of replies that the system keeps for a client that does not read; Linux doubles it
_LONGEST_END = 30.0  # seconds for the requests at work and all threads to end
_FILES = 4096  # files and connections that the process may have open, if the system allows it


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

        index: as `Searcher.open` takes it. Raises ServerError if it cannot listen, and what `Searcher.open` raises.
        """
        self._ready = ready
        self._listening = _listen(settings)
        with ExitStack() as opened:  # closed again if the rest fails
            opened.callback(self._listening.close)
            pool = SearcherPool.open(index)
            opened.callback(pool.close)
            self._connections = Connections(create_app(pool, settings, report), settings.limits)
            super().__init__(_config(self._connections, settings))
            opened.pop_all()
        self._accepting: asyncio.Task[None] | None = None
        self.end_in = math.inf  # seconds after which the whole process ends, whatever still runs in it

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])  # the connections are accepted here
        if self.should_exit:
            return
        self._accepting = asyncio.create_task(
            self._connections.accept(self._listening, self._protocol, self.config.ssl)
        )
        self._ready(address(self.config.host, self._listening.getsockname()[1], tls=self.config.is_ssl))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.end_in < math.inf:
            end = threading.Timer(self.end_in, os._exit, (1,))
            end.daemon = True
            end.start()
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        self._listening.close()
        await super().shutdown(sockets=[])

    def _protocol(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        inner = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        return CountedProtocol(inner, self._connections)


def serve(
    index: Path | None, settings: Settings, *, ready: Callable[[str], None], report: Report | None = None
) -> None:
    """Answer until interrupted, with a log on stderr; see `Server`."""
    _allow_many_files()
    server = Server(index, settings, ready=ready, report=report)
    _log_to_stderr(settings.log)
    server.end_in = _LONGEST_END
    server.run()


def _allow_many_files() -> None:
    """Each connection is an open file, and the usual limit of 1,024 leaves too little room for others."""
    import resource  # which Windows lacks

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _config(app: Connections, settings: Settings) -> uvicorn.Config:
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, loop="asyncio", http="h11", ws="none", lifespan="on",
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        timeout_keep_alive=5, timeout_graceful_shutdown=10,
        ssl_certfile=settings.certificate, ssl_keyfile=settings.key, ssl_keyfile_password=settings.key_password,
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
        family, kind, protocol, _, where = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)  # asyncio needs `protocol` to send replies without delay
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD)
            listening.bind(where)
            listening.listen(_QUEUE)
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise ServerError(
            f"cannot listen on {settings.host} port {settings.port}: {words}; name another with --host and --port"
        ) from error
    return listening


@functools.cache
def _stderr() -> TextIO:
    """A copy of standard error: while a cut JPEG is decoded, `images.radiograph` keeps the process's own silent."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1, errors="backslashreplace")
    except (OSError, ValueError, AttributeError):  # standard error is closed, or is not a file
        return sys.stderr


def _log_to_stderr(form: Literal["text", "json"] = "text") -> None:
    handler = logging.StreamHandler(_stderr())
    lines = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    handler.setFormatter(JsonFormatter() if form == "json" else lines)
    for log, destination, level in (
        (logging.getLogger("mura-search"), handler, logging.INFO),
        (logging.getLogger("uvicorn"), _UvicornLog(), logging.WARNING),
    ):
        log.handlers, log.propagate = [destination], False
        log.setLevel(level)


class JsonFormatter(logging.Formatter):
    """Lines as JSON objects: time with its zone, level, message, and for a request its method, route, status, time."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created))
        line = {"time": moment, "level": record.levelname, "message": record.getMessage()}
        return json.dumps(line | getattr(record, "fields", {}))


class _UvicornLog(logging.Handler):
    """Puts Uvicorn's messages into our log: each once and then counted, and errors without their own words."""

    def __init__(self) -> None:
        super().__init__()
        self._log = RateLimitedLog(logging.getLogger("mura-search").warning)

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Cancel "):  # of uploads at the server's end, which have a line each
            return
        error = record.exc_info[1] if record.exc_info else None
        self._log.add(f"{record.getMessage().strip()} {redacted_traceback(error) if error else ''}".strip())
