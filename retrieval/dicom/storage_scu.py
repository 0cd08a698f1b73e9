"""Sending instances to another DICOM node by C-STORE (PS3.4, B)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retrieval.errors import ArchiveError, MissingExtra, redacted_traceback
from retrieval.images.dicom_silence import be_silent

try:
    from pynetdicom import AE
except ImportError as error:
    raise MissingExtra(error.name or "pynetdicom", "dicom") from error

__all__ = ["TRANSFER_SYNTAXES", "Peer", "send"]

logger = logging.getLogger("mura-search")

TRANSFER_SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
"""The uncompressed transfer syntaxes that every node takes."""

_SECONDS = 30.0  # for a peer to answer
_SUCCESS = 0x0000


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node. Its title has at most 16 characters."""

    title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """Read TITLE@HOST:PORT. Raises ValueError."""
        title, _, address = text.rpartition("@")
        host, _, port = address.rpartition(":")
        if not (
            0 < len(title.strip()) <= 16 and title.isascii() and host and port.isdecimal() and 0 < int(port) < 65536
        ):
            raise ValueError(f"{text} is not a DICOM node; write TITLE@HOST:PORT, such as PACS@10.0.0.5:104")
        return cls(title.strip(), host.strip("[]"), int(port))


def send(instances: Sequence[Any], peer: Peer, title: str = "MURASEARCH") -> None:
    """Send instances (pydicom Datasets) to a node by C-STORE. Raises ArchiveError unless it takes all of them."""
    be_silent()
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = _SECONDS
    for kind in sorted({str(instance.SOPClassUID) for instance in instances}):
        entity.add_requested_context(kind, TRANSFER_SYNTAXES)
    name = f"{peer.title}@{peer.host}:{peer.port}"
    association = entity.associate(peer.host, peer.port, ae_title=peer.title)
    if not association.is_established:
        why = "does not accept such instances" if association.rejected_contexts else "cannot be reached, or refuses us"
        raise ArchiveError(f"{name} {why}; check title, address and what it accepts from {title}")
    try:
        for instance in instances:
            try:
                status = association.send_c_store(instance).get("Status")
            except (ValueError, RuntimeError):
                raise ArchiveError(f"{name} does not accept {instance.Modality} instances") from None
            if status is None:
                raise ArchiveError(f"{name} closed the connection before it had accepted everything")
            if status != _SUCCESS and status & 0xF000 != 0xB000:  # which is a warning: taken, with something changed
                raise ArchiveError(f"{name} did not accept an instance (status 0x{status:04X}); see its log")
    finally:
        try:
            association.release()
        except Exception as error:  # broad: the outcome is known already; a failed release does not change it
            logger.debug("%s", redacted_traceback(error))
