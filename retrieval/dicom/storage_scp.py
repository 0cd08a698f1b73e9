"""A DICOM node: receives radiographs by C-STORE, groups them into studies, and sends results by C-STORE (PS3.4, B).

    association -> C-STORE -> spool/in/STUDY/IMAGE.dcm -> quiet for a while -> handle(files) -> spool/out/... -> deliver

What is acknowledged is on the disk, and what is on the disk is answered, also after a restart. Names in the spool are
hashes; its files are radiographs of patients, and are removed when their study was answered.
"""

import hashlib
import ipaddress
import logging
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from index.atomic import remove_strays, write_whole
from index.errors import IndexFailure, MuraSearchError
from retrieval.dicom.results import read_instances, search_for_archive, write_instances
from retrieval.errors import ArchiveError, MissingExtra, OutputError, redacted_traceback
from retrieval.images.dicom_header import RADIOGRAPH_CLASSES, SYNTAXES, DicomError, NoRadiograph
from retrieval.images.dicom_reader import be_silent, read_record
from retrieval.images.radiograph import MAX_BYTES, MAX_PIXELS

try:
    from pynetdicom import AE, evt
    from pynetdicom.transport import ThreadedAssociationServer
except ImportError as error:
    raise MissingExtra(error.name or "pynetdicom", "dicom") from error

if TYPE_CHECKING:
    from retrieval.dicom.dicomweb import WebArchive
    from retrieval.searcher import Searcher

__all__ = ["Node", "NodeSettings", "Peer", "answering_node", "send"]

logger = logging.getLogger("mura-search")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_VERIFICATION = "1.2.840.10008.1.1"
_ENDIAN = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
_SUCCESS, _OUT_OF_RESOURCES, _DOES_NOT_MATCH, _NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
_SECONDS = 30.0  # for a peer to answer
_IDLE = 60.0  # seconds before a silent association ends
_NEGOTIATION = 10.0  # seconds; pynetdicom notices one that was cut off before it began no sooner
_ASSOCIATIONS = 100
_SLACK = 2**20  # bytes of a message beyond its picture


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node. Its title has at most 16 characters."""

    title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """Read TITLE@HOST:PORT. Raises ValueError."""
        title, _, place = text.rpartition("@")
        host, _, port = place.rpartition(":")
        if not (
            0 < len(title.strip()) <= 16 and title.isascii() and host and port.isdecimal() and 0 < int(port) < 65536
        ):
            raise ValueError(f"{text} is no DICOM node; write TITLE@HOST:PORT, such as PACS@10.0.0.5:104")
        return cls(title.strip(), host.strip("[]"), int(port))


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Where a node listens, and to whom.

    callers: the titles that may send; empty allows all of them. networks: the addresses that may send; empty allows
    this machine alone. quiet: seconds without a new instance after which a study is complete.
    """

    spool: Path
    port: int = 11112
    host: str = "127.0.0.1"
    title: str = "MURASEARCH"
    callers: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    quiet: float = 10.0
    retry: float = 60.0  # seconds before a failed delivery is tried again

    def allows(self, address: str) -> bool:
        """Whether a connection from an address is taken."""
        caller = ipaddress.ip_address(address.partition("%")[0])
        caller = getattr(caller, "ipv4_mapped", None) or caller
        if not self.networks:
            return caller.is_loopback
        return any(caller.version == network.version and caller in network for network in self.networks)


