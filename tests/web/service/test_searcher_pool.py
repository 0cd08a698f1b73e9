"""The parts behind the routes, one by one: following the index, batches, the gate, and what is remembered."""

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import httpx

from index.writer import IndexWriter
from retrieval.datasets.collection import Collection
from retrieval.encoding.encoder import Encoded, Encoder
from retrieval.indexing.build import build_index
from retrieval.query import View
from tests.coroutines import run_alone
from web.errors import Refused
from web.service.admission import Admission
from web.service.batcher import Batcher
from web.service.searcher_pool import SearcherPool
from web.service.study_store import Study, StudyStore

Png = Callable[..., bytes]
Serve = Callable[..., str]
BRIGHT = [("eve", "s5", 1, [200]), ("flo", "s6", 0, [60])]


class Constant(Encoder):
    """Gives each picture's first value as its logit, and remembers the sizes of the batches."""

    def __init__(self, wait: float = 0) -> None:
        self.sizes: list[int] = []
        self.wait = wait

    def encode_prepared(self, pictures: Sequence[Any]) -> Encoded:
        self.sizes.append(len(pictures))
        time.sleep(self.wait)
        values = np.array([picture.flat[0] for picture in pictures], np.float32)
        return Encoded(np.stack([values, -values], axis=1), values)


def picture(value: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((2, 2, 3), value, np.uint8)


def test_pictures_that_come_together_are_encoded_together_and_each_gets_its_own() -> None:
    async def run() -> None:
        encoder, batcher = Constant(), Batcher(8, 0.02, 100)
        counts = [1, 2, 1, 3, 2]
        values = iter(range(100))
        given = [[picture(next(values)) for _ in range(count)] for count in counts]
        found = await asyncio.gather(*(batcher.encode(encoder, pictures) for pictures in given))
        logits = [one.logits.tolist() for one in found]
        assert logits == [[0], [1, 2], [3], [4, 5, 6], [7, 8]]
        assert [one.embeddings[:, 1].tolist() for one in found] == [[-value for value in row] for row in logits]
        assert encoder.sizes == [7, 2]
        assert batcher.waiting == 0
        assert (batcher.batches, batcher.encoded) == (2, 9)
        await batcher.close()

    run_alone(run())


def test_more_than_may_wait_are_refused_but_one_study_never() -> None:
    async def run() -> None:
        batcher, encoder = Batcher(2, 0, 4), Constant(wait=0.1)
        many = asyncio.create_task(batcher.encode(encoder, [picture(n) for n in range(6)]))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(batcher.encode(encoder, [picture(n)])) for n in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="the server is busy"):
            await batcher.encode(encoder, [picture(9)])
        assert len((await many).logits) == 6
        assert [one.logits.tolist() for one in await asyncio.gather(*waiting)] == [[0], [1], [2], [3]]
        await batcher.close()

    run_alone(run())


def test_a_failure_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Constant):
        def encode_prepared(self, pictures: Sequence[Any]) -> Encoded:
            super().encode_prepared(pictures)
            raise RuntimeError("no memory")

    async def run() -> None:
        encoder, batcher = Broken(wait=0.2), Batcher(8, 0, 100)
        asking = asyncio.create_task(batcher.encode(encoder, [picture(1)]))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        found = await asyncio.gather(batcher.encode(Broken(), [picture(2)]), return_exceptions=True)
        assert isinstance(found[0], RuntimeError)
        await batcher.close()

    run_alone(run())
    [record] = caplog.records
    assert record.message.startswith("RuntimeError in _run:")
    assert "no memory" not in record.message


