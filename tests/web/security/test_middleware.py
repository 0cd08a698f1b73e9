"""Nobody gets in who should not, and nothing about anybody gets into the log."""

import hashlib
import html
import json
import logging
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.cookies import SimpleCookie
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import httpx
from markupsafe import escape

from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index
from tests.coroutines import run_alone
from web.errors import Refused, ServerError
from web.security.session import COOKIE, LIFETIME, Sessions, WrongTokens
from web.settings import Settings, read_token

Png = Callable[..., bytes]
Serve = Callable[..., str]
TOKEN = "correct horse battery staple"
PAGE = {"accept": "text/html"}
PRIVATE = (
    "/",
    "/api/index",
    "/api/cases/s1-1.png",
    "/api/cases/s1-1.png/image",
    "/metrics",
    "/openapi.json",
    "/nowhere",
)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_off_loopback_it_does_not_start_without_a_token(host: str) -> None:
    with pytest.raises(ServerError, match=r"a token is needed: give --token-file FILE or set MURA_SEARCH_TOKEN"):
        Settings(host=host)
    assert Settings(host=host, insecure=True).token is None
    assert Settings(host=host, token=TOKEN).token == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_on_loopback_it_starts_without_one(host: str) -> None:
    assert Settings(host=host).loopback


def test_a_token_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ServerError, match="the token has 6 characters; take at least 16"):
        Settings(token="secret")
    assert TOKEN not in repr(Settings(token=TOKEN))


def test_where_the_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_token(None) is None
    monkeypatch.setenv("MURA_SEARCH_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    file = tmp_path / "token"
    file.write_text(f"{TOKEN} of a file\n")
    assert read_token(file) == f"{TOKEN} of a file"
    file.write_text("\n")
    with pytest.raises(ServerError, match="has no token"):
        read_token(file)
    with pytest.raises(ServerError, match="cannot be read"):
        read_token(tmp_path / "none")


def test_without_the_token_nothing_is_answered(serve: Serve, png: Png) -> None:
    with httpx.Client(base_url=serve(token=TOKEN)) as client:
        for path in PRIVATE:
            for headers in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": f"Basic {TOKEN}"},
                {"cookie": f"{COOKIE}={TOKEN}"},
                {"cookie": f"{COOKIE}={hashlib.sha256(TOKEN.encode()).hexdigest()}"},
                {"cookie": f"{COOKIE}=9999999999.00.ff"},
                {"cookie": f"{COOKIE}=;;\x7f"},
            ):
                reply = client.get(path, headers=headers)
                assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert client.get(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code == (
                404 if path == "/nowhere" else 200
            )
        assert client.post("/api/search", files={"files": png(200)}).status_code == 401
        assert client.delete("/api/studies/x").status_code == 401
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        assert client.get("/static/page.js").status_code == client.get("/static/base.css").status_code == 200


def test_the_page_logs_in_with_the_token_and_does_not_keep_it(serve: Serve) -> None:
    with httpx.Client(base_url=serve(token=TOKEN), headers=PAGE) as client:
        first = client.get("/")
        assert (first.status_code, first.headers["location"]) == (303, "/login")
        wrong = client.post("/login", data={"token": "correct horse battery stapler"})
        assert (wrong.status_code, "not the token" in wrong.text) == (401, True)
        assert "set-cookie" not in wrong.headers
        right = client.post("/login", data={"token": TOKEN})
        assert (right.status_code, right.headers["location"]) == (303, "/")
        cookie = SimpleCookie(right.headers["set-cookie"])[COOKIE]
        assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (True, "strict", "/", "")
        assert TOKEN not in cookie.value
        assert client.get("/").status_code == 200
        assert client.post("/logout").headers["location"] == "/login"
        assert client.get("/").status_code == 303


def test_a_session_ends_and_cannot_be_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(TOKEN)
    one = sessions.begin()
    assert sessions.is_session(one)
    assert not Sessions(TOKEN).is_session(one), "another process has another key"
    ends, kind, nonce, signature = one.split(".")
    later, filing = f"{int(ends) + 1}.{kind}.{nonce}.{signature}", f"{ends}.filing.{nonce}.{signature}"
    for forged in (later, filing, f"{ends}.{signature}", signature, "", "..", "\u0665.a.b.c"):
        assert not sessions.is_session(forged)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + LIFETIME + 1)
    assert not sessions.is_session(one)


def test_a_server_without_a_token_admits_everybody_and_nothing_is_its_token() -> None:
    assert run_alone(Sessions(None).admits("", "", "192.0.2.1"))
    assert not Sessions(None).is_token("")


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.5", "127.0.0.1.evil.example", "a@b"]
)
def test_a_foreign_host_name_is_refused(client: httpx.Client, host: str) -> None:
    reply = client.get("/", headers={"host": host})
    assert (reply.status_code, "name" in reply.json()["error"]) == (421, True)


def test_own_host_names_are_known(client: httpx.Client, serve: Serve) -> None:
    for host in ("localhost", "localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:8000"):
        assert client.get("/healthz", headers={"host": host}).status_code == 200
    with httpx.Client(base_url=serve(names=("reading.example",))) as named:
        assert named.get("/healthz", headers={"host": "Reading.Example:8000"}).status_code == 200


