"""An index keeps the plain measures of its radiographs, and flags queries that were acquired otherwise."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from index.case import Case
from index.reader import IndexReader
from index.writer import IndexWriter
from retrieval.datasets.collection import Collection
from retrieval.decision.measure_limits import FEWEST, KEY, MeasureLimits, limits_of
from retrieval.images.measures import TABLE, measure, packed, unpacked
from retrieval.images.radiograph import read_radiograph
from retrieval.indexing.build import build_index
from retrieval.indexing.update import add_to_index, refresh_limits
from retrieval.searcher import Searcher

SIDE = 32


def grain(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Grey noise, whose detail has every fineness."""
    generator = np.random.default_rng(seed)
    values = generator.normal(128, 25, (side, side)).round()
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def collection(root: Path, count: int, first: int = 0) -> Collection:
    """Studies of two views."""
    root.mkdir()
    cases = []
    for number in range(2 * first, 2 * (first + count)):
        path = root / f"{number}.png"
        assert cv2.imwrite(str(path), grain(number))
        study = number // 2
        cases.append(Case(path.name, f"s{study}", f"p{study}", study % 2, path=str(path)))
    return Collection(root, "csv", tuple(cases))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    root = tmp_path_factory.mktemp("measured")
    build_index(collection(root / "data", FEWEST + 2), root / "index", model=model)
    return root / "index"


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)


def test_it_keeps_the_measures_of_each_radiograph(index: Path) -> None:
    with IndexReader.open(index) as reader:
        for case, data in zip(reader.cases(), reader.extra(TABLE), strict=True):
            assert data == packed(measure(read_radiograph(Path(case.path)).pixels, SIDE))
        limits = MeasureLimits.from_dict(reader.metadata(KEY))
    assert limits is not None
    assert (limits.studies, limits.radiographs) == (FEWEST + 2, 2 * (FEWEST + 2))
    assert limits.limits


def test_bytes_of_another_length_are_no_measures() -> None:
    assert unpacked(b"") is None
    assert unpacked(b"1234") is None


def test_a_softer_and_a_smaller_query_are_unfamiliar_and_the_answer_says_why(index: Path) -> None:
    query = grain(9_999)
    with Searcher.open(index) as searcher:
        usual = searcher.search(query)
        soft = searcher.search([query, blurred(query, 1.0)])
        small = searcher.search(query[::2, ::2].copy())
    assert usual.familiarity.familiar
    assert usual.familiarity.codes == ()
    assert usual.views[0].measures["size"] == SIDE
    assert soft.verdict == "unfamiliar"
    assert "softer" in soft.familiarity.codes
    assert "it is softer than the indexed radiographs" in "; ".join(soft.familiarity.reasons)
    assert soft.views[0].reasons == ()
    assert any("softer" in reason for reason in soft.views[1].reasons)
    assert "smaller" in small.familiarity.codes


def test_an_index_of_an_earlier_version_flags_nothing_by_measures(index: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(index, old)
    with IndexWriter.open(old) as writer:
        writer.set_metadata(KEY, None)
    with contextlib.closing(sqlite3.connect(old / "cases.sqlite")) as database, database:
        database.execute("DELETE FROM measures")
    with Searcher.open(old) as searcher:
        assert searcher.limits == MeasureLimits(0, {}, 2 * (FEWEST + 2))
        assert searcher.search(blurred(grain(9_999), 1.0)).familiarity.codes == ()


def test_limits_are_learned_anew_when_radiographs_come_and_go(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "index"
    build_index(collection(tmp_path / "first", FEWEST - 10), path, model=model)
    with IndexReader.open(path) as reader:
        assert limits_of(reader) == MeasureLimits(FEWEST - 10, {}, 2 * (FEWEST - 10))
    add_to_index(collection(tmp_path / "second", 20, FEWEST - 10), path)
    with IndexReader.open(path) as reader:
        kept = MeasureLimits.from_dict(reader.metadata(KEY))
        assert kept is not None
        assert kept == limits_of(reader)
        assert kept.studies == FEWEST + 10
        assert kept.limits
    with IndexWriter.open(path) as writer:
        writer.remove({"study": [f"s{n}" for n in range(30)]})
    with IndexReader.open(path) as reader:  # many were removed, and the limits were not learned anew: they do not hold
        assert limits_of(reader).studies == FEWEST - 20
    with IndexWriter.open(path) as writer:
        refresh_limits(writer)
    with IndexReader.open(path) as reader:
        assert MeasureLimits.from_dict(reader.metadata(KEY)) == MeasureLimits(FEWEST - 20, {}, 2 * (FEWEST - 20))
