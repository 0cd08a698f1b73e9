"""The address of a Milvus collection, and how to reach it."""

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from index.errors import IndexFailure

__all__ = ["MilvusSettings"]


@dataclass(frozen=True, slots=True)
class MilvusSettings:
    """The address of a collection, and how to reach it.

    uri: `http://host:19530`, `https://...`, or `./file.db` for Milvus Lite, which one process at a time opens. token:
    `user:password` or an API key; no message shows it. TLS needs https. server_pem_path is the certificate to trust,
    by default the system's authorities; server_name is the name in it if that is not the host's. If the server asks for
    a client's certificate, give ca_pem_path, client_pem_path and client_key_path and no server_pem_path.

    timeout: seconds for a request. patience: seconds of further attempts while Milvus is unavailable, slow or limits
    the rate. consistency: "Strong" finds all that any client wrote before the search, and waits at least 0.2 s for the
    server's clock. "Session" finds what this process wrote, and what others wrote before the store was opened; it waits
    only after a write. "Bounded" and "Eventually" may find what this process wrote some seconds late.
    """

    uri: str
    collection: str = "mura_search"
    token: str = field(default="", repr=False)
    database: str = ""
    server_pem_path: str = ""
    server_name: str = ""
    ca_pem_path: str = ""
    client_pem_path: str = ""
    client_key_path: str = ""
    timeout: float = 30.0
    patience: float = 60.0
    consistency: str = "Strong"

    def __post_init__(self) -> None:
        """Raise IndexFailure for invalid settings."""
        try:
            parts = urlsplit(self.uri)
            _ = parts.port
        except ValueError:
            parts = urlsplit("")
        if "@" in parts.netloc:
            raise IndexFailure("the address of Milvus must not hold a password; give user:password as the token")
        if not (self.local or (parts.scheme in {"http", "https"} and parts.hostname)):
            raise IndexFailure(f"{self.uri!r} is not an address of Milvus, such as http://HOST:19530 or FILE.db")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", self.collection):
            raise IndexFailure(f"{self.collection!r} cannot name a collection; use up to 255 letters, digits and _")
        if self.consistency not in {"Strong", "Session", "Bounded", "Eventually"}:
            raise IndexFailure(f"consistency is Strong, Session, Bounded or Eventually, not {self.consistency}")
        if self.tls and parts.scheme != "https":
            raise IndexFailure(f"certificates need an address that begins with https, unlike {self.uri}")
        client = [self.ca_pem_path, self.client_pem_path, self.client_key_path]
        if any(client) and (self.server_pem_path or not all(client)):
            raise IndexFailure("a client's certificate needs its key and a CA's certificate, and no server certificate")
        for path in (self.server_pem_path, *client):
            if path and not Path(path).is_file():
                raise IndexFailure(f"{path} is not a file; give a certificate or a key for Milvus")

    @property
    def local(self) -> bool:
        """Whether this is a file of Milvus Lite."""
        return self.uri.endswith(".db") and "://" not in self.uri

    @property
    def tls(self) -> dict[str, str]:
        """The options of pymilvus for certificates."""
        names = ("server_pem_path", "server_name", "ca_pem_path", "client_pem_path", "client_key_path")
        return {name: value for name in names if (value := getattr(self, name))}

    def __str__(self) -> str:
        return f"{self.collection} at {self.uri}"

    def discreet(self, text: str) -> str:
        """The text without the token, in plain text or Base64."""
        for secret in (self.token, base64.b64encode(self.token.encode()).decode()):
            text = text.replace(secret, "***") if secret else text
        return text
