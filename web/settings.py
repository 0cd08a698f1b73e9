"""How a server is started: where it listens, who may ask, and its limits."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from retrieval.images.radiograph import MAX_PIXELS
from web.errors import ServerError

__all__ = ["TOKEN_VARIABLE", "Limits", "Settings", "is_loopback", "read_token"]

TOKEN_VARIABLE = "MURA_SEARCH_TOKEN"
SHORTEST_TOKEN = 16  # characters, too many to guess


class Limits(BaseModel):
    """How much the server takes before it answers 413, 408 or 503. Sizes are in bytes, times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body: int = 64 << 20  # of one request
    views: int = 20  # of one study
    pixels: int = MAX_PIXELS  # of all views of a study together
    memory: int = 1 << 30  # of all requests at work together
    requests: int = 64  # at work at once
    pictures: int = 128  # that wait for the encoder
    batch: int = 2  # pictures encoded together: more are no faster without a GPU, and take 45 MB each
    gather: float = 0.004  # time in which the pictures of a batch arrive
    wait: float = 5  # for a turn while others are at work; beyond it, or if it is expected, a request is refused
    decode: float = 10  # of processor time to decode one file
    head: float = 10  # for the TLS handshake, and for a request's head
    write: float = 10  # for a client to take 128 KiB of a reply
    upload: float = 60  # for its body
    answer: float = 60  # for its answer
    remembered_bytes: int = 256 << 20  # of all remembered studies together
    remembered_seconds: float = 900  # that a study is remembered
    connections: int = 512


class Settings(BaseModel):
    """Where to listen and who may ask. Raises ServerError for settings that are unsafe or cannot work.

    Without a `token` everybody who reaches the server may ask, so off loopback it needs a token or `insecure`. `names`
    are further host names that requests may use. `origins`: sites whose pages may ask the API, with the token. `files`:
    whether full pictures are read from the collection. `worklist`: a folder of studies to rank for reading.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = Field(default=None, repr=False)
    filing_token: str | None = Field(default=None, repr=False)
    allow_filing: bool = False
    insecure: bool = False
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    files: bool = False
    worklist: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    key_password: str | None = Field(default=None, repr=False)
    log: Literal["text", "json"] = "text"
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise ServerError(
                f"the token has {len(self.token)} characters; take at least {SHORTEST_TOKEN}, for example the output "
                "of `openssl rand -hex 16`"
            )
        if self.token is None and not self.insecure and not self.loopback:
            raise ServerError(
                f"other machines can reach {self.host}, so a token is needed: give --token-file FILE or set "
                f"{TOKEN_VARIABLE}; with --insecure everybody who reaches the server may ask"
            )
        if self.filing_token is not None and len(self.filing_token) < SHORTEST_TOKEN:
            raise ServerError(
                f"the filing token has {len(self.filing_token)} characters; take at least {SHORTEST_TOKEN}"
            )
        if self.filing_token is not None and self.filing_token == self.token:
            raise ServerError("the filing token is that of all who may ask; take another one")
        if self.allow_filing and not self.loopback:
            raise ServerError("--allow-filing is only for this machine; give --filing-token-file instead")
        if self.key is not None and self.certificate is None:
            raise ServerError("--key belongs to a certificate: name it with --certificate")
        for origin in self.origins:
            if not re.fullmatch(r"https?://[^/?#@\s*]+", origin):
                raise ServerError(
                    f"{origin} is not an origin; give scheme and host, such as https://viewer.example.org"
                )
        if self.worklist is not None and not self.worklist.is_dir():
            raise ServerError(f"{self.worklist} is not a folder; name the folder with the worklist's studies")
        for file in (self.certificate, self.key):
            if file is not None and not os.access(file, os.R_OK):
                raise ServerError(f"{file} cannot be read; check its name and permissions")
        return self

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def tls(self) -> bool:
        return self.certificate is not None


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(file: Path | None) -> str | None:
    """The token from a file, else from the environment; None without either. Raises ServerError."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServerError(f"the token in {file} cannot be read; check its name and permissions") from error
    if not token:
        raise ServerError(f"{file} has no token; write one line into it, such as the output of `openssl rand -hex 16`")
    return token
