"""What the node refuses at C-STORE instead of dropping it later, and what it keeps apart."""

import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retrieval.errors import RadiographError

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pynetdicom = pytest.importorskip("pynetdicom", reason="the extra dicom is not installed")
pytest.importorskip("pylibjpeg", reason="the extra dicom is not installed")

from retrieval.dicom import storage_scp  # noqa: E402  # only where they are installed
from retrieval.dicom.spool import Conflict, Spool  # noqa: E402
from tests.retrieval.dicom.dicom_peer import CR, Recording, associate, leftovers, store, wait  # noqa: E402

DUPLICATE, INVALID_INSTANCE, DOES_NOT_MATCH, NOT_UNDERSTOOD = 0x0111, 0x0117, 0xA900, 0xC000


def test_two_patients_under_one_study_are_kept_apart(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    node = start_node(quiet=1.0)
    alice = dicom_image("1.2", "1.2.1", PatientID="ALICE", PatientName="Alice")
    bob = dicom_image("1.2", "1.2.2", PatientID="BOB", PatientName="Bob")
    nobody = dicom_image("1.2", "1.2.3", PatientID="")
    assert store(node, alice, bob, nobody) == [0, DOES_NOT_MATCH, DOES_NOT_MATCH]
    wait(lambda: recording.studies)
    assert recording.studies == [["1.2.1"]]
    said = " ".join(recording.said)
    assert "status 0xA900: it has the Study Instance UID of another patient's study" in said
    assert not [name for name in ("ALICE", "BOB", "Alice", "1.2.1") if name in said]
    assert store(node, bob) == [0], "the other study is answered and gone"
    wait(lambda: len(recording.studies) == 2)


@pytest.mark.parametrize("study", ["1.2", "1.3"])
def test_another_radiograph_of_the_same_name_is_refused(
    start_node: Any, recording: Recording, dicom_image: Any, study: str
) -> None:
    """Also in another study. The very same radiograph again is taken."""
    node = start_node(quiet=1.0)
    first = dicom_image("1.2", "1.2.1")
    other = dicom_image(study, "1.2.1", side=9)
    assert store(node, first, other, first) == [0, DUPLICATE, 0]
    [file] = leftovers(node)
    assert pydicom.dcmread(file).PixelData == first.PixelData
    wait(lambda: recording.studies)
    assert recording.studies == [["1.2.1"]]
    assert any("SOP Instance UID of a different radiograph" in said for said in recording.said)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("uid", ["../../x", "1.2.3/../../x", "1" * 65, "a", "1.2.\n3", "1..2", ""])
def test_invalid_uids_are_refused(start_node: Any, recording: Recording, dicom_image: Any, uid: str) -> None:
    node = start_node()
    for keyword, status in (("StudyInstanceUID", NOT_UNDERSTOOD), ("SeriesInstanceUID", NOT_UNDERSTOOD)):
        image = dicom_image("1.2", "1.2.1")
        setattr(image, keyword, uid)
        assert store(node, image) == [status]
    if 0 < len(uid) <= 64:  # pynetdicom itself sends no longer one
        image = dicom_image("1.2", "1.2.1")
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid
        assert store(node, image)[0] in (INVALID_INSTANCE, NOT_UNDERSTOOD)
    assert leftovers(node) == []
    assert store(node, dicom_image("1.2", "1.2.1")) == [0]
    wait(lambda: recording.studies == [["1.2.1"]])


def test_a_name_other_than_the_announced_one_is_refused(
    start_node: Any, recording: Recording, dicom_image: Any
) -> None:
    node = start_node()
    entity = pynetdicom.AE(ae_title="PACS")
    entity.add_requested_context(CR, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", node.port, ae_title="MURASEARCH")
    image = dicom_image("1.2", "1.2.1")
    status = association.send_c_store(image)
    assert status.Status == 0
    image.SOPInstanceUID = "1.2.9"
    request = association.dimse.send_msg

    def renamed(primitive: Any, context: int) -> None:
        if type(primitive).__name__ == "C_STORE":
            primitive.AffectedSOPInstanceUID = "1.2.8"
        request(primitive, context)

    association.dimse.send_msg = renamed
    assert association.send_c_store(image).Status == NOT_UNDERSTOOD
    association.release()


def test_a_study_that_cannot_be_answered_is_kept(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    recording.fail = RadiographError("it is damaged")
    node = start_node()
    store(node, dicom_image("1.2", "1.2.1"))
    wait(lambda: node.counts["failed"] == 1)
    [kept] = (node.settings.spool / "failed").glob("*/*.dcm")
    assert f"kept in the spool as failed/{kept.parent.name}: it is damaged" in recording.said[0]
    node.stop()
    recording.fail = None
    kept.parent.rename(node.settings.spool / "in" / kept.parent.name)  # as an administrator may
    start_node()
    wait(lambda: recording.studies == [["1.2.1"]])


def test_an_association_that_breaks_off_is_reported(start_node: Any, recording: Recording, dicom_image: Any) -> None:
    node = start_node()
    association = associate(node)
    association.send_c_store(dicom_image("1.2", "1.2.1"))
    association.abort()
    wait(lambda: recording.said)
    assert "an association broke off" in recording.said[0]
    wait(lambda: recording.studies == [["1.2.1"]])
    assert store(node, dicom_image("1.3", "1.3.1")) == [0]
    wait(lambda: len(recording.studies) == 2)
    assert len(recording.said) == 1


def test_more_associations_than_allowed_are_reported(
    start_node: Any, recording: Recording, dicom_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_scp, "_ASSOCIATIONS", 2)
    node = start_node()
    held = [associate(node) for _ in range(2)]
    refused = associate(node)
    assert refused.is_rejected
    wait(lambda: recording.said)
    assert "an association was rejected: its AE title is not allowed, or 2 are open already" in recording.said
    silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(6)]
    wait(lambda: "too many connections are open: another one was closed" in recording.said)
    for connection in silent:
        connection.close()
    for association in held:
        assert association.send_c_store(dicom_image("1.2", "1.2.1")).Status == 0
        association.release()


def test_a_pdu_that_does_not_come_ends_its_association(
    start_node: Any, recording: Recording, dicom_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first bytes have come, and others now and then."""
    monkeypatch.setattr(storage_scp, "_SECONDS", 0.5)
    node = start_node()
    associations = [associate(node) for _ in range(3)]
    for association in associations:
        association.dul.socket.socket.sendall(b"\4\0\0\0\x40\0" + b"1234567890")
    until = time.monotonic() + 10
    while any(association.is_established for association in associations):
        assert time.monotonic() < until
        time.sleep(0.2)
    assert store(node, dicom_image("1.2", "1.2.1")) == [0]
    wait(lambda: recording.studies)


def test_the_bytes_of_all_messages_are_bounded(
    start_node: Any, recording: Recording, dicom_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_scp, "_ALL_BYTES", 100_000)
    node = start_node()
    first = associate(node)
    wait(lambda: node._incoming)
    [incoming] = node._incoming.values()
    incoming.bytes, incoming.since = 90_000, time.monotonic() - 1  # a message that another association is sending
    second = associate(node)
    assert not second.send_c_store(dicom_image("1.2", "1.2.1", side=300))
    assert "too much is sent at once: an association was ended" in recording.said
    incoming.bytes = 0
    assert first.send_c_store(dicom_image("1.2", "1.2.2", side=400)).Status == 0, "a message alone may be larger"
    first.release()


def test_a_slow_message_ends_its_association(
    start_node: Any, recording: Recording, dicom_image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_scp, "_SECONDS", -1.0)
    monkeypatch.setattr(storage_scp, "_SLOWEST", 1e12)
    node = start_node()
    node._incoming.clear()
    item = SimpleNamespace(presentation_data_value=b"a")
    aborted = threading.Event()
    event = SimpleNamespace(
        assoc=SimpleNamespace(abort=aborted.set), pdu=SimpleNamespace(presentation_data_value_items=[item])
    )
    node._incoming[id(event.assoc)] = storage_scp._Incoming()
    node._count(event)
    assert aborted.is_set()
    assert recording.said == ["a message came too slowly: its association was ended"]


def test_the_spool_says_which_conflict_it_is(tmp_path: Path) -> None:
    spool = Spool(tmp_path, quiet=60, retry=60)
    spool.open()
    spool.keep("1.2", "P", "1.2.1", b"one")
    spool.keep("1.2", "P", "1.2.1", b"one")
    for study, patient, image, data, duplicate in (
        ("1.2", "Q", "1.2.2", b"two", False),
        ("1.2", "P", "1.2.1", b"two", True),
        ("1.3", "P", "1.2.1", b"one", True),
    ):
        with pytest.raises(Conflict) as conflict:
            spool.keep(study, patient, image, data)
        assert conflict.value.duplicate is duplicate
    again = Spool(tmp_path, quiet=0, retry=0)  # another process
    again.open()
    with pytest.raises(Conflict):
        again.keep("1.2", "Q", "1.2.2", b"two")
    [folder] = again.take_complete()
    with pytest.raises(Conflict):
        again.keep("1.2", "Q", "1.2.2", b"two")  # while it is being answered
    again.keep("1.2", "P", "1.2.2", b"two")
    again.put_back(folder)
    assert sorted(file.read_bytes() for file in tmp_path.glob("in/*/*.dcm")) == [b"one", b"two"]
