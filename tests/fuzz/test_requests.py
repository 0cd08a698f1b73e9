"""Mutated HTTP requests: each gets a status below 500 or a closed connection, and the server lives on."""

import contextlib
import gc
import itertools
import logging
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import httpx

from retrieval.indexing.build import build_index
from tests.conftest import write_collection
from tests.repetitions import repetitions
from tests.web.conftest import STUDIES, running

TOKEN = "correct horse battery staple"
PNG = cv2.imencode(".png", np.full((32, 32), 200, np.uint8))[1].tobytes()
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n3\r\n'
    b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    + PNG
    + b"\r\n--b--\r\n"
)
HEAD = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
SEEDS = (
    b"POST /api/search HTTP/1.1\r\n" + HEAD
    + b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n" % len(FORM) + FORM,
    b"POST /search HTTP/1.1\r\n" + HEAD
    + b"Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(FORM)
    + FORM + b"\r\n0\r\n\r\n",
    b"GET /api/cases/s1-1.png/image?small=true HTTP/1.1\r\n" + HEAD + b"Accept: */*\r\n\r\n",
    b"GET /api/studies/abc/views/1/likeness?case=s1-1.png&where=case HTTP/1.1\r\n" + HEAD + b"\r\n",
    b"GET / HTTP/1.1\r\n" + HEAD + b"Cookie: mura-search-session=1.2.3\r\nAccept: text/html\r\nOrigin: null\r\n\r\n",
    b"GET /static/page.js HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-10,20-\r\nIf-None-Match: x\r\n\r\n",
    b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nabcde",
    b"DELETE /api/studies/x HTTP/1.1\r\n" + HEAD + b"Sec-Fetch-Site: cross-site\r\nConnection: keep-alive\r\n\r\n",
)  # fmt: skip
PIECES = (
    b"\r\n", b"\r\n\r\n", b"\0", b"\xff\xfe", b"%00", b"%2e%2e/", b"Content-Length: -1\r\n", b"Content-Length: 99\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Host: evil\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    b"A" * 70_000, b"--b\r\n", b'"', b"; boundary=", b"GET / HTTP/1.1\r\n", b"\xc3\x28", b"9" * 40,
)  # fmt: skip


def mutated(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(0, 4)):
        place = rng.randrange(len(data) + 1)
        kind = rng.random()
        if kind < 0.3:
            data[place : place + 1] = bytes([rng.randrange(256)])
        elif kind < 0.5:
            del data[place : place + rng.randint(1, 60)]
        elif kind < 0.6:
            data[place:place] = data[: rng.randint(1, 200)]
        elif kind < 0.7:
            del data[place:]
        else:
            data[place:place] = rng.choice(PIECES)
    return bytes(data)


@pytest.fixture
def server(model: Path, tmp_path: Path) -> Iterator[str]:
    build_index(write_collection(tmp_path / "data", STUDIES), tmp_path / "index", model=model)
    limits = {"head": 0.3, "upload": 0.3, "connections": 40, "body": 1 << 20}
    with running(tmp_path / "index", None, limits, {"token": TOKEN}) as base:
        yield base


def statuses(base: str, data: bytes) -> list[int]:
    """The statuses of all replies on one connection, which ends within seconds."""
    url = httpx.URL(base)
    with socket.create_connection((url.host, url.port), timeout=10) as raw:
        received = b""
        with contextlib.suppress(ConnectionError):
            raw.sendall(data)
        with contextlib.suppress(ConnectionError):
            while piece := raw.recv(65536):
                received += piece
    lines = [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    return [int(line.split()[1]) for line in lines]


@pytest.mark.slow
def test_no_mutated_request_breaks_the_server(server: str, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(8)
    seen: set[int] = set()
    with caplog.at_level(logging.INFO):
        requests = [mutated(rng) for _ in range(repetitions(150, 3000))]
        with ThreadPoolExecutor(8) as pool:
            for data, found in zip(requests, pool.map(statuses, itertools.repeat(server), requests), strict=True):
                assert not [status for status in found if status >= 500 and status != 503], data
                seen.update(found)
        for data in SEEDS:  # whole ones are answered as before
            assert statuses(server, data)
    assert {200, 400, 404} <= seen
    assert "Traceback" not in caplog.text
    end = time.monotonic() + 10
    with httpx.Client(base_url=server, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        while not {"mura_search_requests_at_work 0.0", "mura_search_work_bytes 0.0"} <= set(
            client.get("/metrics").text.splitlines()
        ):
            assert time.monotonic() < end
            time.sleep(0.1)
    gc.collect()  # a file that a request left open would be a warning
