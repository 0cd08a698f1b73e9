"""A place of Milvus that cannot be used is told in one sentence, without its token; what passes is tried again."""

import sys
import time
import traceback
from typing import Any

import numpy as np
import pytest

from index.case import Case
from index.errors import IndexFailure, IndexUnreachable, MissingExtra
from index.milvus.store import MilvusSettings, MilvusStore
from tests.index.milvus.server import MilvusServer, server_place

D = 8


@pytest.mark.server
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token": "root:Sesame77"}, "refuses the token"),
        ({"token": ""}, "refuses the token"),
        ({"server_pem_path": ""}, "does not answer .*CERTIFICATE_VERIFY_FAILED"),
        ({"server_name": "other.test"}, "does not answer .*Hostname Verification"),
        ({"database": "nowhere"}, "database.* not found"),
    ],
)
def test_a_server_that_refuses_is_told(server: MilvusServer, changes: dict[str, str], message: str) -> None:
    with pytest.raises(IndexFailure, match=message) as raised:
        MilvusStore.open(server_place(server, **changes), D, create=True)
    assert "Sesame77" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "http://no.such.host.invalid:19530", "https://127.0.0.1:1"])
def test_a_server_that_is_not_there_is_told_soon(uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed")
    place = MilvusSettings(uri, token="root:Sesame77")
    started = time.monotonic()
    with pytest.raises(IndexUnreachable, match=f"{uri} does not answer") as raised:
        MilvusStore.open(place, D)
    assert time.monotonic() - started < 15
    told = "".join(traceback.format_exception(raised.value)) + repr(place) + str(place) + "".join(capfd.readouterr())
    assert "Sesame77" not in told
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"uri": "localhost:19530"}, "not an address of Milvus"),
        ({"uri": "ftp://host"}, "not an address of Milvus"),
        ({"uri": "http://"}, "not an address of Milvus"),
        ({"uri": "http://host:99999"}, "not an address of Milvus"),
        ({"uri": ""}, "not an address of Milvus"),
        ({"uri": "http://root:Sesame77@host:19530"}, "must not hold a password"),
        ({"uri": "http://host", "collection": "a b"}, "cannot name a collection"),
        ({"uri": "http://host", "collection": ""}, "cannot name a collection"),
        ({"uri": "http://host", "consistency": "Total"}, "Strong, Session, Bounded or Eventually"),
        ({"uri": "http://host", "server_name": "n"}, "begins with https"),
        ({"uri": "https://host", "server_pem_path": "nowhere.pem"}, "nowhere.pem is not a file"),
        ({"uri": "https://host", "client_pem_path": "a"}, "needs its key and a CA"),
    ],
)
def test_a_place_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(IndexFailure, match=message) as raised:
        MilvusSettings(**arguments)
    assert "Sesame77" not in str(raised.value)


class Fake:
    """A client whose `upsert` fails with the errors given, one after the other, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.written: list[dict[str, Any]] = []

    def upsert(self, collection: str, data: list[dict[str, Any]], timeout: float) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.written += data


def write_to(fake: Fake, pauses: list[float]) -> float:
    """The seconds waited for 2500 entities to be written."""
    store = MilvusStore(fake, MilvusSettings("http://host", token="root:Sesame77"), D, {})
    store.upsert(range(2500), [Case("c", "s", "p", 0)] * 2500, np.eye(D, dtype=np.float32)[[0] * 2500])
    return sum(pauses)


def test_what_passes_is_tried_again(pauses: list[float]) -> None:
    grpc = pytest.importorskip("grpc")
    exceptions = pytest.importorskip("pymilvus.exceptions")

    class Down(grpc.RpcError):  # type: ignore[misc, name-defined]
        def code(self) -> Any:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return "gone for root:Sesame77"

    limit = exceptions.MilvusException(8, "rate limit exceeded")
    starting = exceptions.MilvusException(1, "Milvus Proxy is not ready yet. please wait")
    told = exceptions.MilvusException(65535, "once more", retriable=True)
    fake = Fake(Down(), limit, starting, told)
    assert 0 < write_to(fake, pauses) < 2
    assert [entity["row"] for entity in fake.written] == list(range(2500))

    with pytest.raises(IndexUnreachable, match=r"http://host does not answer \(gone for \*\*\*\)") as raised:
        write_to(Fake(*(Down() for _ in range(100))), pauses)
    assert "Sesame77" not in str(raised.value)
    refusal = Fake(exceptions.MilvusException(1100, "invalid parameter"), Down())
    with pytest.raises(IndexFailure, match="cannot do this: invalid parameter"):
        write_to(refusal, pauses)
    assert len(refusal.errors) == 1


def test_without_pymilvus_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtra, match=r"pymilvus is not installed; run: pip install \"mura-search\[milvus\]\""):
        MilvusStore.open(MilvusSettings("http://127.0.0.1:1"), D)
