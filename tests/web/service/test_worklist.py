"""The worklist of a folder: the order of the command line, by numbers that tell nothing, and for nobody else."""

import json
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")
import httpx

from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher
from retrieval.worklist.worklist import worklist
from tests.web.service.worklist_page import MURA, PAGE, numbers, ranked, shows, studies
from web.errors import ServerError
from web.models import WorklistDocument
from web.settings import Settings

Serve = Callable[..., str]


Square = Callable[..., Path]


TOKEN = "correct horse battery staple"


def test_the_order_is_that_of_the_command_line(serve: Serve, place: Path, inbox: Path, tmp_path: Path) -> None:
    with Searcher.open(place) as searcher:
        expected = worklist(searcher, inbox)
    with httpx.Client(base_url=serve(worklist=inbox), headers=PAGE) as client:
        assert 'href="/worklist"' in client.get("/").text
        page = ranked(client)
    assert studies(page) == [entry.study for entry in expected.entries] == ["bright", MURA, "dark.png"]
    for entry in expected.entries:
        assert f'<td data-heading="mean">{entry.mean:.3f}</td>' in page
        nearest = entry.answer.cases[0]
        assert f"{nearest.similarity:.3f}<br>{nearest.study}" in page
    assert "Ranked 3 studies. The folder is watched" in page
    assert re.search(r'<time datetime="[0-9T:-]+\+00:00">', page)
    assert "1 could not be read" in page
    assert "bad.png is not an image" in page
    assert str(tmp_path) not in page
    assert "<b>image1" not in page


def test_the_api_gives_the_list_of_the_command_line(serve: Serve, place: Path, inbox: Path, tmp_path: Path) -> None:
    with Searcher.open(place) as searcher:
        expected = worklist(searcher, inbox).to_dict()
    with httpx.Client(base_url=serve(worklist=inbox)) as client:
        page = ranked(client)
        given = client.get("/api/worklist")
        shown = client.get("/openapi.json").json()["components"]["schemas"]["WorklistDocument"]
    found = given.json()
    assert (found["schema"], found["folder"], found["ranking"]) == (expected["schema"], "in", False)
    assert [one.pop("number") for one in found["studies"]] == numbers(page)
    assert [one.pop("read") for one in found["studies"]] == [None] * 3
    nowhere = json.loads(json.dumps(expected["studies"]))
    for one in nowhere:
        one["files"] = [Path(file).name for file in one["files"]]
        one["nearest"]["path"] = ""
    assert [rounded(one) for one in found["studies"]] == [rounded(one) for one in nowhere]
    assert [one["study"] for one in found["skipped"]] == ["bad.png"]
    assert str(tmp_path) not in given.text
    WorklistDocument.model_validate(given.json())
    assert set(shown["properties"]) == set(given.json())


