"""A DICOM node: receives radiographs by C-STORE, groups them into studies, and sends results on (PS3.4, B).

    association -> C-STORE -> spool/in -> nothing new for a while -> handle(files) -> spool/out -> deliver

What is acknowledged is on the disk, and what is on the disk is answered, also after a restart. A study's files are
removed when it is answered. `retrieval.dicom.spool` describes the folders.
"""

import ipaddress
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from index.errors import IndexFailure, MuraSearchError
from retrieval.dicom.results import read_instances, search_for_archive, write_instances
from retrieval.dicom.source_instances import InvalidUid, identifying_header
from retrieval.dicom.spool import Conflict, Spool
from retrieval.dicom.storage_scu import TRANSFER_SYNTAXES, Peer, send
from retrieval.errors import ArchiveError, MissingExtra, OutputError, RateLimitedLog, redacted_traceback
from retrieval.images.decoder_process import DecoderPool
from retrieval.images.dicom_header import RADIOGRAPH_CLASSES, SYNTAXES, DicomError, NoRadiograph
from retrieval.images.dicom_reader import read_record
from retrieval.images.dicom_silence import be_silent
from retrieval.images.radiograph import MAX_BYTES, MAX_PIXELS

try:
    from pynetdicom import AE, evt
    from pynetdicom.transport import ThreadedAssociationServer
except ImportError as error:
    raise MissingExtra(error.name or "pynetdicom", "dicom") from error

if TYPE_CHECKING:
    from retrieval.answer import Answer
    from retrieval.dicom.dicomweb import WebArchive
    from retrieval.searcher import Searcher

__all__ = ["Node", "NodeSettings", "answering_node"]

logger = logging.getLogger("mura-search")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_VERIFICATION = "1.2.840.10008.1.1"
_SUCCESS, _OUT_OF_RESOURCES, _DOES_NOT_MATCH, _NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
_DUPLICATE, _INVALID_INSTANCE = 0x0111, 0x0117  # PS3.7, annex C
_SECONDS = 30.0  # for a PDU or a message to arrive
_DECODING = 30.0  # seconds of processor time for a radiograph
_IDLE = 60.0  # seconds before a silent association ends
_NEGOTIATION = 10.0  # seconds; pynetdicom notices no sooner that a connection was cut before it began
_ASSOCIATIONS = 100
_SLACK = 2**20  # bytes of a message beyond its picture
_LARGEST_PDU = 4 * 2**20  # bytes; we ask for 16 KiB at most
_ALL_BYTES = 384 * 2**20  # of the messages that all associations are receiving
_SLOWEST = 50_000  # bytes a second


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


@dataclass(slots=True)
class _Incoming:
    """What one association is sending: the bytes of its message so far, and when it began."""

    bytes: int = 0
    since: float = field(default_factory=time.monotonic)
    kept: int = 0  # radiographs
    released: bool = False


