"""Clients that send nothing, read nothing or come in masses hold neither connections nor memory, nor fill the log."""

import contextlib
import logging
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import httpx

from retrieval.errors import RateLimitedLog

Serve = Callable[..., str]
Png = Callable[..., bytes]


def connect(base: str, receive: int = 0) -> socket.socket:
    url = httpx.URL(base)
    raw = socket.socket()
    if receive:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    raw.settimeout(20)
    raw.connect((url.host, url.port))
    return raw


@pytest.fixture
def connections() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for raw in opened:
        raw.close()


def is_reset(raw: socket.socket, seconds: float) -> bool:
    """Whether the server stops a connection within some seconds, without reading from it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        time.sleep(0.05)
    return False


def test_replies_come_without_delay(serve: Serve) -> None:
    """With Nagle's algorithm, each reply on a kept connection waits 40 ms for an acknowledgement."""
    with httpx.Client(base_url=serve()) as client:
        client.get("/healthz")
        started = time.perf_counter()
        for _ in range(50):
            assert client.get("/static/page.js").status_code == 200
        assert time.perf_counter() - started < 50 * 0.03


def test_a_client_that_does_not_read_is_ended(
    serve: Serve, connections: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """Requests in a row, whose replies nobody reads."""
    base = serve(limits={"write": 0.5})
    with caplog.at_level(logging.INFO):
        raw = connect(base, receive=2048)
        connections.append(raw)
        raw.settimeout(1)
        with contextlib.suppress(OSError):
            for _ in range(3000):
                raw.sendall(b"GET /static/page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        assert is_reset(raw, 10)
        assert httpx.get(f"{base}/healthz").status_code == 200
    assert "Traceback" not in caplog.text
    assert len([record for record in caplog.records if record.name.startswith(("mura", "uvicorn"))]) < 10


def test_little_is_kept_for_a_client_that_does_not_read(serve: Serve, connections: list[socket.socket]) -> None:
    """Otherwise the server answers hundreds of its requests before it waits, and has no time for others."""
    base = serve(limits={"write": 20})
    raw = connect(base, receive=2048)
    connections.append(raw)
    raw.sendall(b"GET /static/page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 700)
    script = len(httpx.get(f"{base}/static/page.js").content)
    before, answered = -1, 0
    while answered != before:
        time.sleep(0.5)
        before, answered = answered, _answered(httpx.get(f"{base}/metrics").text)
    assert 0 < answered * script < 2**20


def _answered(metrics: str) -> int:
    """How many requests for the page's own files were answered."""
    counts = re.findall(r'^mura_search_requests_total\{.*"/static.* ([\d.]+)$', metrics, re.MULTILINE)
    return int(sum(map(float, counts)))


def test_a_client_that_reads_slowly_gets_everything(serve: Serve) -> None:
    base = serve(limits={"write": 1.0, "head": 0.5})
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8)
    with httpx.Client(base_url=base, timeout=20) as client:
        sent = {"files": cv2.imencode(".png", noise)[1].tobytes()}
        study = client.post("/api/search", files=sent, data={"heatmap": "true"}).json()["remembered"]["study"]
        whole = client.get(f"{study}/views/1/image").content
    assert len(whole) > 2_000_000
    with connect(base, receive=16384) as raw:
        request = f"GET {study}/views/1/image HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        raw.sendall(request.encode())
        received = bytearray()
        while piece := raw.recv(65536):
            received += piece
            time.sleep(len(piece) / 600_000)  # in all longer than both limits
    assert received.endswith(whole)


def test_silent_connections_make_room_and_write_two_lines(
    serve: Serve, connections: list[socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    base = serve(limits={"connections": 20})
    with caplog.at_level(logging.INFO, "mura-search"):
        connections += [connect(base) for _ in range(60)]
        started = time.perf_counter()
        assert httpx.get(f"{base}/healthz", timeout=20).status_code == 200
        assert time.perf_counter() - started < 8, "the limit for a request's head alone would be 10 s"
    crowded = [record for record in caplog.messages if "connections are open" in record]
    assert 1 <= len(crowded) <= 2


def test_a_request_at_work_is_not_ended_for_another_client(serve: Serve, png: Png) -> None:
    base = serve(limits={"connections": 3, "head": 0.4})
    with connect(base) as slow:
        body = png(200)
        head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        length = len(head) + len(body) + len(b"\r\n--b--\r\n")
        slow.sendall(
            b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % length + head
        )
        silent = [connect(base) for _ in range(8)]
        time.sleep(1)
        slow.sendall(body + b"\r\n--b--\r\n")
        assert b" 200 " in slow.makefile("rb").readline()
        for raw in silent:
            raw.close()


def test_a_tls_handshake_has_a_time_limit(serve: Serve, connections: list[socket.socket], tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    base = serve(certificate=certificate, key=key, limits={"head": 0.5, "connections": 10})
    connections += [connect(base) for _ in range(15)]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with httpx.Client(base_url=base, verify=context, timeout=10) as client:
        assert client.get("/healthz").status_code == 200
        for raw in connections:
            assert raw.recv(1) == b""
        assert client.get("/healthz").status_code == 200


def test_what_happens_often_has_one_line_and_a_count() -> None:
    now = 0.0
    lines: list[str] = []
    log = RateLimitedLog(lines.append, clock=lambda: now)
    for _ in range(1200):
        log.add("refused")
    log.add("another")
    assert lines == ["refused", "another"]
    now = 61.0
    log.flush()
    log.flush()
    assert lines[2:] == ["refused (1,199 times more)"]
    now = 122.0
    log.flush()
    log.add("refused")
    assert lines[3:] == ["refused"]
