"""A node that answers: studies in by C-STORE, reports and heatmaps out, to a node, a DICOMweb server or a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.dicom.results import read_instances, search_for_archive, write_instances
from retrieval.dicom.storage_scp import Node, NodeSettings, Peer, send
from retrieval.searcher import Searcher

if TYPE_CHECKING:
    from retrieval.dicom.dicomweb import WebArchive

__all__ = ["answering_node"]


def answering_node(
    settings: NodeSettings,
    searcher: Searcher,
    *,
    peer: Peer | None = None,
    archive: "WebArchive | None" = None,
    folder: Path | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> Node:
    """A node, not started yet, that asks the searcher about each study and files the results wherever is named.

    It works in threads of its own, so it can run beside a server; give it a searcher of its own then. Raises ValueError
    where nothing is named.
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
