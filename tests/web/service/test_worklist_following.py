"""The folder of the worklist is followed: what comes, what cannot be read yet, what goes away."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")
import httpx

from retrieval.worklist.folder_watcher import Watch
from retrieval.worklist.worklist import StudyFiles
from tests.web.service.worklist_page import MURA, PAGE, numbers, ranked, shows, studies
from web.errors import Refused
from web.service.admission import Admission, Share
from web.service.worklist import Worklist

Serve = Callable[..., str]


Square = Callable[..., Path]


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
