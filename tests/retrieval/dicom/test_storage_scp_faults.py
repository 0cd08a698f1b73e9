"""The DICOM node with disconnects at every point, noise, restarts, a full disk, and studies that cannot be answered."""

import contextlib
import gc
import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.errors import IndexBusy
from retrieval.errors import ArchiveError, OutputError, RadiographError

pynetdicom = pytest.importorskip("pynetdicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")

from retrieval.dicom.spool import Spool  # noqa: E402  # only where they are installed
from retrieval.dicom.storage_scp import Node  # noqa: E402
from tests.retrieval.dicom.dicom_peer import CR, Recording, associate, leftovers, store, wait  # noqa: E402


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # pynetdicom's, of one connection
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # which leaves its socket
def test_disconnects_in_the_midst_of_a_store(
    start_node: Any, recording: Recording, dicom_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is cut before the last byte of an instance leaves nothing of it, and the node as it was."""
    monkeypatch.setattr("retrieval.dicom.storage_scp._NEGOTIATION", 1.0)
    node = start_node(quiet=2.0)
    whole = spoken(node, dicom_image("1.9", "1.9.1", side=200))
    assert len(whole) > 40_000
    wait(lambda: recording.studies == [["1.9.1"]])
    assert store(node, dicom_image("1.2", "1.2.1")) == [0]
    asked = 6 + int.from_bytes(whole[2:6], "big")  # the bytes that ask for an association (PS3.8, 9.3.2)
    release = 10  # and those that end it
    for cut in (0, 1, 50, asked, asked + 1, asked + 200, len(whole) // 2, len(whole) - release - 1):
        for patient in (True, False):
            with socket.create_connection(("127.0.0.1", node.port)) as connection:
                connection.sendall(whole[: min(cut, asked)])
                if patient and cut >= asked:
                    assert connection.recv(1) == b"\2"  # accepted
                connection.sendall(whole[asked:cut])
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not a close
    assert store(node, dicom_image("1.2", "1.2.3")) == [0]
    wait(lambda: len(recording.studies) == 2)
    assert recording.studies[1] == ["1.2.1", "1.2.3"]
    wait(lambda: not node._server.active_associations)
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(whole[:asked])
        assert connection.recv(1) == b"\2"
        connection.sendall(whole[asked:])
        wait(lambda: len(recording.studies) == 3)  # the very same bytes in whole are taken
    assert recording.studies[2] == ["1.9.1"]
    wait(lambda: leftovers(node) == [])
    gc.collect()


def spoken(node: Node, one: Any) -> bytes:
    """What an SCU sends to store an instance, up to its last byte: recorded by a server between the two."""
    sent = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def relay() -> None:
            client, _ = server.accept()
            with client, socket.create_connection(("127.0.0.1", node.port)) as target:
                back = threading.Thread(target=pump, args=(target, client, None))
                back.start()
                pump(client, target, sent)
                back.join()

        thread = threading.Thread(target=relay)
        thread.start()
        entity = pynetdicom.AE(ae_title="PACS")
        entity.add_requested_context(CR, "1.2.840.10008.1.2.1")
        association = entity.associate("127.0.0.1", server.getsockname()[1], ae_title="MURASEARCH")
        assert association.send_c_store(one).Status == 0
        association.release()
        thread.join()
    return bytes(sent)


def pump(source: socket.socket, target: socket.socket, record: bytearray | None) -> None:
    try:
        while data := source.recv(65536):
            if record is not None:
                record += data
            target.sendall(data)
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def test_an_abort_between_two_stores(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    node = start_node()
    association = associate(node)
    assert association.send_c_store(dicom_image("1.2", "1.2.1")).Status == 0
    association.abort()
    wait(lambda: recording.studies)
    assert recording.studies == [["1.2.1"]]


def test_noise_does_not_stop_it(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    node = start_node()
    rng = np.random.default_rng(1)
    for size in (1, 10, 1000, 100_000):
        with socket.create_connection(("127.0.0.1", node.port)) as connection, contextlib.suppress(OSError):
            connection.sendall(rng.bytes(size))
    assert store(node, dicom_image("1.2", "1.2.1")) == [0]
    wait(lambda: recording.studies)


def test_a_pdu_that_says_it_is_huge_is_not_waited_for(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    node = start_node()
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(b"\1\0" + (200 << 20).to_bytes(4, "big") + bytes(100))
        with contextlib.suppress(ConnectionError):
            while connection.recv(4096):
                pass
    assert node.counts["too large"] == 1
    assert store(node, dicom_image("1.2", "1.2.1")) == [0]
    wait(lambda: recording.studies)


def test_a_message_that_grows_too_large_is_cut_off(
    start_node: Any, recording: Recording, dicom_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.dicom.storage_scp.MAX_BYTES", 10_000)
    monkeypatch.setattr("retrieval.dicom.storage_scp._SLACK", 1_000)
    node = start_node()
    association = associate(node)
    assert not association.send_c_store(dicom_image("1.2", "1.2.1", side=400))
    assert node.counts["too large"] >= 1
    assert (
        store(node, *(dicom_image("1.2", f"1.2.{number}", side=80) for number in range(5))) == [0] * 5
    )  # 32 kB in all
    wait(lambda: recording.studies)


def test_what_was_acknowledged_survives_a_restart(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    node = start_node(quiet=60.0)
    store(node, dicom_image("1.2", "1.2.1"), dicom_image("1.3", "1.3.1"))
    node.stop()
    spool = node.settings.spool
    study = sorted((spool / "in").iterdir())[0]
    study.rename(spool / "work" / f"{study.name}-0123abcd")  # as if it had been killed while it answered this one
    (spool / "out" / f"{study.name}-0123abcd").mkdir()
    (spool / "out" / f"{study.name}-0123abcd" / "half.dcm").write_bytes(b"half")
    again = start_node()
    wait(lambda: again.counts["delivered"] == 2)
    assert sorted(recording.studies) == [["1.2.1"], ["1.3.1"]]
    assert "half.dcm" not in recording.delivered
    assert leftovers(again) == []


def test_results_that_nobody_takes_are_kept(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    recording.refuse = ArchiveError("PACS cannot be reached")
    node = start_node()
    store(node, dicom_image("1.2", "1.2.1"))
    wait(lambda: len(recording.said) > 1)
    assert recording.said[0] == "a result could not be delivered, and is kept: PACS cannot be reached"
    assert recording.delivered == []
    node.stop()
    recording.refuse = None
    start_node()
    wait(lambda: recording.delivered == ["1.dcm"])
    assert len(recording.studies) == 1


@pytest.mark.parametrize("error", [RadiographError("it is damaged"), ZeroDivisionError("Doe^Jane")])
def test_a_study_that_cannot_be_answered_does_not_stop_it(
    start_node: Any, recording: Recording, dicom_image: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "mura-search")
    recording.fail = error
    node = start_node()
    store(node, dicom_image("1.2", "1.2.1"))
    wait(lambda: node.counts["failed"] == 1)
    assert len(recording.said) == 1
    assert "Doe" not in recording.said[0] + caplog.text
    assert ("ZeroDivisionError in _answer:" in caplog.text) == isinstance(error, ZeroDivisionError)
    recording.fail = None
    store(node, dicom_image("1.3", "1.3.1"))
    wait(lambda: recording.studies)
    assert recording.studies == [["1.3.1"]]


@pytest.mark.parametrize("error", [IndexBusy("the index is busy"), OutputError("no place"), OSError(28, "No space")])
def test_a_study_is_answered_when_what_was_missing_is_back(
    start_node: Any, recording: Recording, dicom_image: Any, error: Exception
) -> None:
    recording.fail = error
    node = start_node()
    store(node, dicom_image("1.2", "1.2.1"))
    wait(lambda: len(recording.said) >= 2)  # and tried again
    assert all(said.startswith("a study could not be answered yet, and is kept: ") for said in recording.said)
    assert node.counts["failed"] == 0
    recording.fail = None
    wait(lambda: recording.studies == [["1.2.1"]])
    wait(lambda: leftovers(node) == [])


def test_a_spool_that_cannot_be_worked_on_for_a_while_does_not_stop_it(
    start_node: Any, recording: Recording, dicom_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start_node()
    store(node, dicom_image("1.2", "1.2.1"))
    shutil.rmtree(node.settings.spool / "in" / next((node.settings.spool / "in").iterdir()).name)  # by somebody else

    def gone(self: Spool) -> list[Path]:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "take_complete", gone)
        wait(lambda: recording.said)
    store(node, dicom_image("1.3", "1.3.1"))
    wait(lambda: recording.studies == [["1.3.1"]])
    assert recording.said == ["the spool cannot be used, and is tried again: Input/output error"]


def test_a_full_disk(start_node: Any, recording: Recording, dicom_image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be kept is not acknowledged."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    node = start_node()
    with monkeypatch.context() as patch:
        patch.setattr("retrieval.dicom.spool.write_whole", full)
        assert store(node, dicom_image("1.2", "1.2.1")) == [0xA700]
    assert recording.said == ["a radiograph could not be kept: No space left on device"]
    assert store(node, dicom_image("1.2", "1.2.2")) == [0]
    wait(lambda: recording.studies == [["1.2.2"]])


def test_many_at_once(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    node = start_node(quiet=1.0)
    images = [dicom_image(f"1.{2 + number % 3}", f"1.2.{number}") for number in range(24)]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda part=part: statuses.extend(store(node, *images[part::6]))) for part in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 24
    wait(lambda: node.counts["delivered"] == 3)
    assert sorted(len(study) for study in recording.studies) == [8, 8, 8]
