"""What the tests of the worklist share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.web.service.worklist_page import MURA


@pytest.fixture
def inbox(square: Callable[..., Path], tmp_path: Path) -> Path:
    """A dark single radiograph, a bright study of two views, a middling one deeper with an evil name, a bad file."""
    square("in/dark.png", 30)
    square("in/bright/pa.png", 220)
    square("in/bright/lateral.png", 225)
    square(f"in/{MURA}/<b>image1.png", 128)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    return tmp_path / "in"
