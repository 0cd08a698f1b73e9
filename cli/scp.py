"""`mura-search scp`: a DICOM node that answers for the studies it is sent."""

import ipaddress
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from cli.console import note
from cli.options.common import IndexFolder, index_searcher
from cli.options.dicom import ResultOptions
from retrieval.errors import ArchiveError

if TYPE_CHECKING:
    from retrieval.dicom.storage_scp import Node

__all__ = ["NodeOptions", "running", "scp"]


@dataclass(frozen=True)
class NodeOptions(ResultOptions):
    """Who may send to the node, and where its results go."""

    title: Annotated[str, Option(metavar="TITLE", help="The node's own AE title.")] = "MURASEARCH"
    caller: Annotated[
        list[str] | None,
        Option(metavar="TITLE", help="An AE title that may send; may be repeated. By default every title may."),
    ] = None
    allow: Annotated[
        list[str] | None,
        Option(
            metavar="NETWORK",
            help="Addresses that may send, such as 10.1.0.0/16; may be repeated. By default only this machine may.",
        ),
    ] = None
    quiet: Annotated[
        float, Option(min=0.1, metavar="SECONDS", help="A study is complete when nothing has come for this long.")
    ] = 10.0
    send_to: Annotated[
        str | None, Option(metavar="TITLE@HOST:PORT", help="Send the results to this DICOM node, by C-STORE.")
    ] = None

    @property
    def receives_results(self) -> bool:
        return bool(self.send_to or self.dicom_out or self.store)

    @contextmanager
    def node(self, spool: Path, host: str, port: int, index: Path | None) -> "Iterator[Node]":
        """A node that is not started yet, with a searcher of its own. Raises BadParameter."""
        from retrieval.dicom.storage_scp import NodeSettings, answering_node
        from retrieval.dicom.storage_scu import Peer
        from retrieval.evaluation.drift import DriftMonitor

        if not self.receives_results:
            raise typer.BadParameter("say where the results go: --send-to, --store or --dicom-out")
        try:
            peer = Peer.parse(self.send_to) if self.send_to else None
            networks = tuple(ipaddress.ip_network(network) for network in self.allow or ())
            settings = NodeSettings(spool, port, host, self.title, tuple(self.caller or ()), networks, self.quiet)
            require_title(self.title, *settings.callers)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        archive = self.open()
        with index_searcher(index) as searcher:
            monitor = DriftMonitor()
            yield answering_node(
                settings, searcher, peer=peer, archive=archive, folder=self.dicom_out, tell=note,
                follow=lambda answer: monitor.add(answer, searcher.reference),
            )  # fmt: skip


def scp(
    spool: Annotated[Path, Option(metavar="FOLDER", help="Keep radiographs here until their study is answered.")],
    options: NodeOptions,
    port: Annotated[int, Option(min=0, max=65535, metavar="N", help="The port to listen on.")] = 11112,
    host: Annotated[str, Option(metavar="ADDRESS", help="The address of this machine to listen on.")] = "127.0.0.1",
    index: IndexFolder = None,
) -> None:
    """Receive studies by C-STORE, and answer each with a structured report and a heatmap of each view."""
    stop = threading.Event()
    with options.node(spool, host, port, index) as node:
        if threading.current_thread() is threading.main_thread():
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, lambda *_: stop.set())
        with running(node, options.title, host, spool):
            while not stop.wait(3600):
                pass


@contextmanager
def running(node: "Node", title: str, host: str, spool: Path) -> Iterator[None]:
    """Run a node, say so, and say at its end what it did. Raises ArchiveError if the spool cannot be used."""
    try:
        with node:
            note(f"{title} listens at {host}:{node.port}")
            yield
    except OSError as error:
        raise ArchiveError(f"{spool} cannot be used: {error.strerror or error}; name another folder") from error
    counts = ", ".join(f"{node.counts[name]} {name}" for name in ("received", "answered", "failed", "delivered"))
    note(f"Stopped: {counts}")


def require_title(*titles: str) -> None:
    """Raise ValueError for a text that is not an AE title (DICOM PS3.5, table 6.2-1)."""
    for title in titles:
        if not (0 < len(title.strip()) <= 16 and title.isascii() and title.isprintable() and "\\" not in title):
            raise ValueError(f"{title!r} is not an AE title: write 1 to 16 ASCII characters without a backslash")