class Node:
    """Listens from `start` to `stop`; a context manager does both.

    handle: is given the files of a study and a folder for the instances to deliver; called in one thread, a study at a
    time. deliver: is given the written files; if it raises an error, it is called again with the same after
    `NodeSettings.retry` seconds. tell: is called with sentences, which name no patient. stopped: is called at the end.
    """

    def __init__(
        self,
        settings: NodeSettings,
        handle: Callable[[list[Path], Path], object],
        deliver: Callable[[list[Path]], object],
        tell: Callable[[str], object] = lambda text: None,
        stopped: Callable[[], object] = lambda: None,
    ) -> None:
        be_silent()
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self._handle, self._deliver, self._tell, self._stopped = handle, deliver, tell, stopped
        self._spool = Spool(settings.spool, settings.quiet, settings.retry)
        self._refused = RateLimitedLog(tell)
        self._later: dict[str, float] = {}  # monotonic time of the next try to deliver each result
        self._incoming: dict[int, _Incoming] = {}  # by the association's id()
        self._keeping = threading.Lock()  # each message is copied while it is kept: one at a time
        self._stopping = threading.Event()
        self._trouble = ""
        self._server: Any = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Listen, and go on with what an earlier process left. Raises ArchiveError, OSError of the spool."""
        self._spool.open()
        try:
            self._server = self._listening()
        except OSError as error:
            address = f"{self.settings.host}:{self.settings.port}"
            raise ArchiveError(f"cannot listen at {address}: {error.strerror or error}; name another") from error
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="dicom-node", daemon=True),
            threading.Thread(target=self._work_on, name="dicom-node-work", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Listen no more. The study that is being answered has half a minute; the others stay in the spool."""
        self._stopping.set()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            for association in server.active_associations:
                association.abort()
        for thread in self._threads:
            thread.join(_SECONDS)
        self._stopped()

    @property
    def port(self) -> int:
        """The port that the node listens at, also if the settings say 0."""
        return int(self._server.socket.getsockname()[1])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _listening(self) -> Any:
        node = self

        class Server(ThreadedAssociationServer):  # type: ignore[misc]  # pynetdicom's types are not read
            def verify_request(self, request: object, client_address: Sequence[Any]) -> bool:
                if len(node._incoming) >= 2 * _ASSOCIATIONS:
                    node._refused.add("too many connections are open: another one was closed")
                    return False
                return node.settings.allows(str(client_address[0]))

        entity = AE(ae_title=self.settings.title)
        entity.maximum_associations = _ASSOCIATIONS
        entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = _NEGOTIATION, _SECONDS, _IDLE
        entity.require_called_aet = True
        entity.require_calling_aet = list(self.settings.callers)
        for kind in sorted(RADIOGRAPH_CLASSES):
            entity.add_supported_context(kind, list(SYNTAXES))
        entity.add_supported_context(_VERIFICATION, TRANSFER_SYNTAXES)
        handlers = [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_PDU_RECV, self._count),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]
        server = entity.make_server(
            (self.settings.host, self.settings.port), evt_handlers=handlers, server_class=Server
        )
        entity._servers.append(server)  # as start_server does, which takes no class; shutdown looks for it there
        return server

    def _opened(self, event: Any) -> None:
        """Let the connection receive each PDU only within limits: pynetdicom itself would wait forever."""
        self._incoming[id(event.assoc)] = _Incoming()
        connection = event.assoc.dul.socket

        def receive(count: int) -> bytearray:
            if count > _LARGEST_PDU:
                self.counts["too large"] += 1
                raise OSError(f"a PDU of {count} bytes was announced")
            data, until = bytearray(), time.monotonic() + _SECONDS
            while len(data) < count:
                connection.socket.settimeout(max(until - time.monotonic(), 0.001))
                piece = connection.socket.recv(min(count - len(data), 65536))
                if not piece:
                    break
                data += piece
            connection.socket.settimeout(_SECONDS)  # to send
            return data

        connection.recv = receive

    def _count(self, event: Any) -> None:
        """End an association whose message is too large or too slow, or fills the memory for all."""
        items = getattr(event.pdu, "presentation_data_value_items", ())
        incoming = self._incoming.get(id(event.assoc))
        if not items or incoming is None:
            return
        if not incoming.bytes:
            incoming.since = time.monotonic()
        incoming.bytes += sum(len(item.presentation_data_value) for item in items)
        sending = [each for each in list(self._incoming.values()) if each.bytes]
        is_first = incoming.since == min(each.since for each in sending)
        if incoming.bytes > MAX_BYTES + _SLACK:
            self.counts["too large"] += 1
        elif sum(each.bytes for each in sending) > _ALL_BYTES and not is_first:
            self._refused.add("too much is sent at once: an association was ended")
            incoming.bytes = 0
        elif time.monotonic() - incoming.since > _SECONDS + incoming.bytes / _SLOWEST:
            self._refused.add("a message came too slowly: its association was ended")
        else:
            return
        event.assoc.abort()

    def _rejected(self, _event: Any) -> None:
        self._refused.add(
            f"an association was rejected: its AE title is not allowed, or {_ASSOCIATIONS} are open already"
        )

    def _released(self, event: Any) -> None:
        if incoming := self._incoming.get(id(event.assoc)):
            incoming.released = True

    def _closed(self, event: Any) -> None:
        incoming = self._incoming.pop(id(event.assoc), None)
        if incoming and (incoming.kept or incoming.bytes) and not incoming.released:
            self._refused.add(
                "an association broke off before its end: the radiographs that were acknowledged are answered"
            )

    def _store(self, event: Any) -> int:
        """Keep one instance: acknowledged when it is on the disk."""
        incoming = self._incoming.setdefault(id(event.assoc), _Incoming())
        try:
            with self._keeping:
                status = self._keep(event.encoded_dataset(), str(event.request.AffectedSOPInstanceUID))
        except (DicomError, Conflict) as error:
            status = _status_of(error)
            self._refused.add(f"a radiograph was refused with status 0x{status:04X}: it {error}")
        except OSError as error:
            status = _OUT_OF_RESOURCES
            self._refused.add(f"a radiograph could not be kept: {error.strerror or error}")
        incoming.bytes = 0
        if status == _SUCCESS:
            incoming.kept += 1
            self.counts["received"] += 1
        return status

    def _keep(self, data: bytes, image: str) -> int:
        read_record(BytesIO(data), MAX_BYTES, MAX_PIXELS)
        header = identifying_header(BytesIO(data))
        if header.SOPInstanceUID != image:
            raise DicomError("has a SOP Instance UID other than the one that was announced")
        self._spool.keep(header.StudyInstanceUID, header.PatientID, image, data)
        return _SUCCESS

    def _work_on(self) -> None:
        while not self._stopping.wait(min(0.5, self.settings.quiet / 4)):
            self._refused.flush()
            try:
                for study in self._spool.take_complete():
                    self._answer(study)
                for folder in sorted(self._spool.out.iterdir()):
                    if not self._send(folder):
                        break  # the others would wait as long, and the studies with them
                self._trouble = ""
            except Exception as error:  # broad: nothing may end the thread that answers
                logger.debug("%s", redacted_traceback(error))
                trouble = str(getattr(error, "strerror", None) or type(error).__name__)
                if trouble != self._trouble:
                    self._tell(f"the spool cannot be used, and is tried again: {trouble}")
                self._trouble = trouble

    def _answer(self, study: Path) -> None:
        out = self._spool.out / study.name
        try:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(mode=0o700)
            self._handle(sorted(study.glob("*.dcm")), out)
            (out / "done").touch()
            self.counts["answered"] += 1
            shutil.rmtree(study, ignore_errors=True)
        except (IndexFailure, OutputError, OSError) as error:  # none of which is the study's fault
            shutil.rmtree(out, ignore_errors=True)
            self._spool.put_back(study)
            why = error if isinstance(error, MuraSearchError) else error.strerror or type(error).__name__
            self._tell(f"a study could not be answered yet, and is kept: {str(why).replace(str(study), 'study')}")
        except Exception as error:  # broad: no study may end the thread that answers the next
            logger.debug("%s", redacted_traceback(error))
            shutil.rmtree(out, ignore_errors=True)
            self._spool.set_aside(study)
            self.counts["failed"] += 1
            why = str(error) if isinstance(error, MuraSearchError) else type(error).__name__
            words = why.replace(str(study), "study")
            self._tell(f"a study could not be answered, and is kept in the spool as failed/{study.name}: {words}")

    def _send(self, out: Path) -> bool:
        """Deliver a result that is due; false if the delivery failed."""
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


