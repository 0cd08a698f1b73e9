"""How a server was started: where it listens, who may ask, and how much it takes."""

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from retrieval.images.radiograph import MAX_PIXELS
from web.errors import ServerError

__all__ = ["TOKEN_VARIABLE", "Limits", "Settings", "read_token"]

TOKEN_VARIABLE = "MURA_SEARCH_TOKEN"
SHORTEST_TOKEN = 16  # characters: what nobody guesses in a lifetime


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken before an answer is 413, 408 or 503. Bytes are bytes, times are seconds.

    `body` is a whole request, `pixels` all its views together, `memory` all requests at work together. `requests` may
    be at work at once, `pictures` wait for the encoder, of which `batch` are encoded together that came within
    `gather`. `head`, `upload` and `answer` are the times for a request's head, its body, and its answer. Studies of
    which heatmaps were asked are remembered for `kept_time`, and only as long as all of them fit into `kept`.
    """

    body: int = 64 << 20
    views: int = 20
    pixels: int = MAX_PIXELS
    memory: int = 1 << 30
    requests: int = 64
    pictures: int = 128
    batch: int = 8
    gather: float = 0.004
    head: float = 10
    upload: float = 60
    answer: float = 60
    kept: int = 256 << 20
    kept_time: float = 900
    connections: int = 512


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen and who may ask.

    Without a `token` everybody may ask who can reach the server, so off loopback it needs one, or `insecure`. `names`
    are further host names that requests may use. `files`: whether full pictures are read from the collection.
    `worklist`: a folder of studies to rank for reading.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    insecure: bool = False
    names: tuple[str, ...] = ()
    files: bool = False
    worklist: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise ServerError(
                f"the token has {len(self.token)} characters; take at least {SHORTEST_TOKEN}, such as those that "
                "`openssl rand -hex 16` prints"
            )
        if self.token is None and not self.insecure and not self.loopback:
            raise ServerError(
                f"{self.host} can be reached by other machines, so a token is needed: give --token-file FILE or set "
                f"{TOKEN_VARIABLE}; --insecure would let everybody in who can reach it"
            )
        if self.key is not None and self.certificate is None:
            raise ServerError("--key belongs to a certificate: name it with --certificate")
        if self.worklist is not None and not self.worklist.is_dir():
            raise ServerError(f"{self.worklist} is no folder; name the folder that the worklist's studies are in")
        for file in (self.certificate, self.key):
            if file is not None and not os.access(file, os.R_OK):
                raise ServerError(f"{file} cannot be read; check its name and permissions")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def tls(self) -> bool:
        return self.certificate is not None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(file: Path | None) -> str | None:
    """The token from a file, else from the environment; None where there is neither. Raises ServerError."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"the token in {file} cannot be read; check its name and permissions") from error
    if not token:
        raise ServerError(f"{file} holds no token; put one line into it, such as `openssl rand -hex 16` prints")
    return token
