"""Who may ask: the token in a header, or a session in a cookie that a login with the token gave."""

import hashlib
import hmac
import secrets
import time

__all__ = ["COOKIE", "LIFETIME", "Sessions"]

COOKIE = "mura-search-session"
LIFETIME = 12 * 3600
"""Seconds that a login lasts."""


class Sessions:
    """Checks tokens, and makes and checks sessions; all comparisons take the same time whatever is wrong.

    A session is when it ends and a keyed hash of that: nothing is stored, and neither the token nor anything that a
    token could be guessed from is in the cookie, since a random number of this process is part of the key. So a
    session also ends with the process.
    """

    def __init__(self, token: str | None) -> None:
        """Without a token everybody may ask."""
        self.needed = token is not None
        self._token = hashlib.sha256((token or "").encode()).digest()
        self._key = hmac.digest(secrets.token_bytes(32), self._token, "sha256")

    def is_token(self, given: str) -> bool:
        digest = hashlib.sha256(given.encode("utf-8", "replace")).digest()
        return self.needed and hmac.compare_digest(digest, self._token)

    def begin(self) -> str:
        """A new session, as the cookie has it."""
        ends = f"{int(time.time()) + LIFETIME}.{secrets.token_hex(8)}"
        return f"{ends}.{self._sign(ends)}"

    def is_session(self, cookie: str) -> bool:
        ends, _, signature = cookie.rpartition(".")
        signed = hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(ends).encode())
        return signed and int(ends.partition(".")[0]) > time.time()

    def admits(self, authorization: str, cookie: str) -> bool:
        """Whether the headers of a request let it in: `Authorization: Bearer TOKEN`, or the session's cookie."""
        kind, _, given = authorization.partition(" ")
        return not self.needed or (kind.lower() == "bearer" and self.is_token(given)) or self.is_session(cookie)

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "replace"), "sha256").hexdigest()
