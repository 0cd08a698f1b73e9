"""Running `mura-search` inside the test, and an index of grey squares to ask."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _own_user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds or touches the index of whoever runs it; terminals are 80 wide."""
    monkeypatch.delenv("MURA_SEARCH_INDEX", raising=False)
    monkeypatch.setenv("MURA_SEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def run() -> Run:
    """Runs a command: `run("index", "info", "--index", place)`; what it raises by accident fails the test."""

    def invoke(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return invoke


@pytest.fixture
def collection(squares: Callable[..., Collection]) -> Collection:
    """Four patients: two dark, normal studies and two bright, abnormal ones."""
    return squares(
        [("ann", "s1", 0, [20, 25]), ("bob", "s2", 0, [40]), ("cid", "s3", 1, [215]), ("dee", "s4", 1, [235, 230])]
    )


@pytest.fixture
def place(collection: Collection, model: Path, tmp_path: Path) -> Path:
    """An index of those."""
    build_index(collection, tmp_path / "index", model=model)
    return tmp_path / "index"


@pytest.fixture
def table(collection: Collection) -> Path:
    """The same as a CSV case table."""
    file = collection.root / "cases.csv"
    rows = [f"{case.case},{case.label_name},{case.patient},{case.study},{case.part}" for case in collection.cases]
    file.write_text("\n".join(["path,label,patient,study,part", *rows]) + "\n", encoding="utf-8")
    return file
