"""Each code has a sentence for people, and one for archives that names nobody."""

import pytest

from retrieval.notices import Code, Notice
from retrieval.wording import anonymous_sentence, sentence, warnings_of_files
from tests.notice_details import DETAILS


@pytest.mark.parametrize("code", Code)
def test_each_code_has_both_sentences(code: Code) -> None:
    notice = Notice(code, "secret/1.png", DETAILS)
    for text in (sentence(notice), anonymous_sentence(notice, "view 1")):
        assert text
        assert f"notice {code}" not in text
    assert "secret" not in anonymous_sentence(notice, "view 1")


@pytest.mark.parametrize("code", ["of-a-later-version"])
def test_an_unknown_code_is_shown(code: str) -> None:
    notice = Notice(code, "secret/1.png", DETAILS)
    assert code in sentence(notice)
    assert code in anonymous_sentence(notice, "view 1")
    assert "secret" not in anonymous_sentence(notice, "view 1")


def test_names_follow_the_sentence_of_a_collection() -> None:
    notice = Notice(Code.LISTED_MISSING, detail={"count": 2, "names": "a.png, b.png"})
    assert sentence(notice) == "images that image_paths.csv lists and that are missing: 2 (a.png, b.png)"
    assert anonymous_sentence(notice) == "images that image_paths.csv lists and that are missing: 2"


def test_warnings_of_files() -> None:
    notices = [Notice(Code.PSEUDONYMS), Notice(Code.BURNED_IN_TEXT, "a.dcm")]
    assert warnings_of_files(notices) == (
        ("a.dcm", "says that text is burnt into its picture: it may name the patient"),
    )