def test_a_site_that_may_ask_the_api_gets_no_page(serve: Serve) -> None:
    viewer = {"origin": "https://viewer.example", "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
    asking = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with httpx.Client(base_url=serve(token=TOKEN, origins=("https://viewer.example",))) as client:
        may = client.options("/api/search", headers=viewer | asking)
        assert (may.status_code, may.headers["access-control-allow-origin"]) == (200, "https://viewer.example")
        assert "access-control-allow-credentials" not in may.headers
        refused = client.get("/api/index", headers=viewer)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://viewer.example")
        right = viewer | {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/index", headers=right).status_code == 200
        assert client.get("/", headers=right).status_code == 403
        other = right | {"origin": "https://evil.example"}
        assert client.get("/api/index", headers=other).status_code == 403
    for origin in ("*", "viewer.example", "https://viewer.example/", "null"):
        with pytest.raises(ServerError, match="is not an origin"):
            Settings(origins=(origin,))


def test_lines_of_the_log_have_date_zone_and_level() -> None:
    from web.server import JsonFormatter

    record = logging.LogRecord("mura-search", logging.WARNING, "", 0, "%s refused", ("one",), None)
    record.fields = {"status": 503}
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["message"], line["status"]) == ("WARNING", "one refused", 503)
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_two_or_no_host_headers_are_refused(client: httpx.Client) -> None:
    address = client.base_url.host, client.base_url.port
    for request in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"):
        with socket.create_connection(address, timeout=5) as raw:
            raw.sendall(request)
            assert raw.recv(4096).split(b" ")[1] in (b"400", b"421")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"origin": "http://["},
    ],
)
def test_another_sites_page_may_not_ask(client: httpx.Client, png: Png, headers: dict[str, str]) -> None:
    for reply in (
        client.get("/api/cases/s1-1.png/image", headers=headers),
        client.post("/api/search", files={"files": png(200)}, headers=headers),
        client.post("/search", files={"files": png(200)}, headers=headers),
    ):
        assert reply.status_code == 403


def test_its_own_page_and_a_link_may(client: httpx.Client, png: Png) -> None:
    own = {"origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert client.post("/api/search", files={"files": png(200)}, headers=own).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=link).status_code == 200
    assert client.post("/search", files={"files": png(200)}, headers=link).status_code == 403


def test_behind_a_proxy_that_speaks_tls_the_page_may_ask(serve: Serve, png: Png) -> None:
    headers = {"host": "reading.example", "origin": "https://reading.example"}
    with httpx.Client(base_url=serve(names=("reading.example",))) as client:
        assert client.post("/api/search", files={"files": png(200)}, headers=headers).status_code == 200


def test_over_tls_the_cookie_is_only_for_tls(serve: Serve, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *subject]
    subprocess.run(made, check=True, capture_output=True)
    base = serve(token=TOKEN, certificate=certificate, key=key)
    assert base.startswith("https://127.0.0.1:")
    with httpx.Client(base_url=base, verify=ssl.create_default_context(cafile=str(certificate))) as client:
        reply = client.post("/login", data={"token": TOKEN}, headers=PAGE)
        assert reply.headers["strict-transport-security"] == "max-age=31536000"
        assert SimpleCookie(reply.headers["set-cookie"])[COOKIE]["secure"]
        assert client.get("/", headers=PAGE).status_code == 200
    with pytest.raises(ServerError, match="cannot be used"):
        serve(certificate=key, key=certificate)
    with pytest.raises(ServerError, match="cannot be read"):
        serve(certificate=tmp_path / "none")
    with pytest.raises(ServerError, match="belongs to a certificate"):
        serve(key=key)


def test_every_reply_tells_the_browser_what_it_may(client: httpx.Client) -> None:
    for path in ("/", "/nowhere", "/api/index", "/static/page.js", "/static/none", "/healthz"):
        headers = client.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] in ("no-store", "no-cache")
        assert "server" not in headers


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(client: httpx.Client, png: Png) -> None:
    pages = [
        client.get("/", headers=PAGE).text,
        client.post(
            "/search", files={"files": png(200)}, data={"heatmap": "true"}, headers=PAGE, follow_redirects=True
        ).text,
        client.get("/static/page.js").text,
        client.get("/static/viewer.js").text,
        client.get("/static/page.css").text,
    ]
    for text in pages:
        assert not re.findall(r"https?://|//[a-z]+\.", text)
    for text in pages[:2]:
        assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|<script(?!(?: type=\"module\")? src=\"/static/)", text)


def test_names_cannot_become_code(client: httpx.Client, png: Png) -> None:
    name = '"><img src=x onerror=alert(1)>.png'
    page = client.post(
        "/search", files=[("files", (name, png(200))), ("files", ("b.png", png(60)))], data={"heatmap": "true"},
        headers=PAGE, follow_redirects=True,
    ).text  # fmt: skip
    assert "onerror" in page
    assert "<img src=x" not in page


def test_names_in_the_index_cannot_become_code(
    serve: Serve, png: Png, squares: Callable[..., Collection], model: Path, tmp_path: Path
) -> None:
    name = "'\"><b>&amp;%2F..#?"
    build_index(squares([(name, name, 1, [200]), ("p", "s", 0, [50])], "odd"), tmp_path / "odd-index", model=model)
    with httpx.Client(base_url=serve(tmp_path / "odd-index"), headers=PAGE, follow_redirects=True) as client:
        page = client.post("/search", files={"files": png(201)}, data={"heatmap": "true"}).text
        card = html.unescape(re.findall(r'<a class="card" data-compare href="([^"]+)"', page)[0])
        image = html.unescape(re.findall(r'<img src="(/api/cases/[^"]+)"', page)[0])
        comparison = client.get(card)
        assert client.get(image).status_code == comparison.status_code == 200
        for text in (page, comparison.text):
            assert str(escape(name)) in text
            assert "><b>&" not in text
        pictures = re.findall(r' data-(?:values|picture|heat)="([^"]+)"', comparison.text)
        assert len(pictures) >= 4
        assert {client.get(html.unescape(one)).status_code for one in pictures} == {200}


def test_the_log_names_nobody(serve: Serve, png: Png, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), httpx.Client(base_url=serve(), headers=PAGE) as client:
        client.post("/api/search", files=[("files", ("Muster^Max.png", png(200)))], data={"patient": "Muster"})
        client.post("/api/search", files=[("files", ("Muster^Max.png", b"no image"))])
        client.get("/api/cases/s1-1.png?Muster")
        client.get("/api/cases/Muster/image")
        client.get("/Muster", headers={"host": "Muster.example"})
        client.get("/Muster%0a12:00:00 forged line")
        client.get("/static/Muster")
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith(("mura", "uvicorn")))
    assert "POST /api/search 200" in ours
    assert "GET /api/cases/{case:path} 200" in ours
    assert not re.search("muster|s1-1|forged|ann", ours, re.IGNORECASE)


