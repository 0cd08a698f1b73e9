"""Who may ask: the token in a header, or a session in a cookie that a login with the token gave."""

import asyncio
import hashlib
import hmac
import ipaddress
import math
import secrets
import time
from collections.abc import Awaitable, Callable

from web.errors import Refused

__all__ = ["COOKIE", "LIFETIME", "Sessions", "WrongTokens"]

COOKIE = "mura-search-session"
FILING = "filing"
LIFETIME = 12 * 3600
"""Seconds that a login lasts."""


class Sessions:
    """Checks tokens, and makes and checks sessions; a comparison takes the same time whatever is wrong.

    A session is the time of its end and a keyed hash of it: nothing is stored. The cookie has neither the token nor
    anything to guess it from, since a random number of this process is part of the key. So a session also ends with the
    process.
    """

    def __init__(self, token: str | None, filing: str | None = None) -> None:
        """Without a token everybody may ask. filing: the token of those who may also change the index."""
        self.needed = token is not None
        self.files = filing is not None
        self._token, self._filing = (hashlib.sha256((secret or "").encode()).digest() for secret in (token, filing))
        self._key = hmac.digest(secrets.token_bytes(32), self._token + self._filing, "sha256")
        self._wrong = WrongTokens()

    def is_token(self, text: str) -> bool:
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        asks = self.needed and hmac.compare_digest(digest, self._token)
        return asks or self.is_filing_token(text)

    def is_filing_token(self, text: str) -> bool:
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        return self.files and hmac.compare_digest(digest, self._filing)

    def may_file(self, authorization: str, cookie: str) -> bool:
        """Whether a request may change the index: by the filing token, or a session that began with it."""
        kind, _, token = authorization.partition(" ")
        if kind.lower() == "bearer" and self.is_filing_token(token):
            return True
        return self.files and self.is_session(cookie) and cookie.split(".")[1] == FILING

    async def check_token(self, text: str, address: str) -> bool:
        """Whether a client sends the token. A wrong one takes time; Refused with 429 after too many of them."""
        if self.is_token(text):
            return True
        await self._wrong.add(address)
        return False

    def begin(self, *, filing: bool = False) -> str:
        """A new session, as the cookie has it. filing: whether it may change the index."""
        ends = f"{int(time.time()) + LIFETIME}.{FILING if filing else 'asking'}.{secrets.token_hex(8)}"
        return f"{ends}.{self._sign(ends)}"

    def is_session(self, cookie: str) -> bool:
        ends, _, signature = cookie.rpartition(".")
        signed = hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(ends).encode())
        return signed and int(ends.partition(".")[0]) > time.time()

    async def admits(self, authorization: str, cookie: str, address: str) -> bool:
        """Whether a request may ask: by `Authorization: Bearer TOKEN`, or the session's cookie. Raises Refused."""
        if not self.needed or self.is_session(cookie):
            return True
        kind, _, token = authorization.partition(" ")
        return kind.lower() == "bearer" and await self.check_token(token, address)

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "replace"), "sha256").hexdigest()


class _Bucket:
    """A count that falls by `rate` each second."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._count = 0.0
        self._at = now

    def add(self, more: int, now: float) -> float:
        self._count = max(0.0, self._count - self._rate * (now - self._at)) + more
        self._at = now
        return self._count


class WrongTokens:
    """Slows down who sends wrong tokens: by address, and all together.

    The right token is always taken, also from the same address, so nobody is locked out. Replies to wrong ones wait
    longer and longer; beyond a number of waiting replies they are sent at once, so that connections stay free.
    """

    FREE, FREE_IN_ALL = 10, 100  # wrong tokens before a refusal
    RATE, RATE_IN_ALL = 1 / 6, 2.0  # that are forgotten each second
    FIRST, LONGEST = 0.3, 8.0  # seconds that a reply waits
    WAITING = 64  # replies that may wait
    ADDRESSES = 10_000  # that are remembered

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._by_address: dict[str, _Bucket] = {}
        self._all = _Bucket(self.RATE_IN_ALL, clock())
        self._waiting = 0

    async def add(self, address: str) -> None:
        """Count a wrong token, and wait. Raises Refused with 429 if there were too many."""
        now = self._clock()
        if len(self._by_address) >= self.ADDRESSES:
            self._by_address = {name: bucket for name, bucket in self._by_address.items() if bucket.add(0, now) > 0}
        bucket = self._by_address.setdefault(_network(address), _Bucket(self.RATE, now))
        surplus, surplus_of_all = bucket.add(1, now) - self.FREE, self._all.add(1, now) - self.FREE_IN_ALL
        seconds = max(surplus / self.RATE, surplus_of_all / self.RATE_IN_ALL)
        if self._waiting < self.WAITING:
            self._waiting += 1
            try:
                await self._sleep(min(self.LONGEST, self.FIRST * 2 ** max(0, min(surplus, 10))))
            finally:
                self._waiting -= 1
        if seconds > 0:
            raise Refused(429, "too many wrong tokens were sent; try again later", retry=min(300, math.ceil(seconds)))


def _network(address: str) -> str:
    """An IPv4 address, or the /64 network of an IPv6 address, within which a client may choose its addresses."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((parsed, 64), strict=False))
