"""The worklist of a folder: the order of the command line, by numbers that tell nothing, and for nobody else."""

import html
import json
import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
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
from retrieval.worklist.folder_watcher import Watch
from retrieval.worklist.worklist import StudyFiles, worklist
from web.errors import Refused, ServerError
from web.models import WorklistDocument
from web.service.admission import Admission, Share
from web.service.worklist import Worklist
from web.settings import Settings

Serve = Callable[..., str]
Square = Callable[..., Path]
TOKEN = "correct horse battery staple"
PAGE = {"accept": "text/html"}
MURA = "XR_FINGER/patient00001/study1_positive"


@pytest.fixture
def inbox(square: Square, tmp_path: Path) -> Path:
    """A dark single radiograph, a bright study of two views, a middling one deeper with an evil name, a bad file."""
    square("in/dark.png", 30)
    square("in/bright/pa.png", 220)
    square("in/bright/lateral.png", 225)
    square(f"in/{MURA}/<b>image1.png", 128)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    return tmp_path / "in"


def ranked(client: httpx.Client, page: str = "") -> str:
    """The page when everything is read; `page` the one that it must have changed from."""
    end = time.monotonic() + 60
    while "Rank again" not in (text := client.get("/worklist").text) or text == page:
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return text


def numbers(page: str) -> list[str]:
    return re.findall(r'<td><a href="/worklist/([^"]+)">', page)


def studies(page: str) -> list[str]:
    return [html.unescape(name) for name in re.findall(r'<td><a href="/worklist/[^"]+">([^<]+)</a>', page)]


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
    assert "bad.png is no image" in page
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


