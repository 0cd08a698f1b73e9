"""The outermost layer: who may ask, from where, how much; headers for the browser, and a log without names.

The order of the checks: the host that the request names, the site it comes from, the token or session, the length.
"""

import asyncio
import ipaddress
import logging
import socket
import time
from collections.abc import MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.errors import RateLimitedLog, redacted_traceback
from web.errors import CLIENT_GONE, Refused
from web.metrics import Metrics
from web.responses import refusal, wants_page
from web.security.session import COOKIE, Sessions
from web.settings import Settings, is_loopback

__all__ = ["SecurityMiddleware", "client_address"]

OPEN = ("/login", "/healthz", "/readyz")
"""URLs that need no token, besides the files in /static/, which are the same everywhere."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with "no-referrer" a form's own Origin would be hidden as well
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_DRAIN = 2.0  # seconds to receive the rest of a refused upload: without it, a browser shows no refusal
_STRANGERS = (401, 403, 421, 429)  # refusals of requests without a token

logger = logging.getLogger("mura-search")


class SecurityMiddleware:
    """Wraps an application; see the module."""

    def __init__(self, app: ASGIApp, settings: Settings, sessions: Sessions, metrics: Metrics) -> None:
        self.app = app
        self.settings = settings
        self.sessions = sessions
        self.metrics = metrics
        self._flood = RateLimitedLog(logger.info)
        self._names = {name.lower() for name in settings.names} | {"localhost", settings.host.strip("[]").lower()}
        if not settings.loopback:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status, method = time.perf_counter(), 0, scope["method"]
        headers = Headers(scope=scope)
        if method == "HEAD":  # answered as GET; the reply loses its body
            scope = {**scope, "method": "GET"}
        body = _Body(receive, self.settings.limits.body, self.settings.limits.upload)

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(message, scope)
                if not body.complete:  # what a refused upload still sends is no next request
                    if status != 408 and "expect" not in headers:
                        await body.drain()
                    if not body.complete:
                        message["headers"].append((b"connection", b"close"))
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        try:
            early = await self._early(scope, headers)
            await (early or self.app)(scope, body.receive, reply)
        except asyncio.CancelledError:  # the server stops, and does not wait any longer
            body.complete = True
            if not status:
                await refusal(Refused(503, "the server stops"), as_page=False)(scope, body.receive, reply)
        except ConnectionAbortedError:  # the client does not read, and its connection is closed
            status = CLIENT_GONE
        except Exception as error:  # broad, as the last resort: an unexpected error becomes a status and a line here
            if not isinstance(error, Refused):
                logger.error("%s", redacted_traceback(error))
            if not status:
                await refusal(error, as_page=wants_page(scope["path"], headers))(scope, body.receive, reply)
        finally:
            self._note(scope, method, status, time.perf_counter() - started)

    def _note(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        """Count a request and write it to the log: what anybody may send without a token has one line a minute."""
        route = getattr(scope.get("route"), "path", "")
        if not route:
            route = "/static" if scope["path"].startswith("/static/") and status < 400 else "(refused)"
        method = method if method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "other"
        self.metrics.count(method, route, status, seconds)
        self._flood.flush()
        if status in _STRANGERS or route == "/static" or route in OPEN:
            self._flood.add(f"{method} {route} {status}")
        else:
            fields = {"method": method, "route": route, "status": status, "milliseconds": round(1000 * seconds)}
            logger.info("%s %s %d %.0f ms", method, route, status, 1000 * seconds, extra={"fields": fields})

    async def _early(self, scope: Scope, headers: Headers) -> Response | None:
        """The reply that needs no application: a redirection to the login, else None. Raises Refused."""
        self._require_host(headers)
        self._require_same_site(scope, headers)
        path = scope["path"]
        is_open = path in OPEN or path.startswith("/static/")
        if not is_open and not await self.sessions.admits(
            headers.get("authorization", ""), _cookie(headers), client_address(scope)
        ):
            if scope["method"] == "GET" and wants_page(path, headers):
                return RedirectResponse("/login", 303)
            raise Refused(401, "log in on the page, or send the token in a header: Authorization: Bearer TOKEN")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.settings.limits.body:
            raise _too_long(self.settings.limits.body)
        return None

    def _require_host(self, headers: Headers) -> None:
        """Refuse unknown names: a DNS server may make its own name point here (DNS rebinding)."""
        given = headers.getlist("host")
        host = _host_name(given[0]) if len(given) == 1 else None
        if host is not None and (host in self._names or self._is_own_address(host)):
            return
        raise Refused(421, "this server does not have that host name; start it with --name NAME to allow it")

    def _is_own_address(self, host: str) -> bool:
        """Whether it is an address, which no DNS server can redirect; on loopback, one of this machine."""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return not self.settings.loopback or is_loopback(host)

    def _require_same_site(self, scope: Scope, headers: Headers) -> None:
        """Refuse requests that another site's page makes in the name of its reader, except links to a page."""
        safe = scope["method"] in ("GET", "HEAD")
        site = headers.get("sec-fetch-site", "none")
        origin = headers.get("origin")
        host = headers.get("host", "").lower()  # without a scheme: in front there may be a proxy that speaks TLS
        link = safe and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        foreign = site not in ("same-origin", "none") and not link
        if origin in self.settings.origins and scope["path"].startswith("/api/"):
            return
        if foreign or (origin is not None and origin.lower().partition("://")[2] != host):
            raise Refused(403, "another site's page may not ask this server")

    def _add_headers(self, message: MutableMapping[str, Any], scope: Scope) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
            headers[name] = value
        if self.settings.tls:
            headers["strict-transport-security"] = "max-age=31536000"
        # Files of the program may be kept, and asked for again by their ETags; nothing of a patient may be kept.
        headers.setdefault("cache-control", "no-cache" if scope["path"].startswith("/static/") else "no-store")


class _Body:
    """A request's body as it comes in: no longer than `most` bytes and `seconds`."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive = receive
        self._most = most
        self._seconds = seconds
        self._until: float | None = None
        self._count = 0
        self.complete = False

    async def receive(self) -> Message:
        if self.complete:
            return await self._receive()  # waits for the client to go
        now = asyncio.get_running_loop().time()
        self._until = self._until or now + self._seconds
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._next()
        except TimeoutError as error:
            raise Refused(408, f"the request took longer than {self._seconds:.0f} s to arrive") from error
        if self._count > self._most:
            raise _too_long(self._most)
        return message

    async def drain(self) -> None:
        """Receive and forget the rest, for a moment."""
        try:
            async with asyncio.timeout(_DRAIN):
                while not self.complete:
                    await self._next()
        except TimeoutError:
            return

    async def _next(self) -> Message:
        message = await self._receive()
        self._count += len(message.get("body", b""))
        self.complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message


def client_address(scope: Scope) -> str:
    """The IP address that a request comes from; "" if the server does not know it."""
    return str((scope.get("client") or ("",))[0])


def _too_long(most: int) -> Refused:
    return Refused(413, f"more than {most / 2**20:.0f} MiB were sent at once; send fewer or smaller radiographs")


def _host_name(host: str) -> str | None:
    """The name in a Host header without its port, in small letters; None if it is invalid."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname if parts.hostname and not (parts.username or parts.path or parts.query) else None


def _cookie(headers: Headers) -> str:
    cookie: SimpleCookie = SimpleCookie()
    try:
        cookie.load(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookie[COOKIE].value if COOKIE in cookie else ""
