"""Every notice is on the page, and in the answer of the API."""

import html
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from retrieval.notices import DOUBTS, Code, Notice
from retrieval.query_checks.training_radiographs import TrainingRadiographs
from retrieval.wording import sentence
from tests.notice_details import DETAILS

if TYPE_CHECKING:
    import httpx


def test_every_notice_is_shown(
    client: "httpx.Client", png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    notices = [Notice(code, "a.png", DETAILS) for code in [*Code, "of-a-later-version"]]

    def all_of_them(*_: object, **__: object) -> list[Notice]:
        return notices

    monkeypatch.setattr(TrainingRadiographs, "notices", all_of_them)
    sent = [("files", ("a.png", png(200), "image/png"))]
    answer = client.post("/api/search", files=sent).json()
    assert [notice["code"] for notice in answer["notices"]] == [notice.code for notice in notices]
    assert answer["warnings"] == [*map(sentence, notices)]
    page = client.post("/search", files=sent, headers={"accept": "text/html"}, follow_redirects=True)
    text = html.unescape(page.text)
    # A page begins sentences with a capital.
    assert [notice.code for notice in notices if sentence(notice)[1:] not in text] == []
    title = text.index('id="verdict-title"')
    before = {notice.code for notice in notices if text.index(sentence(notice)[1:]) < title}
    assert before == DOUBTS, "what casts doubt on a picture comes before the verdict"
