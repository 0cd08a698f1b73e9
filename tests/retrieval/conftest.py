"""What the tests share: an index of squares, a DICOM node that records what it is given, an archive that answers."""

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from retrieval.datasets.collection import Collection, read_collection
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher
from tests.pictures import grey_square
from tests.retrieval.index_of_squares import RULES, STUDIES

if TYPE_CHECKING:
    from retrieval.dicom.results import ArchiveAnswer
    from retrieval.dicom.storage_scp import Node
    from tests.retrieval.dicom.dicom_peer import Recording


@pytest.fixture
def recording() -> "Recording":
    from tests.retrieval.dicom.dicom_peer import Recording

    return Recording()


@pytest.fixture
def start_node(recording: "Recording", tmp_path: Path) -> "Iterator[Callable[..., Node]]":
    """Starts a node: `start_node(callers=("PACS",))`; it is stopped at the end."""
    from retrieval.dicom.storage_scp import Node, NodeSettings
    from tests.retrieval.dicom.dicom_peer import QUIET

    nodes: list[Node] = []

    def make(**settings: Any) -> Node:
        whole = NodeSettings(tmp_path / "spool", port=0, **{"quiet": QUIET, "retry": 0.3} | settings)
        node = Node(whole, recording.handle, recording.deliver, recording.said.append)
        node.start()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.stop()
    with warnings.catch_warnings():  # pynetdicom leaves the sockets of refused and cut connections to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def dicom_image(dicom_bytes: Callable[..., bytes], tmp_path: Path) -> Callable[..., Any]:
    """A radiograph as a Dataset: `dicom_image("1.2", "1.2.1")`."""
    pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")

    def make(study: str, name: str, side: int = 8, **elements: Any) -> Any:
        rng = np.random.default_rng(0)
        path = tmp_path / "one.dcm"
        pixels = rng.integers(0, 255, (side, side), dtype=np.uint8)
        path.write_bytes(dicom_bytes(pixels, StudyInstanceUID=study, SOPInstanceUID=name, **elements))
        ds = pydicom.dcmread(path)
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        return ds

    return make


@pytest.fixture
def dicom_archive(write_dicom: Callable[..., Path], tmp_path: Path) -> Path:
    """Eight studies of four patients: four dark, normal ones and four bright, abnormal ones."""
    rows = ["study,label"]
    for number in range(8):
        pixels = grey_square(30 + 25 * number)
        study = f"1.2.{number}"
        write_dicom(
            f"archive/{number}", pixels, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1",
            PatientID=f"STRANGER{number // 2}", PatientName="Other^Patient",
        )  # fmt: skip
        rows.append(f"{study},{number // 4}")
    (tmp_path / "archive" / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "archive"


@pytest.fixture
def ask_archive(dicom_archive: Path, model: Path, tmp_path: Path) -> "Callable[..., ArchiveAnswer]":
    """Asks an index of the archive: `ask_archive(file, ...)`; with keep=True, one that keeps identifiers."""
    from retrieval.dicom.results import search_for_archive

    def search(
        *files: Path, keep: bool = False, heatmap: Path | None = None, one_study: bool = False
    ) -> "ArchiveAnswer":
        place = tmp_path / f"index-{keep}"
        if not place.exists():
            build_index(read_collection(dicom_archive, "dicom", keep_identifiers=keep), place, model=model)
        with Searcher.open(place) as searcher:
            return search_for_archive(searcher, list(files), heatmap=heatmap, one_study=one_study)

    return search


@pytest.fixture
def dicom_query(write_dicom: Callable[..., Path]) -> Path:
    """A radiograph with a full header."""
    from tests.retrieval.dicom.dicom_results import FULL, gradient

    return write_dicom("q.dcm", gradient(), StudyInstanceUID="1.2.99", SeriesInstanceUID="1.2.99.1", **FULL)


@pytest.fixture
def place(squares: Callable[..., Collection], make_model: Callable[..., Path], tmp_path: Path) -> Path:
    """The index of `tests.retrieval.index_of_squares`."""
    model = make_model(tmp_path / "model", rules=RULES.to_dict())
    build_index(squares(STUDIES), tmp_path / "index", model=model)
    return tmp_path / "index"


@pytest.fixture
def searcher(place: Path) -> Iterator[Searcher]:
    with Searcher.open(place) as opened:
        yield opened
