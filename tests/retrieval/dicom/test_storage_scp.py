"""The DICOM node against pynetdicom's own SCU on loopback: who may send, what becomes of it, and what it sends."""

import ipaddress
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from retrieval.errors import ArchiveError

pynetdicom = pytest.importorskip("pynetdicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")

from retrieval.dicom.storage_scp import Node, NodeSettings  # noqa: E402  # only where they are installed
from retrieval.dicom.storage_scu import Peer, send  # noqa: E402
from tests.retrieval.dicom.dicom_peer import CAPTURE, CR, Recording, associate, leftovers, store, wait  # noqa: E402

CT = "1.2.840.10008.5.1.4.1.1.2"
ECHO = "1.2.840.10008.1.1"


def test_instances_are_grouped_into_studies(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    """Of two studies in one association, and a third view over another."""
    node = start_node(quiet=2.0)
    sent = [dicom_image("1.2", "1.2.1"), dicom_image("1.3", "1.3.1"), dicom_image("1.2", "1.2.2")]
    assert store(node, *sent) == [0, 0, 0]
    assert store(node, dicom_image("1.2", "1.2.3")) == [0]
    wait(lambda: node.counts["delivered"] == 2)
    assert sorted(recording.studies) == [["1.2.1", "1.2.2", "1.2.3"], ["1.3.1"]]
    assert sorted(recording.delivered) == ["1.dcm", "2.dcm"]
    assert leftovers(node) == []
    assert recording.said == []


def test_a_study_is_whole_when_it_was_quiet(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    node = start_node(quiet=1.0)
    for number in range(4):  # longer in all than the quiet period
        store(node, dicom_image("1.2", f"1.2.{number}"))
        time.sleep(0.5)
        assert recording.studies == []
    wait(lambda: recording.studies)
    assert len(recording.studies[0]) == 4
    store(node, dicom_image("1.2", "1.2.9"))  # what comes after the answer is answered as well
    wait(lambda: len(recording.studies) == 2)
    assert recording.studies[1] == ["1.2.9"]


def test_the_same_instance_twice_is_one(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    node = start_node()
    store(node, dicom_image("1.2", "1.2.1"), dicom_image("1.2", "1.2.1"))
    wait(lambda: recording.studies)
    assert recording.studies == [["1.2.1"]]


def test_names_in_the_spool_are_hashes(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    node = start_node(quiet=60.0)
    store(node, dicom_image("1.2.777", "1.2.777.1", PatientName="Doe^Jane"))
    [file] = leftovers(node)
    assert "777" not in str(file.relative_to(node.settings.spool))
    assert (node.settings.spool / "in").stat().st_mode & 0o077 == 0


def test_echo(start_node: Any) -> None:
    association = associate(start_node(), kinds=(ECHO,))
    assert association.send_c_echo().Status == 0
    association.release()


def test_what_is_no_radiograph_is_refused(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    node = start_node()
    capture = dicom_image("1.2", "1.2.2", SOPClassUID=CAPTURE, Modality="CT")
    own = dicom_image("1.2", "1.2.3", SOPClassUID=CAPTURE, Modality="OT", ManufacturerModelName="mura-search")
    nowhere = dicom_image("1.2", "1.2.4")
    nowhere.StudyInstanceUID = ""
    empty = dicom_image("1.2", "1.2.5")
    empty.Rows = 0
    statuses = store(node, capture, own, nowhere, empty, dicom_image("1.2", "1.2.1"), kinds=(CR, CAPTURE))
    assert statuses == [0xA900, 0xA900, 0xC000, 0xC000, 0]
    association = associate(node, kinds=(CT,))
    assert not association.accepted_contexts
    association.abort()
    wait(lambda: recording.studies)
    assert recording.studies == [["1.2.1"]]


def test_titles_are_limited(start_node: Any) -> None:
    node = start_node(callers=("PACS", "MODALITY"))
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


def test_addresses_are_limited(start_node: Any) -> None:
    node = start_node(networks=(ipaddress.ip_network("10.0.0.0/8"),))
    association = associate(node)
    assert not association.is_established
    node = start_node(networks=(ipaddress.ip_network("127.0.0.0/8"),))
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


def test_send(dicom_image: Any, tmp_path: Path) -> None:
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
        send([dicom_image("1.2", "1.2.1"), dicom_image("1.2", "1.2.2")], peer)
        assert seen == ["1.2.1", "1.2.2"]
        status[0] = 0xB000
        send([dicom_image("1.2", "1.2.3")], peer)
        status[0] = 0xA700
        with pytest.raises(ArchiveError, match=r"did not accept an instance \(status 0xA700\)"):
            send([dicom_image("1.2", "1.2.4")], peer)
        with pytest.raises(ArchiveError, match="cannot be reached, or refuses us"):
            send([dicom_image("1.2", "1.2.5")], Peer("OTHER", "127.0.0.1", port))
        with pytest.raises(ArchiveError, match=r"PACS@127.0.0.1:\d+ does not accept such instances"):
            send([dicom_image("1.2", "1.2.6", SOPClassUID=CAPTURE)], peer)
    finally:
        server.shutdown()
    with pytest.raises(ArchiveError, match="cannot be reached"):
        send([dicom_image("1.2", "1.2.7")], peer)


def test_a_port_that_is_taken(start_node: Any, recording: Recording, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = NodeSettings(tmp_path / "other", port=taken.getsockname()[1])
        with pytest.raises(ArchiveError, match="cannot listen at"):
            Node(settings, recording.handle, recording.deliver).start()
    shutil.rmtree(tmp_path / "other")


def test_peers() -> None:
    assert Peer.parse("PACS@10.0.0.5:104") == Peer("PACS", "10.0.0.5", 104)
    assert Peer.parse("PACS@[::1]:104") == Peer("PACS", "::1", 104)
    for text in ("PACS", "PACS@host", "@host:1", "PACS@host:x", "PACS@host:0", "PACS@host:70000", "A" * 17 + "@h:1"):
        with pytest.raises(ValueError, match="TITLE@HOST:PORT"):
            Peer.parse(text)
