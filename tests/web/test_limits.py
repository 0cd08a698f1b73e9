"""Hostile uploads each get a clear refusal, nothing touches the disk, and the server lives."""

import gc
import io
import socket
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import httpx

Png = Callable[..., bytes]
Serve = Callable[..., str]
MIB = 1 << 20


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width: int, height: int) -> bytes:
    """A valid PNG of zeros, small on the wire."""
    rows = zlib.compressobj(9)
    row = bytes(1 + width)
    data = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def lives(client: httpx.Client, data: bytes) -> bool:
    return client.post("/api/search", files={"files": data}).status_code == 200


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(client: httpx.Client, png: Png) -> None:
    bomb = huge_png(20_000, 20_000)
    assert len(bomb) < MIB
    reply = client.post("/api/search", files={"files": ("bomb.png", bomb)})
    assert reply.status_code == 422
    assert "20,000 x 20,000 pixels, more than 64,000,000" in reply.json()["error"]
    assert lives(client, png(200))


def test_all_views_together_have_a_limit_of_pixels(serve: Serve, png: Png) -> None:
    with httpx.Client(base_url=serve(limits={"pixels": 3 * 32 * 32})) as client:
        assert client.post("/api/search", files=[("files", png(9, mark=n)) for n in range(3)]).status_code == 200
        reply = client.post("/api/search", files=[("files", png(9, mark=n)) for n in range(4)])
        assert (reply.status_code, "pixels together" in reply.json()["error"]) == (413, True)


def test_ten_thousand_files_are_refused(client: httpx.Client, png: Png) -> None:
    reply = client.post("/api/search", files=[("files", (f"{n}.png", b"x")) for n in range(10_000)])
    assert (reply.status_code, reply.json()["error"]) == (
        413, "at most 20 radiographs of one study can be sent at once",
    )  # fmt: skip
    assert lives(client, png(200))


def test_ten_thousand_fields_are_refused(client: httpx.Client, png: Png) -> None:
    boundary = b"b"
    part = b'--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n1\r\n'
    body = part * 10_000 + b"--b--\r\n"
    kind = {"content-type": f"multipart/form-data; boundary={boundary.decode()}"}
    assert client.post("/api/search", content=body, headers=kind).status_code == 400
    long = b'--b\r\nContent-Disposition: form-data; name="patient"\r\n\r\n' + b"x" * MIB + b"\r\n--b--\r\n"
    assert client.post("/api/search", content=long, headers=kind).status_code == 400
    header = b"--b\r\nContent-Disposition: form-data; name=" + b"x" * MIB + b"\r\n\r\n\r\n--b--\r\n"
    assert client.post("/api/search", content=header, headers=kind).status_code == 400
    assert lives(client, png(200))


def test_a_form_without_its_end_is_refused_whole(client: httpx.Client, png: Png) -> None:
    file = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + png(200)
    kind = {"content-type": "multipart/form-data; boundary=b"}
    for end in (b"\r\n--b--\r\n", b"\r\n--b--"):
        assert client.post("/api/search", content=file + b"\r\n" + file + end, headers=kind).status_code == 200
    for short in (file, file + b"\r\n" + file[:-9], file + b"\r\n--b", file + b"\r\n--b\r\n", b""):
        reply = client.post("/api/search", content=short, headers=kind)
        assert (reply.status_code, reply.json()["error"]) == (400, "the form cannot be read: its end is missing")
    gc.collect()  # a file that was left open would be a warning


def test_a_body_has_a_limit_with_and_without_a_length(serve: Serve, png: Png) -> None:
    with httpx.Client(base_url=serve(limits={"body": MIB})) as client:
        reply = client.post("/api/search", files={"files": bytes(MIB + 1)})
        assert (reply.status_code, "more than 1 MiB" in reply.json()["error"]) == (413, True)

        def unending() -> Iterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
            for _ in range(64):
                yield bytes(MIB // 8)

        kind = {"content-type": "multipart/form-data; boundary=b"}
        chunked = client.post("/api/search", content=unending(), headers=kind)
        assert (chunked.status_code, "more than 1 MiB" in chunked.json()["error"]) == (413, True)
        assert lives(client, png(200))


def test_a_body_of_another_form_has_it_too(serve: Serve) -> None:
    with httpx.Client(base_url=serve(limits={"body": 1000}, token="correct horse battery")) as client:
        kind = {"content-type": "application/x-www-form-urlencoded"}
        assert client.post("/login", content=(b"x" * 500 for _ in range(9)), headers=kind).status_code == 413
        assert client.post("/login", data={"token": "x" * 2000}).status_code == 413


def test_polyglots_are_read_as_what_they_are_or_not_at_all(client: httpx.Client, png: Png) -> None:
    page = b"<script>alert(1)</script>"
    good = png(200)
    tail = client.post("/api/search", files={"files": ("a.html", good + page)}, data={"heatmap": "true"})
    assert tail.status_code == 200  # a PNG with something behind it: what is given back is a new picture
    image = client.get(tail.json()["remembered"]["study"] + "/views/1/image")
    assert (image.status_code, image.headers["content-type"]) == (200, "image/png")
    assert page not in image.content
    for data in (page + good, b"GIF89a" + page, b"%PDF-1.4\n" + good, b"PK\x03\x04" + good, b"BM" + bytes(60)):
        assert client.post("/api/search", files={"files": ("a.png", data)}).status_code == 422
    assert lives(client, good)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system.ini", "system.ini"),
        ("/etc/shadow", "shadow"),
        ("..", "radiograph 1"),
        ("a\u202egnp.exe", "a\ufffdgnp.exe"),
        ("x" * 500 + ".png", "x" * 97 + "..."),
    ],
)
def test_a_files_name_is_only_something_to_show(client: httpx.Client, png: Png, name: str, shown: str) -> None:
    reply = client.post("/api/search", files={"files": (name, png(200))})
    assert reply.json()["query"]["files"] == [shown]


