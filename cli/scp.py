"""`mura-search scp`: a DICOM node that answers for the studies it is sent."""

import ipaddress
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import IndexPlace, note
from cli.options.dicom import DicomOut, DicomwebTls, StoreUrl, open_archive
from retrieval.errors import ArchiveError

if TYPE_CHECKING:
    from retrieval.dicom.storage_scp import Node

__all__ = ["Allow", "Caller", "Quiet", "SendTo", "Title", "note_counts", "open_node", "scp", "spool_named"]

Title = Annotated[str, typer.Option("--title", metavar="TITLE", help="The node's own AE title.")]
Caller = Annotated[
    list[str] | None, typer.Option("--caller", metavar="TITLE", help="An AE title that may send; without any, all may.")
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", metavar="NETWORK", help="Addresses that may send, such as 10.1.0.0/16; only this machine's else."
    ),
]
Quiet = Annotated[
    float,
    typer.Option("--quiet", min=0.1, metavar="SECONDS", help="A study that nothing was added to for so long is whole."),
]
SendTo = Annotated[
    str | None,
    typer.Option("--send-to", metavar="TITLE@HOST:PORT", help="Send the results to this node, by C-STORE."),
]


def scp(
    spool: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where radiographs are kept until their study is answered.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="The port to listen at.")] = 11112,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="This machine's address to listen at.")] = "127.0.0.1",
    title: Title = "MURASEARCH",
    caller: Caller = None,
    allow: Allow = None,
    quiet: Quiet = 10.0,
    send_to: SendTo = None,
    index: IndexPlace = None,
    dicom_out: DicomOut = None,
    store: StoreUrl = None,
    dicomweb_tls: DicomwebTls = None,
) -> None:
    """Receive studies by C-STORE, answer each, and file the answers: a report, and a heatmap of each view."""
    place = spool, host, port
    with open_node(place, title, caller, allow, quiet, send_to, index, dicom_out, store, dicomweb_tls) as node:
        run_until_stopped(node, title, host, spool)


@contextmanager
def open_node(
    place: tuple[Path, str, int],
    title: str,
    caller: list[str] | None,
    allow: list[str] | None,
    quiet: float,
    send_to: str | None,
    index: Path | None,
    dicom_out: Path | None,
    store: str | None,
    dicomweb_tls: list[str] | None,
) -> "Iterator[Node]":
    """A node that is not started yet, with a searcher of its own; `place` is its spool, address and port."""
    from retrieval.dicom.results import require_folder
    from retrieval.dicom.routing import answering_node
    from retrieval.dicom.storage_scp import NodeSettings, Peer
    from retrieval.searcher import Searcher

    if not (send_to or dicom_out or store):
        raise typer.BadParameter("say where results go: --send-to, --store or --dicom-out")
    spool, host, port = place
    try:
        peer = Peer.parse(send_to) if send_to else None
        networks = tuple(ipaddress.ip_network(one) for one in allow or ())
        settings = NodeSettings(spool, port, host, title, tuple(caller or ()), networks, quiet)
        require_title(title, *settings.callers)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    archive = open_archive(store, dicomweb_tls) if store else None
    if dicom_out:
        require_folder(dicom_out)
    with Searcher.open(index) as searcher:
        yield answering_node(settings, searcher, peer=peer, archive=archive, folder=dicom_out, tell=note)


def require_title(*titles: str) -> None:
    for title in titles:
        if not (0 < len(title.strip()) <= 16 and title.isascii() and title.isprintable() and "\\" not in title):
            raise ValueError(f"{title!r} is no AE title: 1 to 16 ASCII characters")


def run_until_stopped(node: "Node", title: str, host: str, spool: Path) -> None:
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stop.set())
    with spool_named(spool), node:
        note(f"{title} listens at {host}:{node.port}")
        while not stop.wait(3600):
            pass
    note_counts(node)


def note_counts(node: "Node") -> None:
    counts = ", ".join(f"{node.counts[name]} {name}" for name in ("received", "answered", "failed", "delivered"))
    note(f"Stopped: {counts}")


@contextmanager
def spool_named(spool: Path) -> "Iterator[None]":
    """Turn the system's refusals inside into an ArchiveError that names the spool."""
    try:
        yield
    except OSError as error:
        raise ArchiveError(f"{spool} cannot be used: {error.strerror or error}; name another folder") from error
