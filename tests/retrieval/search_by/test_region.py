"""Regions: what is encoded of a rectangle, what an index keeps, and what is found by it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from index.errors import IndexFailure
from index.reader import IndexReader
from retrieval.datasets.collection import Collection
from retrieval.errors import RadiographError
from retrieval.indexing.build import build_index
from retrieval.search_by.region import Box, RegionIndex, add_regions, attended_boxes, encode_regions, search_region
from retrieval.searcher import Searcher

STUDIES = [("ann", "s1", 0, [20, 25]), ("bob", "s2", 0, [40]), ("cid", "s3", 1, [215]), ("dee", "s4", 1, [235])]


@pytest.fixture
def place(squares: Callable[..., Collection], model: Path, tmp_path: Path) -> Path:
    build_index(squares(STUDIES), tmp_path / "index", model=model)
    return tmp_path / "index"


@pytest.fixture
def searcher(place: Path) -> Iterator[Searcher]:
    assert add_regions(place) == (5, [])
    with Searcher.open(place) as opened:
        yield opened


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """A radiograph whose left half is dark and whose right half is bright."""
    pixels = np.full((64, 64), 30, np.uint8)
    pixels[:, 32:] = 225
    pixels[::2] += np.uint8(10)
    assert cv2.imwrite(str(tmp_path / "halves.png"), pixels)
    return tmp_path / "halves.png"


@pytest.mark.parametrize(("x", "label", "study"), [(0, "normal", "s2"), (32, "abnormal", "s4")])
def test_a_region_finds_what_looks_like_it(searcher: Searcher, halves: Path, x: int, label: str, study: str) -> None:
    answer = search_region(searcher, halves, Box(x, 0, 32, 64), k=2)
    assert [region.label for region in answer.regions] == [label] * 2
    assert answer.regions[0].study == study
    assert answer.abnormal == pytest.approx(float(label == "abnormal"))
    assert sum(region.weight for region in answer.regions) == pytest.approx(1)
    assert len({region.study for region in search_region(searcher, halves, Box(x, 0, 32, 64), k=9).regions}) == 4
    assert answer.to_dict()["region"] == {"x": x, "y": 0, "width": 32, "height": 64}
    assert len(answer.to_csv().splitlines()) == 3


def test_filters_and_patients(searcher: Searcher, halves: Path, tmp_path: Path) -> None:
    bright = Box(32, 0, 32, 64)
    answer = search_region(searcher, halves, bright, where={"label": ["normal"]}, patient="bob")
    assert [region.study for region in answer.regions] == ["s1"]
    assert answer.excluded_patients == ("bob",)
    own = search_region(searcher, tmp_path / "data" / "s4-1.png", Box(0, 0, 32, 32))
    assert "s4" not in {region.study for region in own.regions}


def test_a_whole_radiograph_as_region_has_its_own_embedding(searcher: Searcher) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 32), np.uint8)
    whole = searcher.encoder.encode([pixels[:32]]).embeddings
    assert np.allclose(encode_regions(searcher.encoder, pixels[:32], [Box(0, 0, 32, 32)]), whole, atol=1e-6)


def test_attended_regions_lie_within_the_radiograph_and_apart(searcher: Searcher) -> None:
    boxes = attended_boxes(searcher.encoder, np.zeros((90, 40), np.uint8))
    assert 1 <= len(boxes) <= 4
    for box in boxes:
        assert box == box.within(90, 40)
    middles = [(box.x + box.width / 2, box.y + box.height / 2) for box in boxes]
    assert len(set(middles)) == len(boxes)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,x", "1,2,0,4", "1,2,nan,4", "1,2,3,4,5"])
def test_a_region_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="a region"):
        Box.parse(text)


def test_a_region_outside_the_radiograph(searcher: Searcher, halves: Path) -> None:
    assert Box.parse("1,2,3,4") == Box(1, 2, 3, 4)
    assert Box(60, 60, 20, 20).within(64, 64) == Box(60, 60, 4, 4)
    with pytest.raises(RadiographError, match="lies outside the radiograph, which has 64 x 64 pixels"):
        search_region(searcher, halves, Box(64, 0, 10, 10))
    with pytest.raises(RadiographError, match="in one radiograph"):
        search_region(searcher, [halves, Path(searcher.index.cases()[0].path)], Box(0, 0, 9, 9))


def test_regions_are_made_once_and_of_files_that_are_there(place: Path, tmp_path: Path, halves: Path) -> None:
    with Searcher.open(place) as searcher, pytest.raises(IndexFailure, match="has no regions to search"):
        search_region(searcher, halves, Box(0, 0, 9, 9))
    shutil.move(tmp_path / "data" / "s3-1.png", tmp_path / "away.png")
    done, unread = add_regions(place)
    assert (done, [case for case, _ in unread]) == (4, ["s3-1.png"])
    shutil.move(tmp_path / "away.png", tmp_path / "data" / "s3-1.png")
    assert add_regions(place) == (1, [])
    assert add_regions(place) == (0, [])
    with IndexReader.open(place) as reader:
        assert reader.verify()
        assert {case.study for case in RegionIndex(reader).cases} == {"s1", "s2", "s3", "s4"}