def test_what_nobody_expected_is_a_500_without_its_words(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from web.service.service import Service

    async def fail(_self: Service) -> dict[str, object]:
        raise RuntimeError("the file of Muster")

    monkeypatch.setattr(Service, "about", fail)
    with caplog.at_level(logging.INFO), httpx.Client(base_url=serve()) as client:
        reply = client.get("/api/index")
        page = client.get("/", headers=PAGE)
        assert client.get("/healthz").status_code == 200
    assert (reply.status_code, page.status_code) == (500, 500)
    assert "Muster" not in reply.text + page.text + caplog.text
    assert "RuntimeError in" in caplog.text
    assert "fail" in caplog.text


def test_wrong_tokens_are_slowed_down_and_refused(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Also those that come side by side, and the right token is taken among them."""
    base = serve(token=TOKEN)

    def ask(number: int) -> tuple[int, int]:
        with httpx.Client(base_url=base, timeout=60) as client:
            if number % 2:
                reply = client.get("/api/index", headers={"authorization": f"Bearer wrong {number}"})
            else:
                reply = client.post("/login", data={"token": f"wrong {number}"}, headers=PAGE)
            return reply.status_code, int(reply.headers.get("retry-after", "0"))

    with caplog.at_level(logging.INFO, "mura-search"), ThreadPoolExecutor(24) as pool:
        started = time.monotonic()
        asked = [pool.submit(ask, number) for number in range(48)]
        while sum(each.done() for each in asked) < 12:
            time.sleep(0.05)
        right = httpx.get(f"{base}/api/index", headers={"authorization": f"Bearer {TOKEN}"}, timeout=5)
        assert right.status_code == 200
        replies = [each.result() for each in asked]
        assert time.monotonic() - started > 4
    statuses = [status for status, _ in replies]
    assert (statuses.count(401), statuses.count(429)) == (WrongTokens.FREE, 48 - WrongTokens.FREE)
    assert all(0 < retry <= 300 for status, retry in replies if status == 429)
    assert len([line for line in caplog.messages if " 401" in line or " 429" in line]) <= 4


def test_wrong_tokens_are_counted_by_address_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    tokens = WrongTokens(lambda: now, sleep)

    def add(address: str, times: int) -> int:
        refused = 0
        for _ in range(times):
            try:
                run_alone(tokens.add(address))
            except Refused as error:
                refused += error.status == 429
        return refused

    assert add("192.0.2.1", 15) == 5
    assert waited[:10] == [0.3] * 10
    assert waited[10:] == sorted(waited[10:])
    assert waited[-1] == WrongTokens.LONGEST
    assert add("192.0.2.2", 10) == 0
    assert add("2001:db8::1", 6) + add("2001:db8::2", 6) == 2, "of one network"
    now += 120
    assert add("192.0.2.1", 5) == 0
    assert sum(add(f"10.0.0.{number}", 2) for number in range(80)) > 50, "of many addresses"
    now += 1e6
    monkeypatch.setattr(WrongTokens, "ADDRESSES", 3)
    add("10.0.1.1", 1)
    assert len(tokens._by_address) == 1
