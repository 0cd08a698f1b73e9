"""Uploads that end before their answer: the client goes, the time is over, the machine is busy, or the server stops."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import httpx

from retrieval.errors import RadiographError
from retrieval.images.decoder_process import DecoderPool
from retrieval.images.radiograph import Radiograph, decode_frames
from tests.coroutines import run_alone
from web.errors import Refused
from web.service.admission import Admission

Serve = Callable[..., str]
Png = Callable[..., bytes]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Decoding that ends only if it is abandoned, for files named slow.png; counts those that begin and end."""
    state: dict[str, Any] = {"begun": 0, "ended": 0}

    def decode(
        _pool: DecoderPool, data: bytes, name: str, most: int, *, abandoned: threading.Event
    ) -> list[Radiograph]:
        if name == "slow.png":
            state["begun"] += 1
            assert abandoned.wait(30)
            state["ended"] += 1
            raise RadiographError("abandoned")
        return decode_frames(data, name, most)

    monkeypatch.setattr(DecoderPool, "decode", decode)
    return state


def until(condition: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def figures(client: httpx.Client) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def nothing_is_left(client: httpx.Client) -> bool:
    now = figures(client)
    names = ("requests_at_work", "work_bytes", "studies_remembered", "pictures_waiting")
    return not any(now[f"mura_search_{name}"] for name in names)


def test_a_client_that_goes_leaves_nothing_and_one_line(
    serve: Serve, png: Png, slow: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), httpx.Client(base_url=serve()) as client:
        body = (
            b'--b\r\nContent-Disposition: form-data; name="heatmap"\r\n\r\ntrue\r\n'
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="slow.png"\r\n\r\n' + png(200)
        ) + b"\r\n--b--\r\n"
        with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
            raw.sendall(
                b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )
            until(lambda: slow["begun"])
        until(lambda: slow["ended"])
        until(lambda: "POST /api/search 499" in caplog.text)
        until(lambda: nothing_is_left(client))
    lines = [line for line in caplog.messages if "/api/search" in line]
    assert len(lines) == 1
    assert "Traceback" not in caplog.text


def test_a_client_that_goes_in_the_middle_of_its_upload(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), httpx.Client(base_url=serve()) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as raw:
            raw.sendall(
                b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                b"Content-Length: 100000\r\n\r\n--b\r\n"
            )
        until(lambda: "POST /api/search 499" in caplog.text)
        until(lambda: nothing_is_left(client))
    assert "Traceback" not in caplog.text


def test_an_upload_at_its_time_limit_ends(
    serve: Serve, png: Png, slow: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), httpx.Client(base_url=serve(limits={"answer": 0.5}), timeout=20) as client:
        reply = client.post("/api/search", files={"files": ("slow.png", png(200))}, data={"heatmap": "true"})
        assert (reply.status_code, "longer than" in reply.json()["error"]) == (503, True)
        until(lambda: slow["ended"])
        until(lambda: nothing_is_left(client))
    assert len([line for line in caplog.messages if "/api/search 503" in line]) == 1


def test_an_upload_that_would_wait_too_long_is_refused_early(serve: Serve, png: Png, slow: dict[str, Any]) -> None:
    """Every decoder has a file that takes long; the limit for the answer is much later."""
    readers = max(2, os.cpu_count() or 2)
    base = serve(limits={"wait": 0.5, "answer": 8})

    def ask() -> None:
        httpx.post(f"{base}/api/search", files={"files": ("slow.png", png(200))}, timeout=30)

    threads = [threading.Thread(target=ask) for _ in range(readers)]
    for thread in threads:
        thread.start()
    until(lambda: slow["begun"] == readers)
    started = time.monotonic()
    reply = httpx.post(f"{base}/api/search", files={"files": png(200)}, timeout=30)
    assert time.monotonic() - started < 5
    assert (reply.status_code, int(reply.headers["retry-after"]) >= 1) == (503, True)
    assert httpx.get(f"{base}/api/index", timeout=5).status_code == 200, "only decoding waits"
    for thread in threads:
        thread.join()


def test_requests_are_refused_by_the_time_that_they_would_take() -> None:
    now = 0.0
    admission = Admission(64, 1000, wait=5, clock=lambda: now)
    with admission.enter(), admission.work():
        now += 2.0  # one request after another takes two seconds
    at_work = [admission.work() for _ in range(4)]
    for work in at_work:
        work.__enter__()
    with pytest.raises(Refused) as refused, admission.enter():
        pass
    assert (refused.value.status, refused.value.retry) == (503, 5)  # five times two seconds, less the five
    now += 60.0  # what was measured long ago is no longer believed
    with admission.enter(), admission.work():
        pass
    for work in at_work:
        work.__exit__(None, None, None)


def test_few_requests_are_never_refused_for_their_time() -> None:
    async def run() -> None:
        admission = Admission(64, 1000, wait=0.01)
        with admission.work():
            await asyncio.sleep(0.05)
        with admission.work(), admission.work(), admission.work(), admission.work():
            pass

    run_alone(run())


def test_sigterm_ends_it_while_a_decoder_does_not_return(place: Path, png: Png, tmp_path: Path) -> None:
    """In processes, so that no thread waits for the decoder."""
    endless = "import time\n\ndef main(_socket, _memory):\n    while True:\n        time.sleep(1)\n"
    (tmp_path / "endless.py").write_text(endless)
    program = (
        "import sys; from retrieval.images import decoder_process as d; "
        "d._START = d._START.replace('retrieval.images.decoder_process', 'endless'); "
        f"sys.path.insert(1, {str(tmp_path)!r}); from cli.main import main; main()"
    )
    command = [sys.executable, "-c", program, "serve", "--index", str(place), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr
        base = process.stderr.readline().split()[4]
        threads = [
            threading.Thread(target=ask_in_vain, args=(f"{base}api/search", png(200, mark=number)))
            for number in range(3)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=40)[1]
        for thread in threads:
            thread.join()
    assert process.returncode == 0
    assert "Traceback" not in errors


def ask_in_vain(url: str, data: bytes) -> None:
    with contextlib.suppress(httpx.TransportError):
        assert httpx.post(url, files={"files": data}, timeout=60).status_code == 503
