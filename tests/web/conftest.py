"""A server on loopback that answers from an index of grey squares, in a thread of the test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index
from tests.conftest import write_collection

if TYPE_CHECKING:
    import httpx
    from playwright.sync_api import Browser, Page

Serve = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the token of whoever runs it."""
    monkeypatch.delenv("MURA_SEARCH_TOKEN", raising=False)
    monkeypatch.delenv("MURA_SEARCH_INDEX", raising=False)


STUDIES = [("ann", "s1", 0, [20, 25]), ("bob", "s2", 0, [40]), ("cid", "s3", 1, [215]), ("dee", "s4", 1, [235, 230])]
"""Four patients: two dark, normal studies and two bright, abnormal ones."""


@pytest.fixture
def collection(squares: Callable[..., Collection]) -> Collection:
    return squares(STUDIES)


@pytest.fixture(scope="session")
def shared_place(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of those studies that no test changes."""
    folder = tmp_path_factory.mktemp("web")
    build_index(write_collection(folder / "data", STUDIES), folder / "index", model=model)
    return folder / "index"


@pytest.fixture
def place(collection: Collection, model: Path, tmp_path: Path) -> Path:
    """The same index in the test's own folder."""
    build_index(collection, tmp_path / "index", model=model)
    return tmp_path / "index"


@contextmanager
def running(place: Path, report: Any, limits: dict[str, Any], settings: dict[str, Any]) -> Iterator[str]:
    from web.server import Server
    from web.settings import Limits, Settings

    started = threading.Event()
    addresses: list[str] = []

    def ready(address: str) -> None:
        addresses.append(address)
        started.set()

    server = Server(place, Settings(port=0, limits=Limits(**limits), **settings), ready=ready, report=report)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(10)
        yield addresses[0].rstrip("/")
    finally:
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive()


@pytest.fixture
def serve(place: Path) -> Iterator[Serve]:
    """Starts a server and gives its address: `serve()`, `serve(index, limits={"views": 2}, token="...")`."""
    pytest.importorskip("fastapi", reason="the extra web is not installed")
    pytest.importorskip("uvicorn", reason="the extra web is not installed")
    with ExitStack() as servers:

        def start(
            index: Path | None = None, *, report: Any = None, limits: dict[str, Any] | None = None, **settings: Any
        ) -> str:
            return servers.enter_context(running(index or place, report, limits or {}, settings))

        yield start


@pytest.fixture(scope="session")
def shared_server(shared_place: Path) -> Iterator[str]:
    """The address of a server with default settings, for tests that change neither it nor its index."""
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package, reason="the extra web is not installed")
    with running(shared_place, None, {}, {}) as base:
        yield base


@pytest.fixture
def client(shared_server: str) -> "Iterator[httpx.Client]":
    """Asks the shared server."""
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    with httpx.Client(base_url=shared_server, timeout=20) as asking:
        yield asking


@pytest.fixture
def own_client(serve: Serve) -> "Iterator[httpx.Client]":
    """Asks a server that no other test asks."""
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    with httpx.Client(base_url=serve(), timeout=20) as asking:
        yield asking


@pytest.fixture
def png() -> Callable[..., bytes]:
    """The bytes of a square in two halves around a mean: `png(200)`."""

    def make(brightness: int, side: int = 32, mark: int = 700) -> bytes:
        contrast = min(20, brightness, 255 - brightness)  # without contrast it would be blank
        pixels = np.full((side, side), brightness + contrast, np.uint8)
        pixels[::2] -= np.uint8(2 * contrast)
        pixels.ravel()[mark % pixels.size] ^= 1
        return cv2.imencode(".png", pixels)[1].tobytes()

    return make


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    from tests.web.browsing import CHROMIUM

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: "Browser") -> "Iterator[Callable[..., Page]]":
    """Opens an address; fails the test where the page has an error or asks another server."""
    from tests.web.browsing import serious

    troubles: list[str] = []
    contexts = []

    def note(wrong: bool, text: str) -> None:
        if wrong:
            troubles.append(text)

    def go(base: str, path: str = "/", **options: Any) -> "Page":
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: note(True, str(error)))
        page.on("request", lambda request: note(not request.url.startswith((base, "blob:")), request.url))
        page.on("console", lambda message: note(serious(message), message.text))
        page.goto(base + path)
        return page

    yield go
    for context in contexts:
        context.close()
    assert troubles == []
