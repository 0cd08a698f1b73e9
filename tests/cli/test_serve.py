"""`mura-search serve`, as a process that is asked and then interrupted."""

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

ROOT = Path(__file__).parents[2]
Run = Callable[..., Result]
Square = Callable[..., Path]


@pytest.fixture
def _extra() -> None:
    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        pytest.importorskip(package, reason="the extra web is not installed")


def start(*arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "from cli.main import main; main()", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def stop(process: "subprocess.Popen[str]") -> str:
    """Interrupt it; gives what it wrote to stderr since."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    return errors


@pytest.mark.usefixtures("_extra")
def test_it_says_where_the_page_is_answers_and_ends_quietly(place: Path, square: Square) -> None:
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    process = start("serve", "--index", str(place), "--port", "0")
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.fullmatch(r"The page is at (http://127\.0\.0\.1:\d+/) \(stop with Ctrl\+C\)\n", line)
    assert found, line
    with urllib.request.urlopen(found[1], timeout=10) as reply:
        assert b"Ask about a radiograph" in reply.read()
    sent = {"files": square("query.png", 200).read_bytes()}
    page = httpx.post(f"{found[1]}search", files=sent, data={"heatmap": "true"}, follow_redirects=True)
    report = re.findall(r'href="/(studies/[^"?]+/report)', page.text)
    assert "<title>Answer for upload</title>" in httpx.get(f"{found[1]}{report[0]}", timeout=20).text
    errors = stop(process)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "GET / 200" in errors


@pytest.mark.usefixtures("_extra")
def test_the_log_goes_on_while_a_cut_jpeg_silences_stderr() -> None:
    program = """
import logging, os
from retrieval.images.decoder_messages import messages_of_opencv
from web.server import _log_to_stderr
_log_to_stderr()
with messages_of_opencv():
    os.write(2, b"Premature end of JPEG file")
    logging.getLogger("mura-search").info("GET / 200")
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} INFO GET / 200\n", process.stderr)


@pytest.mark.usefixtures("_extra")
def test_what_keeps_it_from_starting_is_one_sentence(run: Run, place: Path, tmp_path: Path) -> None:
    def refused(*options: str | Path) -> str:
        result = run("serve", "--index", place, *options)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        return result.stderr

    assert "so a token is needed: give --token-file FILE" in refused("--host", "0.0.0.0")
    short = tmp_path / "token"
    short.write_text("secret")
    assert "take at least 16" in refused("--token-file", short)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "Address already in use; name another" in refused("--port", str(taken.getsockname()[1]))
    unknown = run("serve", "--index", place, "--host", "nowhere.invalid", "--insecure").stderr.splitlines()
    assert "without a token" in unknown[0]
    assert "name another with --host" in unknown[1]
    assert "no index at" in run("serve", "--index", tmp_path / "none", "--port", "0").stderr


def test_without_the_extra_it_says_what_to_install(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "web"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = run("serve", "--index", place)
    assert result.exit_code == 1
    assert result.stderr == 'error: uvicorn is not installed; run: pip install "mura-search[web]"\n'
