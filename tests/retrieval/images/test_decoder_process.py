"""Decoding in processes: the same radiographs, and an end for what takes too long."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from retrieval.errors import RadiographError
from retrieval.images import decoder_process
from retrieval.images.decoder_process import DecoderPool
from retrieval.images.radiograph import decode_frames, read_frames

ENDLESS = "def main(_socket, _memory):\n    while True:\n        pass\n"


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    made = DecoderPool(2, 20)
    yield made
    made.close()


def png(side: int = 40) -> bytes:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side + 3, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_radiographs_are_the_same_as_without(pool: DecoderPool, tmp_path: Path) -> None:
    cut = cv2.imencode(".jpg", np.tile(np.arange(256, dtype=np.uint8), (256, 1)))[1].tobytes()[:-200]
    for data, name in ((png(), "a.png"), (png(90), "b"), (cut, "cut.jpg")):
        (tmp_path / name).write_bytes(data)
        for expected, read in (
            (decode_frames(data, name), pool.decode(data, name)),
            (read_frames(tmp_path / name), pool.read(tmp_path / name)),
        ):
            assert len(read) == len(expected) == 1
            np.testing.assert_array_equal(read[0].pixels, expected[0].pixels)
            assert (read[0].digest, read[0].notices, read[0].frame) == (
                expected[0].digest, expected[0].notices, expected[0].frame,
            )  # fmt: skip
    assert pool.decode(cut, "cut.jpg")[0].notices


def test_refusals_are_the_same_as_without(pool: DecoderPool, tmp_path: Path) -> None:
    for data in (b"", b"no image", png()[:60]):
        with pytest.raises(RadiographError) as expected:
            decode_frames(data, "q.png")
        with pytest.raises(RadiographError) as refused:
            pool.decode(data, "q.png")
        assert str(refused.value) == str(expected.value)
    with pytest.raises(RadiographError, match=r"none\.png cannot be read"):
        pool.read(tmp_path / "none.png")


def test_dicom_frames_and_patients_come_through(pool: DecoderPool, dicom_bytes: Callable[..., bytes]) -> None:
    data = dicom_bytes(np.full((8, 8), 100, np.uint8), PatientID="P1")
    [expected], [read] = decode_frames(data, "a.dcm"), pool.decode(data, "a.dcm")
    np.testing.assert_array_equal(read.pixels, expected.pixels)
    assert (read.patient, read.notices) == ("P1", expected.notices)


def endless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let processes take no question, as in a decoder that does not return."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    monkeypatch.syspath_prepend(str(tmp_path))
    start = decoder_process._START.replace("retrieval.images.decoder_process", "endless")
    monkeypatch.setattr(decoder_process, "_START", start)


def test_a_decoder_that_does_not_return_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pool = DecoderPool(1, 0.2)
    with monkeypatch.context() as patch:
        endless(patch, tmp_path)
        started = time.monotonic()
        with pytest.raises(RadiographError, match=r"a\.png needs more than 0 s to decode"):
            pool.decode(png(), "a.png")
        assert time.monotonic() - started < 5
    pool._all[0]._seconds = 20
    pool.decode(png(), "a.png")  # by a new process
    pool.close()


@pytest.mark.parametrize("how", ["abandoned", "closed"])
def test_decoding_that_nobody_waits_for_is_ended(how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    endless(monkeypatch, tmp_path)
    pool, abandoned = DecoderPool(1, 60), threading.Event()
    timer = threading.Timer(0.5, abandoned.set if how == "abandoned" else pool.close)
    timer.start()
    started = time.monotonic()
    with pytest.raises(RadiographError):
        pool.decode(png(), "a.png", abandoned=abandoned)
    assert time.monotonic() - started < 10
    pool.close()
    timer.join()


def test_a_process_has_a_limit_of_its_own(pool: DecoderPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of processor time, so that it ends also if the server was killed."""
    slow = DecoderPool(1, 0.1)
    monkeypatch.setattr(decoder_process, "_SLOWED", 1000)
    large = cv2.imencode(".jpg", np.full((6000, 6000, 3), 99, np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    with pytest.raises(RadiographError, match="to decode"):
        slow.decode(large, "a.jpg")
    slow.close()
    assert pool.decode(large, "a.jpg")[0].pixels.shape == (6000, 6000)


def test_processes_end_with_the_pool() -> None:
    pool = DecoderPool(2, 20)
    pool.warm_up()
    processes = [decoder._process.pid for decoder in pool._all if decoder._process]
    assert len(processes) == 2
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH112, PTH208
    pool.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    if before:
        assert len(os.listdir("/proc/self/fd")) < before  # noqa: PTH208
    with pytest.raises(RadiographError):
        pool.decode(png(), "a.png")