def test_models_are_not_mixed_and_a_failure_reaches_only_its_batch() -> None:
    class Broken(Constant):
        def encode_prepared(self, pictures: Sequence[Any]) -> Encoded:
            raise RuntimeError("no memory")

    async def run() -> None:
        one, other, batcher = Constant(), Broken(), Batcher(8, 0.02, 100)
        found = await asyncio.gather(
            batcher.encode(one, [picture(1)]),
            batcher.encode(other, [picture(2)]),
            batcher.encode(one, [picture(3)]),
            return_exceptions=True,
        )
        assert isinstance(found[1], RuntimeError)
        assert [one.logits.tolist() for one in (found[0], found[2]) if isinstance(one, Encoded)] == [[1], [3]]
        assert one.sizes == [1, 1]
        await batcher.close()

    run_alone(run())


def test_the_gate_gives_back_what_was_taken() -> None:
    gate = Admission(requests=2, memory=100)
    with gate.enter() as first, gate.enter() as second:
        with pytest.raises(Refused) as full, gate.enter():
            pass
        assert (full.value.status, full.value.retry) == (503, 1)
        first.take(60)
        with pytest.raises(Refused):
            second.take(50)
        second.take(40)
        assert gate.bytes == 100
    assert (gate.inside, gate.bytes) == (0, 0)
    with gate.enter() as alone:
        alone.take(1000)  # one request's own limits are others
    assert gate.bytes == 0


def study(size: int) -> Study:
    encoded = Encoded(np.zeros((1, 2), np.float32), np.zeros(1, np.float32))
    return Study((View("a", np.zeros((1, size), np.uint8)),), encoded, (), None, "", 0.0)


def test_studies_are_remembered_for_a_while_and_within_bounds() -> None:
    now = 0.0
    kept = StudyStore(most=100, seconds=10, clock=lambda: now)
    names = [kept.add(study(40)) for _ in range(3)]
    assert len(set(names)) == 3
    assert (len(kept), kept.bytes) == (2, 80)
    with pytest.raises(Refused, match="no longer remembered"):
        kept.get(names[0])
    kept.forget(names[1])
    kept.forget(names[1])
    now = 9.9
    late = kept.add(study(500))  # larger than all, alone
    assert (len(kept), kept.bytes) == (1, 500)
    assert kept.get(late).bytes == 500
    now = 20.0
    with pytest.raises(Refused):
        kept.get(late)
    assert (len(kept), kept.bytes) == (0, 0)


def test_changes_are_there_for_the_next_one(
    place: Path, squares: Callable[..., Collection], model: Path, tmp_path: Path
) -> None:
    engine = SearcherPool.open(place)
    with engine.borrow() as former:
        assert former.source.cases == 6
        with IndexWriter.open(place) as edit:
            edit.remove({"study": ["s1"]})
        with engine.borrow() as later:
            assert later.source.cases == 4
        build_index(squares(BRIGHT, "other"), tmp_path / "new", model=model)
        shutil.move(place, tmp_path / "old")
        shutil.move(tmp_path / "new", place)
        with engine.borrow() as replaced:
            assert replaced.source.cases == 2
            assert replaced.encoder is former.encoder
        assert former.index.find("study", ["s2"])  # still open for who has it
    engine.close()


def test_a_study_of_another_model_is_asked_for_anew(
    place: Path,
    squares: Callable[..., Collection],
    make_model: Callable[..., Path],
    tmp_path: Path,
    png: Png,
    serve: Serve,
) -> None:
    with httpx.Client(base_url=serve(), timeout=20) as client:
        asked = client.post("/api/search", files={"files": png(200)}, data={"heatmap": "true"}).json()
        other = make_model(tmp_path / "other-model", seen=["ab" * 32])
        build_index(squares(BRIGHT, "other"), tmp_path / "new", model=other)
        shutil.move(place, tmp_path / "old")
        shutil.move(tmp_path / "new", place)
        study = asked["remembered"]["study"]
        for path in (study, f"{study}/views/1/heatmap", f"{study}/views/1/likeness?case=s5-1.png"):
            reply = client.get(path)
            assert (reply.status_code, "another model" in reply.json()["error"]) == (404, True)
        answer = client.post("/api/search", files={"files": png(200)}).json()
        assert answer["model"]["sha256"] != asked["model"]["sha256"]
        assert answer["index"]["cases"] == 2


