"""The report that the page offers: complete in itself, and of the answer that is on the page."""

import base64
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import httpx

from cli.serve import report_of

Png = Callable[..., bytes]
Serve = Callable[..., str]
PAGE = {"accept": "text/html"}
TOKEN = "correct horse battery staple"


def asked(client: httpx.Client, *views: bytes) -> dict[str, Any]:
    sent = [("files", (f"view{number}.png", data)) for number, data in enumerate(views, start=1)]
    reply = client.post("/api/search", files=sent, data={"heatmap": "true"})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def test_it_needs_nothing_else_and_says_what_the_answer_says(serve: Serve, png: Png, tmp_path: Path) -> None:
    with httpx.Client(base_url=serve(report=report_of), timeout=30) as client:
        answer = asked(client, png(200), png(60, side=48))
        study = answer["remembered"]["study"].removeprefix("/api")
        reply = client.get(f"{study}/report", params={"label": "abnormal"})
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-disposition"] == 'attachment; filename="report.html"'
    text = reply.text
    # Nothing is loaded: what a page could load from is data, and the links stay on the page.
    assert not re.findall(r"<(?:link|iframe|object|embed|base)\b|@import|url\(", text)
    places = re.findall(r'\s(?:src|href|action)="([^"]*)"', text)
    assert places
    assert [place[:20] for place in places if not place.startswith(("data:image/", "#"))] == []
    assert str(tmp_path) not in text
    # The figures of the answer, both views by their names, and the abnormal studies alone.
    for by in ("classifier", "knn"):
        assert f"{answer[by]['probability']:.3f}" in text
    for name in ("view1.png", "view2.png"):
        assert name in text
    headings = re.findall(r"<h3>\d+\. (\w+)</h3>", text)
    assert headings == [case["study"] for case in answer["cases"] if case["label"] == "abnormal"]
    # The first picture is the radiograph that was sent.
    first = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)[0]
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(first), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    assert abs(float(pixels.mean()) - 200) < 3


def test_the_page_links_to_it_with_its_filters(serve: Serve, png: Png) -> None:
    with httpx.Client(base_url=serve(report=report_of), headers=PAGE, follow_redirects=True, timeout=30) as client:
        page = client.post("/search", files={"files": png(200)}, data={"heatmap": "true"})
        filtered = client.get(str(page.url), params={"label": "normal"}).text
        link = html.unescape(re.findall(r'href="([^"]+/report[^"]*)"', filtered)[0])
        assert re.findall(r"<h3>\d+\. (\w+)</h3>", client.get(link).text) == ["s2", "s1"]
        assert client.get("/studies/unknown/report").status_code == 404
        assert "No indexed study fits" in client.get(f"{page.url}/report", params={"part": "wrist"}).text


def test_only_who_may_ask_gets_one(serve: Serve, png: Png) -> None:
    base = serve(report=report_of, token=TOKEN)
    with httpx.Client(base_url=base, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        study = asked(client, png(200))["remembered"]["study"].removeprefix("/api")
    assert httpx.get(f"{base}{study}/report").status_code == 401
