"""Files of instances, and a node that answers and delivers."""

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrieval.datasets.collection import Collection
from retrieval.errors import OutputError
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher

pytest.importorskip("pynetdicom", reason="the extra dicom is not installed")
pytest.importorskip("highdicom", reason="the extra dicom is not installed")

from retrieval.dicom import storage_scp  # only where they are installed
from retrieval.dicom.results import read_instances, require_folder, write_instances
from retrieval.dicom.storage_scp import NodeSettings, answering_node
from retrieval.dicom.storage_scu import Peer


def test_a_file_in_the_way_of_a_folder_is_refused(ask_archive: Callable[..., Any], dicom_query: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written to: .*; name another folder"):
        require_folder(dicom_query)
    with pytest.raises(OutputError, match="cannot be written: "):
        write_instances(dicom_query, ask_archive(dicom_query).instances)


def test_a_node_answers_and_delivers_everywhere(
    squares: Callable[..., Collection],
    model: Path,
    dicom_query: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build_index(squares([("ann", "s1", 0, [20]), ("bob", "s2", 1, [220])]), tmp_path / "index", model=model)
    sent: list[tuple[str, list[str]]] = []

    def record(instances: list[Any], *_: object) -> None:
        sent.append(("peer", [instance.Modality for instance in instances]))

    class Archive:
        def store(self, instances: list[Any]) -> None:
            sent.append(("archive", [instance.Modality for instance in instances]))

    monkeypatch.setattr(storage_scp, "send", record)
    results, out = tmp_path / "results", tmp_path / "out"
    results.mkdir()
    out.mkdir()
    with Searcher.open(tmp_path / "index") as searcher:
        settings = NodeSettings(tmp_path / "spool")
        with pytest.raises(ValueError, match="say where results go"):
            answering_node(settings, searcher)
        archive: Any = Archive()
        node = answering_node(settings, searcher, peer=Peer("PACS", "::1", 104), archive=archive, folder=results)
        node._handle([dicom_query], out)
        node._deliver(sorted(out.iterdir()))
        node.stop()
    assert sorted(sent) == [("archive", ["OT", "SR"]), ("peer", ["OT", "SR"])]
    assert [instance.Modality for instance in read_instances(sorted(results.iterdir()))] == ["OT", "SR"]


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "@host:104", "PACS@host:0", f"{'A' * 17}@host:104"])
def test_what_is_no_node_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write TITLE@HOST:PORT"):
        Peer.parse(text)


def test_addresses_that_may_connect(tmp_path: Path) -> None:
    assert NodeSettings(tmp_path).allows("::ffff:127.0.0.1")
    network = ipaddress.ip_network("10.0.0.0/8")
    assert [NodeSettings(tmp_path, networks=(network,)).allows(name) for name in ("10.1.2.3", "::1")] == [True, False]