class Node:
    """Listens from `start` to `stop`; a context manager does both.

    handle: is given the files of a study and makes the instances to deliver; called in one thread, a study at a time.
    deliver: is given the written files; where it raises MuraSearchError, it is called again with the same after
    `NodeSettings.retry` seconds. tell: is called with sentences, which name no patient.
    """

    def __init__(
        self,
        settings: NodeSettings,
        handle: Callable[[list[Path], Path], object],
        deliver: Callable[[list[Path]], object],
        tell: Callable[[str], object] = lambda text: None,
    ) -> None:
        be_silent()
        self.settings = settings
        self._handle, self._deliver, self._tell = handle, deliver, tell
        self._in, self._work, self._out = (settings.spool / name for name in ("in", "work", "out"))
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}  # monotonic time of each study's last instance
        self._later: dict[str, float] = {}  # and of the next try to deliver
        self._bytes: Counter[int] = Counter()  # of the message that each association is receiving
        self._stopping = threading.Event()
        self._trouble = ""
        self._server: Any = None
        self._threads: list[threading.Thread] = []
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        """Listen, and go on with what a former process left. Raises ArchiveError, OSError of the spool."""
        for folder in (self._in, self._work, self._out):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._work.iterdir():  # it was being answered
            study = left.name.partition("-")[0]
            more = (self._in / study).exists()
            left.rename(self._in / (f"{study}-{secrets.token_hex(4)}" if more else study))
        for folder in self._in.iterdir():
            remove_strays(folder)
            if any(folder.iterdir()):
                self._last[folder.name] = time.monotonic()
            else:
                folder.rmdir()
        for folder in self._out.iterdir():
            if not (folder / "done").exists():  # written in part; its study is answered again
                shutil.rmtree(folder)
        try:
            self._server = self._listening()
        except OSError as error:
            place = f"{self.settings.host}:{self.settings.port}"
            raise ArchiveError(f"{place} cannot be listened at: {error.strerror or error}; name another") from error
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="dicom-node", daemon=True),
            threading.Thread(target=self._work_on, name="dicom-node-work", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Listen no more; the study that is being answered is answered. What is not stays in the spool."""
        self._stopping.set()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            for association in server.active_associations:
                association.abort()
        for thread in self._threads:
            thread.join()

    @property
    def port(self) -> int:
        """The port that is listened at, also where 0 was asked for."""
        return int(self._server.socket.getsockname()[1])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _listening(self) -> Any:
        settings = self.settings

        class Server(ThreadedAssociationServer):  # type: ignore[misc]  # pynetdicom's types are not read
            def verify_request(self, request: object, client_address: Sequence[Any]) -> bool:
                return settings.allows(str(client_address[0]))

        entity = AE(ae_title=settings.title)
        entity.maximum_associations = _ASSOCIATIONS
        entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = _NEGOTIATION, _SECONDS, _IDLE
        entity.require_called_aet = True
        entity.require_calling_aet = list(settings.callers)
        for kind in sorted(RADIOGRAPH_CLASSES):
            entity.add_supported_context(kind, list(SYNTAXES))
        entity.add_supported_context(_VERIFICATION, _ENDIAN)
        handlers = [
            (evt.EVT_CONN_OPEN, self._limit),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_PDU_RECV, self._count),
            (evt.EVT_CONN_CLOSE, lambda event: self._bytes.pop(id(event.assoc), None)),
        ]
        server = entity.make_server((settings.host, settings.port), evt_handlers=handlers, server_class=Server)
        entity._servers.append(server)  # as start_server does, which takes no class; shutdown looks for it there
        return server

    def _limit(self, event: Any) -> None:
        """Close a connection that announces a larger PDU than a whole message may be, before it is read."""
        connection = event.assoc.dul.socket
        receive = connection.recv

        def limited(count: int) -> bytes:
            if count > MAX_BYTES + _SLACK:
                self.counts["too large"] += 1
                raise OSError(f"a PDU of {count} bytes was announced")
            data: bytes = receive(count)
            return data

        connection.recv = limited

    def _count(self, event: Any) -> None:
        """End an association whose message grows beyond what is read, before it fills the memory."""
        name = id(event.assoc)
        for item in getattr(event.pdu, "presentation_data_value_items", ()):
            self._bytes[name] += len(item.presentation_data_value)
        if self._bytes[name] > MAX_BYTES + _SLACK:
            self.counts["too large"] += 1
            event.assoc.abort()

    def _store(self, event: Any) -> int:
        """Keep one instance: acknowledged when it is on the disk."""
        self._bytes[id(event.assoc)] = 0
        try:
            data = event.encoded_dataset()
            record = read_record(BytesIO(data), MAX_BYTES, MAX_PIXELS)
        except NoRadiograph:
            return _DOES_NOT_MATCH
        except DicomError:
            return _NOT_UNDERSTOOD
        if not record.study or not record.image or record.image != str(event.request.AffectedSOPInstanceUID):
            return _NOT_UNDERSTOOD
        study, image = (hashlib.sha256(uid.encode()).hexdigest()[:32] for uid in (record.study, record.image))
        try:
            with self._lock:
                folder = self._in / study
                folder.mkdir(exist_ok=True, mode=0o700)
                write_whole(folder / f"{image}.dcm", data)
                self._last[study] = time.monotonic()
        except OSError as error:
            self._tell(f"a radiograph could not be kept: {error.strerror or error}")
            return _OUT_OF_RESOURCES
        self.counts["received"] += 1
        return _SUCCESS

    def _work_on(self) -> None:
        while not self._stopping.wait(min(0.5, self.settings.quiet / 4)):
            try:
                for study in self._whole_studies():
                    self._answer(study)
                for folder in sorted(self._out.iterdir()):
                    if not self._send(folder):
                        break  # the others would wait as long for nothing, and studies with them
                self._trouble = ""
            except Exception as error:  # broad: nothing may end the thread that answers
                logger.debug("%s", redacted_traceback(error))
                trouble = str(getattr(error, "strerror", None) or type(error).__name__)
                if trouble != self._trouble:
                    self._tell(f"the spool cannot be worked on, and is tried again: {trouble}")
                self._trouble = trouble

    def _whole_studies(self) -> list[Path]:
        """Take the studies that have been quiet, so that what comes later makes a study of its own."""
        ready = []
        with self._lock:
            before = time.monotonic() - self.settings.quiet
            for study in [name for name, last in self._last.items() if last <= before]:
                taken = self._work / f"{study.partition('-')[0]}-{secrets.token_hex(4)}"
                try:
                    (self._in / study).rename(taken)
                except FileNotFoundError:  # somebody has removed it
                    del self._last[study]
                    continue
                del self._last[study]
                ready.append(taken)
        return ready

    def _put_back(self, study: Path) -> None:
        """Let a study be answered again, not before `NodeSettings.retry` seconds."""
        with self._lock:
            again = self._in / f"{study.name.partition('-')[0]}-{secrets.token_hex(4)}"
            study.rename(again)
            self._last[again.name] = time.monotonic() + self.settings.retry - self.settings.quiet

    def _answer(self, study: Path) -> None:
        out = self._out / study.name
        try:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(mode=0o700)
            self._handle(sorted(study.glob("*.dcm")), out)
            (out / "done").touch()
            self.counts["answered"] += 1
        except (IndexFailure, OutputError, OSError) as error:  # none of which is the study's fault
            shutil.rmtree(out, ignore_errors=True)
            self._put_back(study)
            why = error if isinstance(error, MuraSearchError) else error.strerror or type(error).__name__
            self._tell(f"a study could not be answered yet, and is kept: {str(why).replace(str(study), 'study')}")
            return
        except MuraSearchError as error:
            self._tell(f"a study could not be answered: {str(error).replace(str(study), 'study')}")
        except Exception as error:  # broad: no study may end the thread that answers the next
            logger.debug("%s", redacted_traceback(error))
            self._tell(f"a study could not be answered ({type(error).__name__})")
        if not (out / "done").exists():
            self.counts["failed"] += 1
            shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(study, ignore_errors=True)

    def _send(self, out: Path) -> bool:
        """Deliver a result that is due; whether it was not due, or went well."""
        if self._later.get(out.name, 0) > time.monotonic():
            return True
        try:
            self._deliver(sorted(out.glob("*.dcm")))
        except Exception as error:  # broad: whatever went wrong, the result is kept and the thread goes on
            logger.debug("%s", redacted_traceback(error))
            self._later[out.name] = time.monotonic() + self.settings.retry
            why = error if isinstance(error, MuraSearchError) else type(error).__name__
            self._tell(f"a result could not be delivered, and is kept: {why}")
            return False
        self.counts["delivered"] += 1
        self._later.pop(out.name, None)
        shutil.rmtree(out)
        return True


def answering_node(
    settings: NodeSettings,
    searcher: "Searcher",
    *,
    peer: Peer | None = None,
    archive: "WebArchive | None" = None,
    folder: Path | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> Node:
    """A node, not started yet, that answers each study and sends the results to a node, a DICOMweb server or a folder.

    It works in threads of its own, so it can run beside a server, but then needs a searcher of its own. Raises
    ValueError without a destination.
    """
    if not (peer or archive or folder):
        raise ValueError("say where results go: a node, a DICOMweb server or a folder")

    def answer(files: list[Path], out: Path) -> None:
        write_instances(out, search_for_archive(searcher, files).instances)

    def deliver(files: list[Path]) -> None:
        instances = read_instances(files)
        if folder:
            write_instances(folder, instances)
        if peer:
            send(instances, peer, settings.title)
        if archive:
            archive.store(instances)

    return Node(settings, answer, deliver, tell)


def send(instances: Sequence[Any], peer: Peer, title: str = "MURASEARCH") -> None:
    """Send instances (pydicom Datasets) to a node by C-STORE. Raises ArchiveError unless it takes all of them."""
    be_silent()
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _SECONDS
    for kind in sorted({str(instance.SOPClassUID) for instance in instances}):
        entity.add_requested_context(kind, _ENDIAN)
    name = f"{peer.title}@{peer.host}:{peer.port}"
    association = entity.associate(peer.host, peer.port, ae_title=peer.title)
    if not association.is_established:
        why = "takes no such instances" if association.rejected_contexts else "cannot be reached, or refuses us"
        raise ArchiveError(f"{name} {why}; check title, address and what it accepts from {title}")
    try:
        for instance in instances:
            try:
                status = association.send_c_store(instance).get("Status")
            except (ValueError, RuntimeError):
                raise ArchiveError(f"{name} does not take {instance.Modality} instances") from None
            if status is None:
                raise ArchiveError(f"{name} went away before it had taken everything")
            if status != _SUCCESS and status & 0xF000 != 0xB000:  # which is a warning: taken, with something changed
                raise ArchiveError(f"{name} did not take an instance (status 0x{status:04X}); see its log")
    finally:
        try:
            association.release()
        except Exception as error:  # broad: the outcome is known already; a failed release does not change it
            logger.debug("%s", redacted_traceback(error))
