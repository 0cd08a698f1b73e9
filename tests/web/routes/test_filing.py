"""Indexed studies as queries, and changes of the index through the server: who may, what is done, and what undone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import httpx

from index.reader import IndexReader
from tests.web.browsing import until

Serve = Callable[..., str]
Png = Callable[..., bytes]
TOKEN, FILING = "correct horse battery", "staple of those who file"


def remembered(base: str, data: bytes, **headers: str) -> str:
    reply = httpx.post(
        f"{base}/api/search", files={"files": data}, data={"heatmap": "true"}, headers=headers, timeout=60
    )
    return str(reply.json()["remembered"]["study"]).rpartition("/")[2]


def change(base: str, what: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{base}/api/filing/{what}", json=body, timeout=20)


def test_an_indexed_study_is_asked_about_without_its_patient(client: httpx.Client) -> None:
    answer = client.post("/api/cases/s1-2.png/search", params={"k": 2, "heatmap": "true"}).json()
    assert answer["query"] == {"files": ["s1-1.png", "s1-2.png"], "views": 2, "excluded_patients": ["ann"]}
    assert [case["study"] for case in answer["cases"]] == ["s2", "s3"]
    assert answer["notices"][0]["code"] == "indexed-study"
    again = client.get(answer["remembered"]["study"], params={"k": 2}).json()
    assert again["cases"] == answer["cases"]
    name = answer["remembered"]["study"].rpartition("/")[2]
    assert f'"/studies/{name}">Back' in client.get("/indexed", params={"case": "s3-1.png", "back": name}).text
    assert "Back" not in client.get("/indexed", params={"case": "s3-1.png", "back": "forgotten"}).text
    assert client.get(answer["views"][0]["heatmap"]).json()["error"].endswith("its heatmap needs --files")
    assert "remembered" not in client.post("/api/cases/s1-2.png/search").json()
    assert client.post("/api/cases/nowhere.png/search").status_code == 404


def test_with_files_it_has_heatmaps(serve: Serve) -> None:
    base = serve(files=True)
    answer = httpx.post(f"{base}/api/cases/s3-1.png/search", params={"heatmap": "true"}).json()
    assert httpx.get(base + answer["views"][0]["heatmap"]).headers["content-type"] == "image/png"


def test_a_filed_study_is_found_and_undone(serve: Serve, png: Png, place: Path) -> None:
    base = serve(allow_filing=True)
    name = remembered(base, png(128))
    named = {"study": "s9", "patient": "eve", "note": "CT", "finding": "fracture; plate"}
    filed = change(base, "studies", remembered=name, label="abnormal", **named).json()
    assert (filed["action"], filed["study"], filed["label"], filed["note"]) == ("file", "s9", "abnormal", "CT")
    assert filed["finding"] == "fracture; plate"
    assert "fracture; plate" in httpx.get(f"{base}/filing").text
    nearest = httpx.post(f"{base}/api/search", files={"files": png(129)}, timeout=60).json()["cases"][0]
    assert (nearest["study"], nearest["label"]) == ("s9", "abnormal")
    assert change(base, "studies", remembered=name, label="normal").status_code == 409
    assert change(base, "labels", study="s9", label="normal", note="second look").json()["former"] == "abnormal"
    assert change(base, "aside", study="s1", reason="a toe").json()["cases"] == 2
    listed = httpx.get(f"{base}/api/filing").json()
    assert [item["action"] for item in listed] == ["set-aside", "relabel", "file"]
    assert [item["finding"] for item in listed] == ["", "fracture; plate", "fracture; plate"]
    assert [change(base, "undo").json()["action"] for _ in listed] == ["set-aside", "relabel", "file"]
    assert change(base, "undo").status_code == 409
    with IndexReader.open(place) as reader:
        assert {case.study for case in reader.cases()} == {"s1", "s2", "s3", "s4"}
        assert [entry["action"] for entry in reader.history()][-3:] == ["undo"] * 3


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("labels", {"study": "s1", "label": "abnormal"}),
        ("aside", {"study": "s1", "reason": "why"}),
        ("undo", {}),
        ("studies", {"remembered": "x", "label": "normal"}),
    ],
)
def test_nobody_changes_an_index_unless_the_server_allows_it(
    client: httpx.Client, what: str, body: dict[str, str]
) -> None:
    reply = client.post(f"/api/filing/{what}", json=body)
    assert reply.status_code == 403
    assert "--filing-token-file or --allow-filing" in reply.json()["error"]
    assert client.get("/api/filing").status_code == 403


def test_a_token_of_its_own_admits_to_filing(serve: Serve, place: Path) -> None:
    base = serve(token=TOKEN, filing_token=FILING)
    body = {"study": "s1", "label": "abnormal"}
    for token, status in (("", 401), (TOKEN, 403), (FILING, 200)):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        assert httpx.post(f"{base}/api/filing/labels", json=body, headers=headers).status_code == status
        assert httpx.get(f"{base}/api/index", headers=headers).status_code == (401 if not token else 200)
    for token, status in ((TOKEN, 403), (FILING, 303)):
        with httpx.Client(base_url=base) as browser:
            assert browser.post("/login", data={"token": token}).status_code == 303
            fields = {"study": "s2", "label": "abnormal"}
            assert browser.post("/filing/label", data=fields).status_code == status
            assert browser.get("/filing").status_code == (200 if status == 303 else 403)
    with IndexReader.open(place) as reader:
        assert {case.study for case in reader.cases() if case.label} == {"s1", "s2", "s3", "s4"}


def test_a_filing_token_alone_leaves_asking_open(serve: Serve) -> None:
    base = serve(filing_token=FILING)
    assert httpx.get(f"{base}/api/index").status_code == 200
    assert "Log in to file" in httpx.get(f"{base}/").text
    assert httpx.post(f"{base}/login", data={"token": "wrong"}).status_code == 401
    assert change(base, "undo").status_code == 403


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"filing_token": "short"}, "the filing token has 5 characters"),
        ({"token": TOKEN, "filing_token": TOKEN}, "take another one"),
        ({"host": "0.0.0.0", "token": TOKEN, "allow_filing": True}, "only for this machine"),
    ],
)
def test_unsafe_settings(settings: dict[str, Any], words: str) -> None:
    from web.errors import ServerError
    from web.settings import Settings

    with pytest.raises(ServerError, match=words):
        Settings(**settings)


def test_another_sites_page_changes_nothing(serve: Serve) -> None:
    base = serve(allow_filing=True)
    headers = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    fields = {"study": "s1", "label": "abnormal"}
    assert httpx.post(f"{base}/filing/label", data=fields, headers=headers).status_code == 403


def test_the_queue_orders_the_folders_studies(serve: Serve, square: Callable[..., Path]) -> None:
    for number, brightness in enumerate((22, 128, 233)):
        square(f"in/study{number}/a.png", brightness, number)
    base = serve(worklist=square("in/study0/a.png", 22, 0).parents[1], allow_filing=True)
    until(lambda: "study2" in httpx.get(f"{base}/queue").text)
    text = httpx.get(f"{base}/queue").text
    assert all(f"Open study study{number}" in text for number in range(3))
    assert 'action="/worklist/' in text


def test_a_region_of_a_view_is_searched(serve: Serve, png: Png, place: Path) -> None:
    from retrieval.search_by.region import add_regions

    base = serve()
    name = remembered(base, png(220))
    url = f"{base}/api/studies/{name}/views/1/regions"
    box: dict[str, float] = {"x": 0.5, "y": 0, "width": 0.5, "height": 1}
    assert "mura-search index regions" in httpx.get(url, params=box).json()["error"]
    tool = 'data-tool="region"'
    assert " disabled>" in httpx.get(f"{base}/studies/{name}").text.partition(tool)[2].partition("<svg")[0]
    add_regions(place)
    assert " disabled>" not in httpx.get(f"{base}/studies/{name}").text.partition(tool)[2].partition("<svg")[0]
    answer = httpx.get(url, params=box | {"k": 2}).json()
    assert answer["region"] == {"x": 16, "y": 0, "width": 16, "height": 32}
    assert [region["label"] for region in answer["regions"]] == ["abnormal"] * 2
    assert {region["path"] for region in answer["regions"]} == {""}
    wrongs: list[dict[str, float]] = [{"x": 2}, {"width": 0}, {"k": 0}, {"other": 1}]
    for wrong in wrongs:
        assert httpx.get(url, params=box | wrong).status_code == 422
    assert httpx.get(url.replace("views/1", "views/2"), params=box).status_code == 404
    part = httpx.get(url.replace("/api", ""), params=box).text
    assert "Studies with a region like the one marked in view 1" in part


def test_a_change_made_on_a_page_is_confirmed(serve: Serve, png: Png) -> None:
    base = serve(allow_filing=True)
    name = remembered(base, png(128))

    def changed(what: str, **fields: str) -> str:
        reply = httpx.post(f"{base}/filing/{what}", data=fields, follow_redirects=True, timeout=60)
        return reply.text.partition('class="done">')[2].partition("</p>")[0]

    filed = changed("file", remembered=name, label="abnormal")
    assert filed.startswith("The study is filed.")
    assert f'href="/studies/{name}"' in filed
    assert changed("label", study="s1", label="abnormal").startswith("The label is corrected.")
    generation = httpx.get(f"{base}/api/filing").json()[0]["generation"]
    assert changed("undo", generation=str(generation)) == "The change is undone."
    assert 'class="done"' not in httpx.get(f"{base}/filing?said=<b>&back=nowhere").text
