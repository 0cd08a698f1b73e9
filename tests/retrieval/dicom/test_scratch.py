"""Fetched radiographs do not outlive the process that fetched them."""

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.dicom.scratch import scratch_folder

ROOT = Path(__file__).parents[3]
PROGRAM = """
import signal, time
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
from retrieval.dicom.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "SECRET.dcm").write_bytes(b"radiograph")
    print("ready", flush=True)
    while True:
        time.sleep(0.05)  # a signal that comes before a sleep does not end it
"""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def default_signal() -> Iterator[None]:
    """SIGTERM as a new process has it: a command that another test ran in this process may have set it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def start() -> "subprocess.Popen[str]":
    """The program, ready; it ends by signals that this process may ignore, as under nohup."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: "subprocess.Popen[str]", number: int) -> int:
    process.send_signal(number)
    try:
        process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    assert end(start(), number) != 0
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "mura-search-other").mkdir()  # without a lock: of somebody else
    end(start(), signal.SIGKILL)
    running = start()
    assert len(list(tmp_path.glob("*/SECRET.dcm"))) == 1, "the killed one's is gone"
    with scratch_folder() as folder:
        assert folder.parent == tmp_path
        assert len(list(tmp_path.glob("*/SECRET.dcm"))) == 1, "the running one's is not"
    end(running, signal.SIGTERM)
    assert [path.name for path in tmp_path.iterdir()] == ["mura-search-other"]


def test_in_another_thread_signals_stay_as_they_are(tmp_path: Path, default_signal: None) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with scratch_folder():
            assert signal.getsignal(signal.SIGTERM) is before

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with scratch_folder():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert list(tmp_path.iterdir()) == []
