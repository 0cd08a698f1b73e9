"""Connections to the server: how many are open, and how long a client may take for each step.

A client has limited time for the TLS handshake and for the head of each request, and it must take what it is sent. The
server accepts no connection beyond its limit: further clients wait in the queue of the operating system.
"""

import asyncio
import contextlib
import logging
import math
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.errors import RateLimitedLog
from web.settings import Limits

__all__ = ["Connections", "CountedProtocol"]

_PIECE = 128 << 10  # bytes of a reply that a client must take in `Limits.write` seconds
_GRACE = 1.0  # seconds without a request, after which a connection may be closed for another client

logger = logging.getLogger("mura-search")

Client = tuple[str, int]
"""A client's address and port."""


@dataclass(slots=True)
class _Open:
    transport: asyncio.Transport
    answering: int = 0  # requests that the application has not finished
    since: float = field(default_factory=time.monotonic)  # when the wait for the next request began
    unsent: int = 0  # bytes of the reply that were left at the last look


class Connections:
    """The open connections, and an ASGI application around `app` that sees which of them wait for an answer."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self._open: dict[Client, _Open] = {}
        self._handshakes: dict[asyncio.Task[None], float] = {}  # and when they began
        self._full = RateLimitedLog(logger.warning)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = self._open.get(scope.get("client") or ("", 0))
        if connection is None:
            await self.app(scope, receive, send)
            return

        async def send_slowly(message: Message) -> None:
            """Send a body in pieces, each within its time, so that little of it is copied for a client that waits."""
            body, more = message.get("body", b""), message.get("more_body", False)
            try:
                for start in range(0, max(len(body), 1), _PIECE):
                    piece = {"body": body[start : start + _PIECE], "more_body": more or start + _PIECE < len(body)}
                    async with asyncio.timeout(self.limits.write):
                        await send({**message, **piece} if message["type"] == "http.response.body" else message)
            except TimeoutError:
                _reset(connection.transport)
                await asyncio.sleep(0.05)  # until the protocol knows
                raise ConnectionAbortedError("the client does not read its reply") from None

        connection.answering += 1
        try:
            await self.app(scope, receive, send_slowly)
        finally:
            connection.answering -= 1
            connection.since = time.monotonic()

    def opened(self, transport: asyncio.Transport) -> Client:
        """Note a connection whose handshake is complete; gives its name for `closed`."""
        host, port = (transport.get_extra_info("peername") or ("", 0))[:2]
        client = (str(host), int(port))  # as Uvicorn's scopes have it
        self._open[client] = _Open(transport)
        return client

    def closed(self, client: Client) -> None:
        self._open.pop(client, None)

    async def accept(
        self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        """Accept connections until cancelled."""
        listening.setblocking(False)
        watching = asyncio.create_task(self._watch())
        try:
            while True:
                await self._wait_for_room()
                try:
                    connection, _ = await asyncio.get_running_loop().sock_accept(listening)
                except OSError as error:  # such as too many open files
                    self._full.add(f"no connection can be accepted: {error.strerror}")
                    await asyncio.sleep(1)
                    continue
                handshake = asyncio.create_task(self._connect(connection, protocol, tls))
                self._handshakes[handshake] = time.monotonic()
                handshake.add_done_callback(self._forget)
        finally:
            watching.cancel()
            for handshake in self._handshakes:
                handshake.cancel()

    def _forget(self, handshake: asyncio.Task[None]) -> None:
        self._handshakes.pop(handshake, None)

    async def _connect(
        self, connection: socket.socket, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
    ) -> None:
        timeout = None if tls is None else self.limits.head
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol, connection, ssl=tls, ssl_handshake_timeout=timeout
            )
        except OSError:  # the client went away, or does not speak TLS
            connection.close()

    async def _wait_for_room(self) -> None:
        """Wait while as many connections are open as may be; those that send no request make room for others."""
        most, waiting = self.limits.connections, False
        while len(self._open) + len(self._handshakes) >= most:
            if self._close_idle():
                await asyncio.sleep(0)
                continue
            if not waiting:
                self._full.add(f"{most} connections are open: another client has to wait")
            waiting = True
            await asyncio.sleep(0.01)

    def _close_idle(self) -> bool:
        """Close the connection that has waited longest without a request, or for its handshake; false if none has."""
        now, grace = time.monotonic(), min(_GRACE, self.limits.head)
        idle = (connection for connection in self._open.values() if not connection.answering)
        oldest = min(idle, key=lambda connection: connection.since, default=None)
        handshake, started = next(iter(self._handshakes.items()), (None, now))
        if oldest and now - oldest.since > grace:
            oldest.since = math.inf  # until the protocol knows
            oldest.transport.abort()
        elif handshake and now - started > 3 * grace:
            del self._handshakes[handshake]
            handshake.cancel()
        else:
            return False
        self._full.add("too many connections are open: one without a request is closed for another client")
        return True

    async def _watch(self) -> None:
        """End connections that send no request, or do not take the last part of a reply."""
        while True:
            await asyncio.sleep(min(1.0, self.limits.head / 4))
            self._full.flush()
            now = time.monotonic()
            for connection in list(self._open.values()):
                if connection.answering:
                    continue
                unsent, before = connection.transport.get_write_buffer_size(), connection.unsent
                connection.unsent = unsent
                if before and unsent < before:
                    connection.since = now
                if unsent and now - connection.since > self.limits.write:
                    _reset(connection.transport)
                elif not unsent and now - connection.since > self.limits.head:
                    connection.transport.abort()


class CountedProtocol(asyncio.Protocol):
    """Another protocol of one connection, which reports to `connections` when it begins and ends."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        # Nothing is done to what arrives and leaves, so these are called directly.
        for name in ("data_received", "eof_received", "pause_writing", "resume_writing"):
            setattr(self, name, getattr(inner, name))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client = self._connections.opened(cast(asyncio.Transport, transport))
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.closed(self._client)
        self._inner.connection_lost(exc)


def _reset(transport: asyncio.Transport) -> None:
    """End a connection at once, also for the operating system, which would keep what the client does not read."""
    if (connection := transport.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
