"""The bars on stderr."""

import io
import os
from pathlib import Path

import pytest

from cli.console import progress, require_ending, stages
from cli.train import reporter
from retrieval.errors import OutputError


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_each_stage_has_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with stages("training") as show:
        report = reporter(show)
        report("train", 3, 7, {})
        report("look", 1, 4, {})
        report("look", 4, 4, {})
        report("encode", 2, 5, {})
    with progress("reading") as tell:
        tell(1, 9)
    drawn = screen.getvalue()
    for what in ("encoding", "2/5", "reading", "1/9"):  # what stands at the end of each; it is drawn ten times a second
        assert what in drawn
    assert "3/5" not in drawn  # what the stage before had done is not counted again


@pytest.mark.parametrize("name", ["list.txt", "list", "list.csv.html"])
def test_an_ending_that_is_not_what_is_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"does not end in \.csv, but that is what is written; rename it"):
        require_ending([".csv"], None, tmp_path / name)
    require_ending([".csv"], tmp_path / "list.CSV", None, Path(os.devnull))
