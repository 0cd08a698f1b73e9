"""DICOM's words for parts, views and sides, and none of what somebody typed."""

import pytest

from retrieval.images.body_part import body_part, laterality, projection


@pytest.mark.parametrize(
    ("text", "word"),
    [("WRIST", "wrist"), ("Upper Arm", "humerus"), ("RADIUS_ULNA", "forearm"), ("C-SPINE", "cervical spine"),
     ("THUMB", "finger"), ("SMITH", ""), ("", "")],
)  # fmt: skip
def test_body_part(text: str, word: str) -> None:
    assert body_part(text) == word


@pytest.mark.parametrize(
    ("text", "word"),
    [("pa", "pa"), ("LL", "lateral"), ("Medio-Lateral", "lateral"), ("RLO", "oblique"), ("LLD", "decubitus"),
     ("skyline", "axial"), ("Dr Smith", "")],
)  # fmt: skip
def test_projection(text: str, word: str) -> None:
    assert projection(text) == word


@pytest.mark.parametrize(("text", "word"), [("l ", "left"), ("R", "right"), ("B", "both"), ("U", ""), ("LEFT", "")])
def test_laterality(text: str, word: str) -> None:
    assert laterality(text) == word
