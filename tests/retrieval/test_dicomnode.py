"""The DICOM node against pynetdicom's own SCU on loopback, with disconnects at every point."""

import contextlib
import gc
import ipaddress
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval.errors import ArchiveError, RadiographError

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pynetdicom = pytest.importorskip("pynetdicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")

from retrieval.dicomnode import Node, NodeSettings, Peer, send  # noqa: E402

Make = Callable[..., bytes]
CR = "1.2.840.10008.5.1.4.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ECHO = "1.2.840.10008.1.1"
QUIET = 0.4


class Recording:
    """What a node gave to be answered, and what it delivered: the studies' image names and the results' names."""

    def __init__(self) -> None:
        self.studies: list[list[str]] = []
        self.files: list[list[str]] = []
        self.delivered: list[str] = []
        self.said: list[str] = []
        self.fail: Exception | None = None
        self.refuse: Exception | None = None
        self.slow = 0.0

    def handle(self, files: list[Path], out: Path) -> None:
        time.sleep(self.slow)
        if self.fail:
            raise self.fail
        self.files.append([str(file) for file in files])
        self.studies.append(sorted(str(pydicom.dcmread(file).SOPInstanceUID) for file in files))
        (out / f"{len(self.studies)}.dcm").write_bytes(b"result")

    def deliver(self, files: list[Path]) -> None:
        if self.refuse:
            raise self.refuse
        self.delivered += [file.name for file in files]


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
def start(recording: Recording, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Starts a node: `start(callers=("PACS",))`; it is stopped at the end."""
    nodes: list[Node] = []

    def make(**settings: Any) -> Node:
        whole = NodeSettings(tmp_path / "spool", port=0, **{"quiet": QUIET, "retry": 0.3} | settings)
        node = Node(whole, recording.handle, recording.deliver, recording.said.append)
        node.start()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.stop()


@pytest.fixture
def image(dicom_bytes: Make, tmp_path: Path) -> Callable[..., Any]:
    """A radiograph as a Dataset: `image("1.2", "1.2.1")`."""

    def make(study: str, name: str, side: int = 8, **elements: Any) -> Any:
        rng = np.random.default_rng(0)
        path = tmp_path / "one.dcm"
        pixels = rng.integers(0, 255, (side, side), dtype=np.uint8)
        path.write_bytes(dicom_bytes(pixels, StudyInstanceUID=study, SOPInstanceUID=name, **elements))
        ds = pydicom.dcmread(path)
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        return ds

    return make


def associate(node: Node, title: str = "PACS", called: str = "MURASEARCH", kinds: tuple[str, ...] = (CR,)) -> Any:
    entity = pynetdicom.AE(ae_title=title)
    entity.connection_timeout = entity.acse_timeout = 5
    for kind in kinds:
        entity.add_requested_context(kind, "1.2.840.10008.1.2.1")
    return entity.associate("127.0.0.1", node.port, ae_title=called)


def store(node: Node, *images: Any, **options: Any) -> list[int]:
    association = associate(node, **options)
    assert association.is_established
    statuses = [association.send_c_store(one).Status for one in images]
    association.release()
    return statuses


def wait(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def leftovers(node: Node) -> list[Path]:
    return [path for path in node.settings.spool.rglob("*") if path.is_file()]


def test_instances_are_grouped_into_studies(start: Any, recording: Recording, image: Any) -> None:
    """Of two studies in one association, and a third view over another."""
    node = start()
    sent = [image("1.2", "1.2.1"), image("1.3", "1.3.1"), image("1.2", "1.2.2")]
    assert store(node, *sent) == [0, 0, 0]
    assert store(node, image("1.2", "1.2.3")) == [0]
    wait(lambda: node.counts["delivered"] == 2)
    assert sorted(recording.studies) == [["1.2.1", "1.2.2", "1.2.3"], ["1.3.1"]]
    assert sorted(recording.delivered) == ["1.dcm", "2.dcm"]
    assert leftovers(node) == []
    assert recording.said == []


def test_a_study_is_whole_when_it_was_quiet(start: Any, recording: Recording, image: Any) -> None:
    node = start(quiet=1.0)
    for number in range(4):  # longer in all than the quiet period
        store(node, image("1.2", f"1.2.{number}"))
        time.sleep(0.5)
        assert recording.studies == []
    wait(lambda: recording.studies)
    assert len(recording.studies[0]) == 4
    store(node, image("1.2", "1.2.9"))  # what comes after the answer is answered as well
    wait(lambda: len(recording.studies) == 2)
    assert recording.studies[1] == ["1.2.9"]


def test_the_same_instance_twice_is_one(start: Any, recording: Recording, image: Any) -> None:
    node = start()
    store(node, image("1.2", "1.2.1"), image("1.2", "1.2.1"))
    wait(lambda: recording.studies)
    assert recording.studies == [["1.2.1"]]


def test_names_in_the_spool_are_hashes(start: Any, recording: Recording, image: Any) -> None:
    node = start(quiet=60.0)
    store(node, image("1.2.777", "1.2.777.1", PatientName="Doe^Jane"))
    [file] = leftovers(node)
    assert "777" not in str(file.relative_to(node.settings.spool))
    assert (node.settings.spool / "in").stat().st_mode & 0o077 == 0


def test_echo(start: Any) -> None:
    association = associate(start(), kinds=(ECHO,))
    assert association.send_c_echo().Status == 0
    association.release()


def test_what_is_no_radiograph_is_refused(start: Any, recording: Recording, image: Any) -> None:
    node = start()
    capture = image("1.2", "1.2.2", SOPClassUID=CAPTURE, Modality="CT")
    own = image("1.2", "1.2.3", SOPClassUID=CAPTURE, Modality="OT", ManufacturerModelName="mura-search")
    nowhere = image("1.2", "1.2.4")
    nowhere.StudyInstanceUID = ""
    empty = image("1.2", "1.2.5")
    empty.Rows = 0
    statuses = store(node, capture, own, nowhere, empty, image("1.2", "1.2.1"), kinds=(CR, CAPTURE))
    assert statuses == [0xA900, 0xA900, 0xC000, 0xC000, 0]
    association = associate(node, kinds=(CT,))
    assert not association.accepted_contexts
    association.abort()
    wait(lambda: recording.studies)
    assert recording.studies == [["1.2.1"]]


def test_titles_are_limited(start: Any) -> None:
    node = start(callers=("PACS", "MODALITY"))
    for title, called, taken in (
        ("PACS", "MURASEARCH", True),
        ("MODALITY", "MURASEARCH", True),
        ("STRANGER", "MURASEARCH", False),
        ("PACS", "OTHER", False),
    ):
        association = associate(node, title, called)
        assert association.is_established is taken, title
        assert association.is_rejected is not taken
        if taken:
            association.release()


def test_addresses_are_limited(start: Any) -> None:
    node = start(networks=(ipaddress.ip_network("10.0.0.0/8"),))
    association = associate(node)
    assert not association.is_established
    node = start(networks=(ipaddress.ip_network("127.0.0.0/8"),))
    association = associate(node)
    assert association.is_established
    association.release()


@pytest.mark.parametrize(
    ("networks", "address", "taken"),
    [
        ((), "127.0.0.1", True),
        ((), "::1", True),
        ((), "::ffff:127.0.0.1", True),
        ((), "10.1.2.3", False),
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("10.0.0.0/8",), "11.1.2.3", False),
        (("10.0.0.0/8",), "127.0.0.1", False),
        (("10.0.0.0/8", "fd00::/8"), "fd00::1%eth0", True),
        (("fd00::/8",), "fe00::1", False),
    ],
)
def test_allowed_addresses(networks: tuple[str, ...], address: str, taken: bool, tmp_path: Path) -> None:
    settings = NodeSettings(tmp_path, networks=tuple(map(ipaddress.ip_network, networks)))
    assert settings.allows(address) is taken


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # pynetdicom's, of one connection
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # which leaves its socket
def test_disconnects_in_the_midst_of_a_store(
    start: Any, recording: Recording, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is cut before the last byte of an instance leaves nothing of it, and the node as it was."""
    monkeypatch.setattr("retrieval.dicomnode._NEGOTIATION", 1.0)
    node = start(quiet=2.0)
    whole = spoken(node, image("1.9", "1.9.1", side=200))
    assert len(whole) > 40_000
    wait(lambda: recording.studies == [["1.9.1"]])
    assert store(node, image("1.2", "1.2.1")) == [0]
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
    assert store(node, image("1.2", "1.2.3")) == [0]
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


def test_an_abort_between_two_stores(start: Any, recording: Recording, image: Any) -> None:
    node = start()
    association = associate(node)
    assert association.send_c_store(image("1.2", "1.2.1")).Status == 0
    association.abort()
    wait(lambda: recording.studies)
    assert recording.studies == [["1.2.1"]]


def test_noise_does_not_stop_it(start: Any, recording: Recording, image: Any) -> None:
    node = start()
    rng = np.random.default_rng(1)
    for size in (1, 10, 1000, 100_000):
        with socket.create_connection(("127.0.0.1", node.port)) as connection, contextlib.suppress(OSError):
            connection.sendall(rng.bytes(size))
    assert store(node, image("1.2", "1.2.1")) == [0]
    wait(lambda: recording.studies)


def test_a_message_that_grows_too_large_is_cut_off(
    start: Any, recording: Recording, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.dicomnode.MAX_BYTES", 10_000)
    monkeypatch.setattr("retrieval.dicomnode._SLACK", 1_000)
    node = start()
    association = associate(node)
    assert not association.send_c_store(image("1.2", "1.2.1", side=400))
    assert node.counts["too large"] >= 1
    assert store(node, *(image("1.2", f"1.2.{number}", side=80) for number in range(5))) == [0] * 5  # 32 kB in all
    wait(lambda: recording.studies)


def test_what_was_acknowledged_survives_a_restart(start: Any, recording: Recording, image: Any) -> None:
    node = start(quiet=60.0)
    store(node, image("1.2", "1.2.1"), image("1.3", "1.3.1"))
    node.stop()
    spool = node.settings.spool
    study = sorted((spool / "in").iterdir())[0]
    study.rename(spool / "work" / f"{study.name}-0123abcd")  # as if it had been killed while it answered this one
    (spool / "out" / f"{study.name}-0123abcd").mkdir()
    (spool / "out" / f"{study.name}-0123abcd" / "half.dcm").write_bytes(b"half")
    again = start()
    wait(lambda: again.counts["delivered"] == 2)
    assert sorted(recording.studies) == [["1.2.1"], ["1.3.1"]]
    assert "half.dcm" not in recording.delivered
    assert leftovers(again) == []


def test_results_that_nobody_takes_are_kept(start: Any, recording: Recording, image: Any) -> None:
    recording.refuse = ArchiveError("PACS cannot be reached")
    node = start()
    store(node, image("1.2", "1.2.1"))
    wait(lambda: len(recording.said) > 1)
    assert recording.said[0] == "a result could not be delivered, and is kept: PACS cannot be reached"
    assert recording.delivered == []
    node.stop()
    recording.refuse = None
    start()
    wait(lambda: recording.delivered == ["1.dcm"])
    assert len(recording.studies) == 1


@pytest.mark.parametrize("error", [RadiographError("it is damaged"), ZeroDivisionError("Doe^Jane")])
def test_a_study_that_cannot_be_answered_does_not_stop_it(
    start: Any, recording: Recording, image: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "mura-search")
    recording.fail = error
    node = start()
    store(node, image("1.2", "1.2.1"))
    wait(lambda: node.counts["failed"] == 1)
    assert len(recording.said) == 1
    assert "Doe" not in recording.said[0] + caplog.text
    assert ("ZeroDivisionError in _answer:" in caplog.text) == isinstance(error, ZeroDivisionError)
    recording.fail = None
    store(node, image("1.3", "1.3.1"))
    wait(lambda: recording.studies)
    assert recording.studies == [["1.3.1"]]


def test_a_full_disk(start: Any, recording: Recording, image: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be kept is not acknowledged."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    node = start()
    with monkeypatch.context() as patch:
        patch.setattr("retrieval.dicomnode.write_whole", full)
        assert store(node, image("1.2", "1.2.1")) == [0xA700]
    assert recording.said == ["a radiograph could not be kept: No space left on device"]
    assert store(node, image("1.2", "1.2.2")) == [0]
    wait(lambda: recording.studies == [["1.2.2"]])


def test_many_at_once(start: Any, recording: Recording, image: Any) -> None:
    node = start(quiet=1.0)
    images = [image(f"1.{2 + number % 3}", f"1.2.{number}") for number in range(24)]
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


def test_send(image: Any, tmp_path: Path) -> None:
    """To another node, pynetdicom's own SCP; one that refuses; one that is not there."""
    status, seen = [0x0000], []

    def take(event: Any) -> int:
        seen.append(str(event.request.AffectedSOPInstanceUID))
        return status[0]

    entity = pynetdicom.AE(ae_title="PACS")
    entity.require_called_aet = True
    entity.add_supported_context(CR)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(pynetdicom.evt.EVT_C_STORE, take)])
    port = server.socket.getsockname()[1]
    peer = Peer("PACS", "127.0.0.1", port)
    try:
        send([image("1.2", "1.2.1"), image("1.2", "1.2.2")], peer)
        assert seen == ["1.2.1", "1.2.2"]
        status[0] = 0xB000
        send([image("1.2", "1.2.3")], peer)
        status[0] = 0xA700
        with pytest.raises(ArchiveError, match=r"did not take an instance \(status 0xA700\)"):
            send([image("1.2", "1.2.4")], peer)
        with pytest.raises(ArchiveError, match="cannot be reached, or refuses us"):
            send([image("1.2", "1.2.5")], Peer("OTHER", "127.0.0.1", port))
        with pytest.raises(ArchiveError, match=r"PACS@127.0.0.1:\d+ takes no such instances"):
            send([image("1.2", "1.2.6", SOPClassUID=CAPTURE)], peer)
    finally:
        server.shutdown()
    with pytest.raises(ArchiveError, match="cannot be reached"):
        send([image("1.2", "1.2.7")], peer)


def test_a_port_that_is_taken(start: Any, recording: Recording, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = NodeSettings(tmp_path / "other", port=taken.getsockname()[1])
        with pytest.raises(ArchiveError, match="cannot be listened at"):
            Node(settings, recording.handle, recording.deliver).start()
    shutil.rmtree(tmp_path / "other")


def test_peers() -> None:
    assert Peer.parse("PACS@10.0.0.5:104") == Peer("PACS", "10.0.0.5", 104)
    assert Peer.parse("PACS@[::1]:104") == Peer("PACS", "::1", 104)
    for text in ("PACS", "PACS@host", "@host:1", "PACS@host:x", "PACS@host:0", "PACS@host:70000", "A" * 17 + "@h:1"):
        with pytest.raises(ValueError, match="TITLE@HOST:PORT"):
            Peer.parse(text)
