"""The other side of a DICOM node: pynetdicom's SCU, which sends to it, and what the node is to do with studies."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
pynetdicom = pytest.importorskip("pynetdicom", reason="the extra dicom is not installed")

from retrieval.dicom.storage_scp import Node  # noqa: E402  # only where they are installed

__all__ = ["CAPTURE", "CR", "QUIET", "Recording", "associate", "leftovers", "store", "wait"]

CR = "1.2.840.10008.5.1.4.1.1.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
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
    """The files in the spool; a folder that goes meanwhile has none."""
    return [Path(folder, name) for folder, _, names in os.walk(node.settings.spool) for name in names]
