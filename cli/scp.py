"""`mura-search scp`: a DICOM node that answers for the studies it is sent."""

import ipaddress
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.filing import DicomOut, DicomwebTls, StoreUrl, open_archive
from cli.terminal import IndexPlace, note
from retrieval.errors import ArchiveError

if TYPE_CHECKING:
    from retrieval.dicomnode import Node, NodeSettings

__all__ = ["scp"]


def scp(
    spool: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where radiographs are kept until their study is answered.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="The port to listen at.")] = 11112,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="This machine's address to listen at.")] = "127.0.0.1",
    title: Annotated[str, typer.Option(metavar="TITLE", help="The node's own AE title.")] = "MURASEARCH",
    caller: Annotated[
        list[str] | None, typer.Option(metavar="TITLE", help="An AE title that may send; without any, all may.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK", help="Addresses that may send, such as 10.1.0.0/16; only this machine's else."),
    ] = None,
    quiet: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="A study that nothing was added to for so long is whole.")
    ] = 10.0,
    send_to: Annotated[
        str | None, typer.Option(metavar="TITLE@HOST:PORT", help="Send the results to this node, by C-STORE.")
    ] = None,
    index: IndexPlace = None,
    dicom_out: DicomOut = None,
    store: StoreUrl = None,
    dicomweb_tls: DicomwebTls = None,
) -> None:
    """Receive studies by C-STORE, answer each, and file the answers: a report, and a heatmap of each view."""
    from retrieval.dicomnode import NodeSettings, Peer
    from retrieval.dicomresult import require_folder
    from retrieval.dicomrouting import answering_node
    from retrieval.searcher import Searcher

    if not (send_to or dicom_out or store):
        raise typer.BadParameter("say where results go: --send-to, --store or --dicom-out")
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
        node = answering_node(settings, searcher, peer=peer, archive=archive, folder=dicom_out, tell=note)
        run_until_stopped(node, settings)


def require_title(*titles: str) -> None:
    for title in titles:
        if not (0 < len(title.strip()) <= 16 and title.isascii() and title.isprintable() and "\\" not in title):
            raise ValueError(f"{title!r} is no AE title: 1 to 16 ASCII characters")


def run_until_stopped(node: "Node", settings: "NodeSettings") -> None:
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: stop.set())
    try:
        with node:
            note(f"{settings.title} listens at {settings.host}:{node.port}")
            while not stop.wait(3600):
                pass
    except OSError as error:
        raise ArchiveError(
            f"{settings.spool} cannot be used: {error.strerror or error}; name another folder"
        ) from error
    counts = ", ".join(f"{node.counts[name]} {name}" for name in ("received", "answered", "failed", "delivered"))
    note(f"Stopped: {counts}")