def rounded(value: object) -> object:
    """Encoded in another batch, a number may differ in its last digits."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def test_pictures_are_known_by_numbers_and_studies_open_as_answers(serve: Serve, place: Path, inbox: Path) -> None:
    with httpx.Client(base_url=serve(worklist=inbox), headers=PAGE, timeout=20) as client:
        page = ranked(client)
        for number, level in zip(numbers(page), (222, 128, 30), strict=True):
            small = client.get(f"/worklist/{number}/picture")
            assert small.headers["content-type"] == "image/jpeg"
            pixels = cv2.imdecode(np.frombuffer(small.content, np.uint8), cv2.IMREAD_GRAYSCALE)
            assert pixels is not None
            assert abs(float(pixels.mean()) - level) < 5
        for name in ("1", "0", "dark.png", "..%2Fdark.png", str(inbox / "dark.png").replace("/", "%2F"), MURA):
            assert client.get(f"/worklist/{name}/picture").status_code == 404
            assert client.get(f"/worklist/{name}").status_code in (404, 405)
            assert client.post(f"/worklist/{name}").status_code in (404, 405)
        opened = client.post(f"/worklist/{numbers(page)[0]}")
        assert opened.status_code == 303
        answer = client.get(f"/api{opened.headers['location']}").json()
        assert 'id="verdict-title"' in client.get(opened.headers["location"]).text
        (inbox / "dark.png").unlink()
        gone = client.post(f"/worklist/{numbers(page)[2]}")
        assert (gone.status_code, "dark.png cannot be read" in gone.text) == (422, True)
    assert str(inbox) not in gone.text + str(answer)
    with Searcher.open(place) as searcher:
        expected = searcher.search(inbox / "bright").to_dict()
    assert (answer["classifier"], answer["knn"]) == (expected["classifier"], expected["knn"])
    assert answer["query"]["files"] == ["lateral.png", "pa.png"]


def test_what_is_opened_is_read_and_the_next_is_offered(
    serve: Serve, inbox: Path, square: Square, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.service.worklist._EVERY", 0.05)
    with httpx.Client(base_url=serve(worklist=inbox), headers=PAGE, timeout=20) as client:

        def read() -> list[bool]:
            return [study["read"] is not None for study in client.get("/api/worklist").json()["studies"]]

        first, second, third = numbers(ranked(client))
        assert read() == [False] * 3
        opened = client.get(client.get(f"/worklist/{second}").headers["location"]).text
        assert read() == [False, True, False]
        assert "study 2 of 3" in opened
        assert f'href="/worklist/{third}">Next: dark.png' in opened
        client.get(f"/worklist/{third}")
        assert f'href="/worklist/{first}">Open the next unread study' in client.get("/worklist").text
        last = client.get(client.get(f"/worklist/{first}").headers["location"]).text
        assert "All are read." in last
        assert client.post(f"/worklist/{second}/unread").status_code == 303
        assert read() == [True, False, True]
        square("in/bright/third.png", 221)  # a changed study is to be read again
        shows(client, lambda _: read() == [False, False, True])


def test_the_patient_of_muras_folders_is_left_out(
    serve: Serve, squares: Callable[..., Collection], model: Path, inbox: Path, tmp_path: Path
) -> None:
    indexed = [("patient00001", "own", 1, [128]), ("patient00002", "other", 0, [40]), ("patient00003", "far", 1, [250])]
    build_index(squares(indexed, "mura"), tmp_path / "mura-index", model=model)
    with httpx.Client(base_url=serve(tmp_path / "mura-index", worklist=inbox), headers=PAGE) as client:
        page = ranked(client)
        number = dict(zip(studies(page), numbers(page), strict=True))[MURA]
        answer = client.get(f"/api{client.post(f'/worklist/{number}').headers['location']}").json()
    assert answer["query"]["excluded_patients"] == ["patient00001"]
    assert "own" not in {case["study"] for case in answer["cases"]}


def test_a_name_that_is_no_text_spoils_no_reply(serve: Serve, inbox: Path) -> None:
    (inbox / "dark.png").rename(inbox / os.fsdecode(b"d\xff.png"))
    (inbox / "bad.png").rename(inbox / os.fsdecode(b"b\xfe.png"))
    with httpx.Client(base_url=serve(worklist=inbox)) as client:
        ranked(client)
        found = client.get("/api/worklist").json()
    assert [one["study"] for one in found["studies"]] == ["bright", MURA, "d\ufffd.png"]
    assert [one["study"] for one in found["skipped"]] == ["b\ufffd.png"]


def test_only_who_may_ask_sees_it_and_no_other_site_can(serve: Serve, inbox: Path) -> None:
    base = serve(worklist=inbox, token=TOKEN)
    with httpx.Client(base_url=base, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        number = numbers(ranked(client))[0]
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            assert client.post("/worklist", headers=headers).status_code == 403
            assert client.post(f"/worklist/{number}", headers=headers).status_code == 403
            assert client.get(f"/worklist/{number}/picture", headers=headers).status_code == 403
    with httpx.Client(base_url=base) as stranger:
        for address in ("/worklist", "/worklist/changes", "/api/worklist", f"/worklist/{number}/picture"):
            assert stranger.get(address).status_code == 401
        assert stranger.post("/worklist").status_code == stranger.post(f"/worklist/{number}").status_code == 401


def test_limits_hold_for_it_and_the_log_names_nothing(
    serve: Serve, inbox: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG, "mura-search"),
        httpx.Client(base_url=serve(worklist=inbox, limits={"views": 1}), headers=PAGE) as client,
    ):
        page = ranked(client)
        client.get(f"/worklist/{numbers(page)[0]}/picture")
        client.post(f"/worklist/{numbers(page)[0]}")
        end = time.monotonic() + 10
        while "POST /worklist/{number} 303" not in caplog.text:  # which is written after the reply
            assert time.monotonic() < end, caplog.text
            time.sleep(0.02)
    assert studies(page) == [MURA, "dark.png"]
    assert "at most 1 radiographs of one study" in page
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith(("mura", "uvicorn")))
    assert not [word for word in ("dark", "bright", "patient", "bad.png", numbers(page)[0]) if word in ours]


def test_without_a_folder_there_is_none(serve: Serve, tmp_path: Path) -> None:
    with httpx.Client(base_url=serve(), headers=PAGE) as client:
        assert client.get("/worklist").status_code == client.post("/worklist").status_code == 404
        assert client.get("/worklist/changes").status_code == client.get("/api/worklist").status_code == 404
        assert 'href="/worklist"' not in client.get("/").text
    with pytest.raises(ServerError, match="is not a folder"):
        Settings(worklist=tmp_path / "none")
