"""What libjpeg says of a damaged file becomes a notice, and nothing of it reaches stderr."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from retrieval.errors import RadiographError
from retrieval.images import decoder_messages
from retrieval.images.decoder_messages import messages_of_opencv, messages_of_this_thread
from tests.raster_files import ARM, arm, codes, encoded, tiff


def damaged(seed: int, data: bytes) -> bytes:
    dice = np.random.default_rng(seed)
    at = len(data) // 3 + int(dice.integers(len(data) // 3))
    return data[:at] + dice.integers(0, 255, 12, np.uint8).tobytes() + data[at + 12 :]


def test_a_jpeg_that_libjpeg_calls_corrupt_has_a_notice() -> None:
    noisy = cv2.add(arm(400, 300), np.random.default_rng(0).integers(0, 30, (400, 300), np.uint8))
    whole = encoded(".jpg", noisy)
    assert codes(whole) == []
    said = []
    for seed in range(40):
        data = damaged(seed, whole)
        with messages_of_this_thread() as heard:
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        try:
            found = "damaged" in codes(data)
        except RadiographError:
            found = True
        assert found or b"Corrupt" not in b"".join(heard), seed
        said.append(found)
    assert sum(said) > 20


def test_messages_are_told_apart_by_thread() -> None:
    whole = encoded(".jpg", cv2.add(ARM, np.random.default_rng(0).integers(0, 30, ARM.shape, np.uint8)))
    files = [damaged(seed, whole) if seed % 2 else whole for seed in range(60)]

    def notices(data: bytes) -> list[str] | str:
        try:
            return codes(data)
        except RadiographError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(notices, files)) == [notices(data) for data in files]


@pytest.mark.parametrize("gnu", [True, False])
def test_nothing_of_it_reaches_stderr_but_what_others_write(
    gnu: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not gnu:
        monkeypatch.setattr(decoder_messages, "_stderr", lambda: None)
    cut = encoded(".jpg", ARM)[:-9] + b"\xff\xd9"
    with messages_of_this_thread() as heard:
        cv2.imdecode(np.frombuffer(cut, np.uint8), 0)
        writer = threading.Thread(target=os.write, args=(2, b"heard\n"))
        writer.start()
        writer.join()
    assert b"premature end" in b"".join(heard)
    with messages_of_opencv() as heard:
        os.write(2, b"[ERROR:0@1.0] global grfmt_tiff.cpp:117 TIFF_Error x\n> y\ntoo\n")
    assert b"TIFF_Error" in heard[0]
    assert capfd.readouterr().err == "heard\ntoo\n"


def test_other_c_libraries_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (AttributeError, ValueError):

        def refuse(name: str, error: type[Exception] = error) -> str:
            raise error(name)

        monkeypatch.setattr(os, "confstr", refuse)
        assert decoder_messages._stderr.__wrapped__() is None


def test_a_process_without_stderr_reads_all_the_same() -> None:
    program = (
        "import os, sys; os.close(2)\n"
        "from retrieval.images.radiograph import decode_radiograph\n"
        "print([n.code.value for n in decode_radiograph(sys.stdin.buffer.read()).notices])"
    )
    for data, said in ((tiff((ARM, {})), "[]"), (encoded(".jpg", ARM)[:-9] + b"\xff\xd9", "['ends-early', 'damaged']")):
        done = subprocess.run([sys.executable, "-c", program], input=data, stdout=subprocess.PIPE, check=True)
        assert done.stdout.decode().strip() == said