def test_a_files_name_longer_than_a_parts_header_may_be(client: httpx.Client, png: Png) -> None:
    reply = client.post("/api/search", files={"files": ("x" * 5000 + ".png", png(200))})
    assert (reply.status_code, reply.json()["type"]) == (400, "urn:mura-search:problem:damaged-form")


def test_static_files_do_not_lead_out(client: httpx.Client) -> None:
    address = client.base_url.host, client.base_url.port
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/",
    ):
        with socket.create_connection(address, timeout=5) as raw:
            raw.sendall(f"GET /static/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert b" 404 " in raw.makefile("rb").readline()


def test_uploads_never_touch_the_disk(serve: Serve, png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_named: Any) -> io.BytesIO:
        raise AssertionError("a file was made")

    for name in ("TemporaryFile", "NamedTemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    with httpx.Client(base_url=serve(), timeout=30) as client:
        large = png(200) + bytes(5 * MIB)  # far more than Starlette keeps in memory by itself
        assert client.post("/api/search", files={"files": large}).status_code == 200
        assert lives(client, png(200))


def read_all(raw: socket.socket) -> bytes:
    try:
        return raw.makefile("rb").read()
    except OSError:
        return b""


def test_half_open_connections_end_and_hinder_nobody(serve: Serve, png: Png) -> None:
    with httpx.Client(base_url=serve(limits={"head": 1.2, "upload": 1.4}), timeout=20) as client:
        address = client.base_url.host, client.base_url.port
        silent = [socket.create_connection(address, timeout=10) for _ in range(40)]
        try:
            for number, raw in enumerate(silent[:20]):
                raw.sendall(b"GET / HTTP/1.1\r\nHost: localh"[: 5 + number])
            slow = socket.create_connection(address, timeout=10)
            slow.sendall(
                b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                b"Content-Length: 1000\r\n\r\n--b\r\n"
            )
            assert lives(client, png(200))
            started = time.perf_counter()
            dripped = 0
            while time.perf_counter() - started < 2.4:  # a byte now and then buys no more time
                try:
                    silent[0].sendall(b"a")
                    dripped += 1
                except OSError:
                    break
                time.sleep(0.1)
            assert [read_all(raw) for raw in silent] == [b""] * 40
            assert 0 < dripped < 24
            answer = read_all(slow)
            assert b" 408 " in answer.splitlines()[0]
            slow.close()
            assert lives(client, png(200))
        finally:
            for raw in silent:
                raw.close()


def test_a_second_request_may_be_left_half_open_either(serve: Serve) -> None:
    base = httpx.URL(serve(limits={"head": 0.5}))
    with socket.create_connection((base.host, base.port), timeout=5) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he")
        assert read_all(raw).count(b"HTTP/1.1 200") == 1  # and is closed within those five seconds


def test_a_full_server_says_so_instead_of_queueing(serve: Serve, png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.encoding.encoder import Encoder

    going = threading.Event()
    encode = Encoder.encode_prepared

    def wait(self: Encoder, pictures: Any) -> Any:
        assert going.wait(20)
        return encode(self, pictures)

    monkeypatch.setattr(Encoder, "encode_prepared", wait)
    base = serve(limits={"requests": 4})

    def ask(number: int) -> httpx.Response:
        return httpx.post(f"{base}/api/search", files={"files": png(200, mark=number)}, timeout=30)

    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ask, number) for number in range(12)]
        until = time.monotonic() + 15
        while sum(one.done() for one in asked) < 8 and time.monotonic() < until:
            time.sleep(0.05)
        assert httpx.get(f"{base}/healthz").status_code == 200
        going.set()
        replies = [one.result() for one in asked]
    refused = [reply for reply in replies if reply.status_code == 503]
    assert len(refused) == 8
    assert {reply.headers["retry-after"] for reply in refused} == {"1"}
    assert [reply.status_code for reply in replies].count(200) == 4
    assert httpx.post(f"{base}/api/search", files={"files": png(200)}).status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(serve: Serve, png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.encoding.encoder import Encoder

    encode = Encoder.encode_prepared

    def wait(self: Encoder, pictures: Any) -> Any:
        time.sleep(1)
        return encode(self, pictures)

    monkeypatch.setattr(Encoder, "encode_prepared", wait)
    with httpx.Client(base_url=serve(limits={"answer": 0.3}), timeout=20) as client:
        reply = client.post("/api/search", files={"files": png(200)})
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
        assert client.get("/metrics").text.count("mura_search_requests_at_work 0.0") == 1