def _status_of(error: DicomError | Conflict) -> int:
    """The status of a refused C-STORE (PS3.4, B.2.3, and PS3.7, annex C)."""
    if isinstance(error, InvalidUid) and error.keyword == "SOPInstanceUID":
        return _INVALID_INSTANCE
    if isinstance(error, Conflict) and error.duplicate:
        return _DUPLICATE
    return _DOES_NOT_MATCH if isinstance(error, NoRadiograph | Conflict) else _NOT_UNDERSTOOD


def answering_node(
    settings: NodeSettings,
    searcher: "Searcher",
    *,
    peer: Peer | None = None,
    archive: "WebArchive | None" = None,
    folder: Path | None = None,
    tell: Callable[[str], object] = lambda text: None,
    follow: "Callable[[Answer], str]" = lambda answer: "",
) -> Node:
    """A node, not started yet, that answers each study and sends the results to a node, a DICOMweb server or a folder.

    `follow` gets each answer; what it returns, if anything, is reported.

    It works in threads of its own, so it can run beside a server, but then needs a searcher of its own. Raises
    ValueError without a destination.
    """
    if not (peer or archive or folder):
        raise ValueError("say where results go: a node, a DICOMweb server or a folder")

    decoders = DecoderPool(1, _DECODING)

    def answer(files: list[Path], out: Path) -> None:
        results = search_for_archive(searcher, files, read=decoders.read)
        write_instances(out, results.instances)
        if said := follow(results.answer):
            tell(said)

    def deliver(files: list[Path]) -> None:
        instances = read_instances(files)
        if folder:
            write_instances(folder, instances)
        if peer:
            send(instances, peer, settings.title)
        if archive:
            archive.store(instances)

    return Node(settings, answer, deliver, tell, decoders.close)