def test_ranking_again_sees_what_came_and_keeps_the_numbers(
    serve: Serve, inbox: Path, square: Square, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.service.worklist._EVERY", 600.0)
    with httpx.Client(base_url=serve(worklist=inbox), headers=PAGE) as client:
        before = ranked(client)
        square("in/white.png", 255)
        (inbox / "dark.png").unlink()
        assert studies(client.get("/worklist").text) == studies(before)
        again = client.post("/worklist")
        assert (again.status_code, again.headers["location"]) == (303, "/worklist")
        after = ranked(client, before)
        assert studies(after) == ["white.png", "bright", MURA]
        assert numbers(after)[1:] == numbers(before)[:2]
        assert numbers(after)[0] not in numbers(before)
        assert client.get(f"/worklist/{numbers(before)[2]}/picture").status_code == 404


def shows(client: httpx.Client, holds: Callable[[str], bool]) -> str:
    """The page as soon as that holds of it."""
    end = time.monotonic() + 60
    while not holds(text := client.get("/worklist").text):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return text


def test_the_folder_is_followed(serve: Serve, inbox: Path, square: Square, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.service.worklist._EVERY", 0.05)
    with httpx.Client(base_url=serve(worklist=inbox), headers=PAGE) as client:

        def changes() -> int:
            return int(client.get("/worklist/changes").json()["changes"])

        before, first = ranked(client), changes()
        time.sleep(0.3)  # several looks that find nothing new
        assert changes() == first
        square("in/white.png", 255)
        came = shows(client, lambda text: "white.png" in text)
        assert studies(came) == ["white.png", "bright", MURA, "dark.png"]
        assert numbers(came)[1:] == numbers(before)
        assert changes() == first + 1

        square("in/white.png", 0)
        changed = shows(client, lambda text: studies(text)[-1] == "white.png")
        assert studies(changed) == ["bright", MURA, "dark.png", "white.png"]
        assert sorted(numbers(changed)) == sorted(numbers(came))
        square("in/bad.png", 100)
        repaired = shows(client, lambda text: "bad.png" in studies(text))
        assert "could not be read" not in repaired
        (inbox / "dark.png").unlink()
        gone = shows(client, lambda text: "dark.png" not in text)
        assert client.get(f"/worklist/{numbers(before)[2]}/picture").status_code == 404

        inbox.rename(inbox.with_name("elsewhere"))
        assert studies(shows(client, lambda text: "no longer exists" in text)) == studies(gone)
        asked = changes()
        inbox.with_name("elsewhere").rename(inbox)
        assert studies(shows(client, lambda text: "no longer exists" not in text)) == studies(gone)
        assert changes() == asked + 1  # nothing was read again


def test_no_more_are_read_than_may_be(
    serve: Serve, inbox: Path, square: Square, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.service.worklist._EVERY", 0.05)
    monkeypatch.setattr("web.service.worklist.MOST", 3)
    (inbox / "bad.png").unlink()
    square("in/a.png", 90)
    with httpx.Client(base_url=serve(worklist=inbox), headers=PAGE) as client:
        page = ranked(client)
        assert studies(page) == ["bright", MURA, "a.png"]
        assert "1 study of the folder was not read" in page
        square("in/white.png", 255)
        assert studies(shows(client, lambda text: "2 studies of the folder were not read" in text)) == studies(page)
        square("in/a.png", 200)  # a change of one that is read is no new one
        assert studies(shows(client, lambda text: studies(text) != studies(page))) == ["bright", "a.png", MURA]
        square("in/white.png", 250)  # nor is a change of one that waits one more
        time.sleep(0.5)
        assert client.get("/api/worklist").json()["not_read"] == 2
        (inbox / "white.png").unlink()
        shows(client, lambda text: "1 study of the folder was not read yet: at most 3 are" in text)
        (inbox / "a.png").unlink()  # who waits comes into its place
        full = shows(client, lambda text: studies(text) == ["bright", MURA, "dark.png"])
        assert "not read" not in full


def test_what_a_busy_server_cannot_read_is_read_later(
    serve: Serve, inbox: Path, square: Square, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.service.worklist._EVERY", 0.05)
    monkeypatch.setattr("web.service.worklist._TRIES", 1)
    busy, enter = [True], Admission.enter

    def refused(gate: Admission) -> AbstractContextManager[Share]:
        if busy:
            raise Refused(503, "too much is asked at once", retry=1)
        return enter(gate)

    monkeypatch.setattr(Admission, "enter", refused)
    with httpx.Client(base_url=serve(worklist=inbox), headers=PAGE) as client:
        waiting = shows(client, lambda text: "4 studies of the folder were not read yet: the server was busy" in text)
        assert "could not be read" not in waiting
        busy.clear()
        page = shows(client, lambda text: studies(text) == ["bright", MURA, "dark.png"])
        assert "1 could not be read" in page
        busy.append(True)
        square("in/dark.png", 240)  # while its new state waits, the former one is listed
        time.sleep(0.5)
        assert studies(client.get("/worklist").text) == ["bright", MURA, "dark.png"]
        busy.clear()
        shows(client, lambda text: studies(text)[0] == "dark.png")


def test_a_name_that_is_no_text_spoils_no_reply(serve: Serve, inbox: Path) -> None:
    (inbox / "dark.png").rename(inbox / os.fsdecode(b"d\xff.png"))
    (inbox / "bad.png").rename(inbox / os.fsdecode(b"b\xfe.png"))
    with httpx.Client(base_url=serve(worklist=inbox)) as client:
        ranked(client)
        found = client.get("/api/worklist").json()
    assert [one["study"] for one in found["studies"]] == ["bright", MURA, "d\ufffd.png"]
    assert [one["study"] for one in found["skipped"]] == ["b\ufffd.png"]


def test_a_look_that_fails_unexpectedly_is_said_and_not_the_last(
    serve: Serve, inbox: Path, square: Square, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("web.service.worklist._EVERY", 0.05)
    look, broken = Watch.look, [True]

    def failing(watch: Watch) -> tuple[list[StudyFiles], set[str]]:
        if broken:
            raise RuntimeError("the file of Muster")
        return look(watch)

    monkeypatch.setattr(Watch, "look", failing)
    with caplog.at_level(logging.INFO), httpx.Client(base_url=serve(worklist=inbox), headers=PAGE) as client:
        page = shows(client, lambda text: "nexpected error" in text)
        assert studies(page) == ["bright", MURA, "dark.png"]
        broken.clear()
        square("in/white.png", 255)
        shows(client, lambda text: "white.png" in text and "nexpected error" not in text)
    assert caplog.text.count("could not be brought up to date: RuntimeError") == 1
    assert "Muster" not in page + caplog.text


def test_a_folder_that_comes_later_is_ranked(serve: Serve, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.service.worklist._EVERY", 0.05)
    start = Worklist.start

    def late(worklist: Worklist) -> None:  # the folder goes away after the server has started
        monkeypatch.setattr(Worklist, "start", start)
        inbox.rename(inbox.with_name("elsewhere"))
        start(worklist)

    monkeypatch.setattr(Worklist, "start", late)
    with httpx.Client(base_url=serve(worklist=inbox), headers=PAGE) as client:
        assert "Nothing was ranked yet" in shows(client, lambda text: "no longer exists" in text)
        inbox.with_name("elsewhere").rename(inbox)
        page = shows(client, lambda text: len(studies(text)) == 3)
    assert studies(page) == ["bright", MURA, "dark.png"]


def test_a_folder_that_went_away_is_said_and_the_former_order_stays(serve: Serve, inbox: Path) -> None:
    with httpx.Client(base_url=serve(worklist=inbox), headers=PAGE) as client:
        before = ranked(client)
        inbox.rename(inbox.with_name("elsewhere"))
        client.post("/worklist")
        after = ranked(client, before)
    assert "folder no longer exists" in after
    assert studies(after) == studies(before)


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


def test_a_fault_that_nobody_expected_costs_one_study(
    serve: Serve, inbox: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from retrieval.images.decoder_process import DecoderPool
    from retrieval.images.radiograph import Radiograph, read_frames

    def read(_pool: DecoderPool, path: Path, name: str, most: int, *, abandoned: object) -> list[Radiograph]:
        if name == "dark.png":
            raise RuntimeError("the file of Muster")
        return read_frames(path, name, most)

    monkeypatch.setattr(DecoderPool, "read", read)
    with caplog.at_level(logging.INFO), httpx.Client(base_url=serve(worklist=inbox), headers=PAGE) as client:
        page = ranked(client)
    assert studies(page) == ["bright", MURA]
    assert "unexpected error" in page
    assert "a study of the worklist could not be read: RuntimeError" in caplog.text
    assert "Muster" not in page + caplog.text


def test_without_a_folder_there_is_none(serve: Serve, tmp_path: Path) -> None:
    with httpx.Client(base_url=serve(), headers=PAGE) as client:
        assert client.get("/worklist").status_code == client.post("/worklist").status_code == 404
        assert client.get("/worklist/changes").status_code == client.get("/api/worklist").status_code == 404
        assert 'href="/worklist"' not in client.get("/").text
    with pytest.raises(ServerError, match="is not a folder"):
        Settings(worklist=tmp_path / "none")