def test_one_that_cannot_be_opened_is_not_gone_over_to(place: Path, tmp_path: Path, png: Png, serve: Serve) -> None:
    with httpx.Client(base_url=serve(), timeout=60) as client:
        shutil.copytree(place, tmp_path / "copy")
        (place / "cases.sqlite").rename(place / "away")
        (place / "cases.sqlite").write_bytes(b"no database, but a long enough file" * 100)
        reply = client.post("/api/search", files={"files": png(200)})
        assert (reply.status_code, reply.json()["index"]["cases"]) == (200, 6)
        assert (client.get("/readyz").status_code, client.get("/healthz").status_code) == (503, 200)
        shutil.rmtree(place)
        shutil.move(tmp_path / "copy", place)
        assert client.post("/api/search", files={"files": png(200)}).status_code == 200
        assert client.get("/readyz").status_code == 200


def test_of_a_deleted_index_nothing_is_answered(
    place: Path,
    tmp_path: Path,
    png: Png,
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("web.service.searcher_pool._MOMENT", 0.05)
    with httpx.Client(base_url=serve(), timeout=60) as client:
        shutil.copytree(place, tmp_path / "copy")
        shutil.rmtree(place)
        for _ in range(2):
            ready = client.get("/readyz")
            assert (ready.status_code, ready.text) == (503, "the index no longer exists\n")
        reply = client.post("/api/search", files={"files": png(200)})
        assert (reply.status_code, "no longer exists" in reply.json()["error"]) == (503, True)
        assert str(place) not in reply.text
        assert "mura_search_index_ready 0.0" in client.get("/metrics").text
        assert len([line for line in caplog.messages if "no longer holds an index" in line]) == 1
        shutil.move(tmp_path / "copy", place)
        assert client.get("/readyz").status_code == 200
        assert client.post("/api/search", files={"files": png(200)}).status_code == 200


def test_a_study_is_forgotten_in_time_though_nobody_asks(serve: Serve, png: Png) -> None:
    with httpx.Client(base_url=serve(limits={"remembered_seconds": 0.5}), timeout=60) as client:
        client.post("/api/search", files={"files": png(200)}, data={"heatmap": "true"})
        end = time.monotonic() + 20
        while "mura_search_remembered_bytes 0.0" not in client.get("/metrics").text:  # which itself forgets nothing
            assert time.monotonic() < end
            time.sleep(0.05)


def test_the_index_changes_between_requests_and_none_fails(
    place: Path, squares: Callable[..., Collection], model: Path, tmp_path: Path, png: Png, serve: Serve
) -> None:
    base = serve()
    done = threading.Event()
    statuses: list[tuple[int, int]] = []

    def ask(number: int) -> None:
        with httpx.Client(base_url=base, timeout=30) as client:
            while not done.is_set():
                reply = client.post("/api/search", files={"files": png(200, mark=number)}, data={"heatmap": "true"})
                statuses.append((reply.status_code, reply.json().get("index", {}).get("cases", 0)))

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]

        def answered(more: int) -> None:
            wanted, end = len(statuses) + more, time.monotonic() + 30
            while len(statuses) < wanted and time.monotonic() < end:
                time.sleep(0.02)

        for round_ in range(4):
            answered(8)
            build_index(squares(BRIGHT, f"data{round_}"), tmp_path / f"new{round_}", model=model)
            with IndexWriter.open(place) as edit:
                edit.relabel("s6" if round_ else "s1", 1)
            shutil.move(place, tmp_path / f"old{round_}")
            shutil.move(tmp_path / f"new{round_}", place)
        answered(8)
        done.set()
        for one in asking:
            one.result()
    assert {status for status, _ in statuses} == {200}
    assert {cases for _, cases in statuses} == {6, 2}
