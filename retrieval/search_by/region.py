"""Search by a region: what lies in a rectangle of a radiograph, among the regions of the indexed radiographs.

A region is encoded from a crop around it at the file's own resolution, CONTEXT times as wide as the region, so that the
network sees what the region lies in. The head pools the positions of the feature map within the region alone, and gives
an embedding (D,) as of a whole radiograph. An index keeps the embeddings of COUNT regions a radiograph: squares of SIDE
of its long side around the positions where the network's attention is strongest, none within half a side of another.

Regions are few and their studies many, so they are searched exactly, by study, as whole radiographs are.
"""

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from index.case import LABEL_NAMES, Case, Where
from index.errors import IndexFailure
from index.reader import IndexReader
from index.vectors.study_search import nearest_studies
from index.writer import IndexWriter
from retrieval.answer import SimilarStudy
from retrieval.decision.vote import vote_weights
from retrieval.encoding.encoder import Encoder
from retrieval.errors import RadiographError
from retrieval.formats.csv_format import Row, Tabular
from retrieval.formats.json_format import plain
from retrieval.images.preprocessing import Letterbox
from retrieval.images.radiograph import read_radiograph
from retrieval.query import SHOWN, Images, Scope, View, read_views
from retrieval.searcher import Searcher

__all__ = [
    "Box",
    "RegionAnswer",
    "RegionIndex",
    "SimilarRegion",
    "add_regions",
    "attended_boxes",
    "encode_regions",
    "search_region",
    "search_view_region",
]

COUNT = 4  # regions of an indexed radiograph
SIDE = 0.36  # of a region, as part of the radiograph's long side
CONTEXT = 2.0  # the side of the crop that is encoded, as a multiple of the region's

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in pixels of its radiograph: its upper left corner and its size."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def parse(cls, text: str) -> "Box":
        """The rectangle in a text such as "120,80,60,60". Raises ValueError."""
        try:
            box = cls(*(float(number) for number in text.split(",")))
        except (TypeError, ValueError):
            raise ValueError(f"a region is four numbers, x,y,width,height in pixels, not {text}") from None
        if not all(np.isfinite((box.x, box.y, box.width, box.height))) or min(box.width, box.height) <= 0:
            raise ValueError(f"a region has a width and a height above 0, not {text}")
        return box

    def within(self, height: int, width: int) -> "Box":
        """The part of the rectangle that lies in a radiograph. Raises RadiographError if there is none."""
        left, top = max(0.0, self.x), max(0.0, self.y)
        right, bottom = min(float(width), self.x + self.width), min(float(height), self.y + self.height)
        if right - left < 1 or bottom - top < 1:
            raise RadiographError(f"the region lies outside the radiograph, which has {width} x {height} pixels")
        return Box(left, top, right - left, bottom - top)


@dataclass(frozen=True, slots=True)
class SimilarRegion(SimilarStudy):
    """A labelled study with a region like the query's, and where in its radiograph: as parts of the sides."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class RegionAnswer(Tabular):
    """The studies with the most similar regions. `abnormal` is the share of abnormal ones, weighted as in the vote."""

    columns: ClassVar = "rank similarity weight label study patient part view case path x y width height"

    file: str
    region: Box
    abnormal: float | None
    regions: tuple[SimilarRegion, ...]
    excluded_patients: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{len(self.regions)} studies with a region like that of {self.file}."

    def rows(self) -> list[Row]:
        return [plain(region) for region in self.regions]

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/region/1"."""
        return {"schema": "mura-search/region/1", **plain(self)}


def encode_regions(encoder: Encoder, pixels: NDArray[np.uint8], boxes: Sequence[Box]) -> Floats:
    """The embeddings (R, D), of unit length, of R rectangles of a radiograph (H, W) or (H, W, 3)."""
    crops = [_crop(pixels, box) for box in boxes]
    maps = encoder.views([encoder.prepare(crop) for crop, _ in crops])[0]
    size = encoder.bundle.preprocessing.size
    embeddings = []
    for crop_map, (crop, inner) in zip(maps, crops, strict=True):
        rows, columns = _cells(inner, (crop.shape[0], crop.shape[1]), size, crop_map.shape[1:])
        embeddings.append(encoder.head.apply(crop_map[None, :, rows, columns]).embeddings[0])
    return np.asarray(embeddings, np.float32)


def attended_boxes(encoder: Encoder, pixels: NDArray[np.uint8]) -> list[Box]:
    """Squares around the COUNT positions of strongest attention in a radiograph (H, W) or (H, W, 3), strongest first.

    A small picture has fewer.
    """
    H, W = pixels.shape[:2]
    suspicion = encoder.head.apply(encoder.views([encoder.prepare(pixels)])[0]).suspicion[0]
    size, (h, w) = encoder.bundle.preprocessing.size, suspicion.shape
    fit = Letterbox.fit(H, W, size)
    side = SIDE * max(H, W)
    boxes: list[Box] = []
    centres: list[tuple[float, float]] = []
    for position in np.argsort(-suspicion, axis=None, kind="stable"):
        row, column = divmod(int(position), w)
        y = _inside((row + 0.5) * size / h - fit.top, size / h / 2, fit.height)
        x = _inside((column + 0.5) * size / w - fit.left, size / w / 2, fit.width)
        if x is None or y is None:  # it sees the letterbox alone
            continue
        x, y = x * W / fit.width, y * H / fit.height
        if all(max(abs(x - cx), abs(y - cy)) >= side / 2 for cx, cy in centres):
            centres.append((x, y))
            boxes.append(Box(x - side / 2, y - side / 2, side, side).within(H, W))
        if len(boxes) == COUNT:
            break
    return boxes


def _inside(middle: float, half: float, length: int) -> float | None:
    """The middle of a cell, `half` to each side, moved into a stretch of `length`; None if none of it lies in there."""
    return None if middle + half <= 0 or middle - half >= length else min(max(middle, 0.0), float(length))


def _crop(pixels: NDArray[np.uint8], box: Box) -> tuple[NDArray[np.uint8], Box]:
    """The crop around a rectangle, and the rectangle in it."""
    H, W = pixels.shape[:2]
    reach = CONTEXT * max(box.width, box.height) / 2
    x, y = box.x + box.width / 2, box.y + box.height / 2
    left, top = max(0, int(x - reach)), max(0, int(y - reach))
    right, bottom = min(W, int(np.ceil(x + reach))), min(H, int(np.ceil(y + reach)))
    crop = np.ascontiguousarray(pixels[top:bottom, left:right])
    return crop, Box(box.x - left, box.y - top, box.width, box.height)


def _cells(inner: Box, shape: tuple[int, int], size: int, cells: Sequence[int]) -> tuple[slice, slice]:
    """The rows and columns of a feature map that a rectangle of a crop covers, at least one of each."""
    fit = Letterbox.fit(*shape, size)
    down, across = fit.height / shape[0], fit.width / shape[1]
    return (
        _covered(fit.top + inner.y * down, inner.height * down, cells[0] / size, cells[0]),
        _covered(fit.left + inner.x * across, inner.width * across, cells[1] / size, cells[1]),
    )


def _covered(start: float, length: float, scale: float, count: int) -> slice:
    """The cells, of `count`, that a stretch of a picture covers; `scale` is cells a pixel."""
    first = min(max(0, round(start * scale)), count - 1)
    return slice(first, min(count, max(first + 1, round((start + length) * scale))))


# What an index keeps of a radiograph: for each region its place, as parts of the radiograph's sides, and its embedding.
_PLACE = struct.Struct("<4f")


def pack(boxes: Sequence[Box], embeddings: Floats, shape: tuple[int, ...]) -> bytes:
    """The regions of a radiograph of `shape` (H, W, ...) as the index keeps them."""
    height, width = shape[:2]
    return b"".join(
        _PLACE.pack(box.x / width, box.y / height, box.width / width, box.height / height)
        + embedding.astype("<f2").tobytes()
        for box, embedding in zip(boxes, embeddings, strict=True)
    )


def unpack(data: bytes, dimension: int) -> tuple[NDArray[np.float32], Floats]:
    """The places (R, 4) and the embeddings (R, D) of unit length."""
    length = _PLACE.size + 2 * dimension
    if len(data) % length:
        raise IndexFailure(
            "the regions in the index are of another version; make them again: mura-search index regions --again"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, length)
    places = np.ascontiguousarray(rows[:, : _PLACE.size]).view("<f4").astype(np.float32)
    embeddings = np.ascontiguousarray(rows[:, _PLACE.size :]).view("<f2").astype(np.float32)
    embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    return places, embeddings


def add_regions(
    path: Path,
    *,
    again: bool = False,
    paths: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, list[tuple[str, str]]]:
    """Encode the regions of the indexed radiographs that have none, or of all, from their files.

    paths: where radiographs are, by the names of their cases; by default where the index says.
    Gives how many radiographs got regions, and (case, reason) of those whose files cannot be read. Regions are stored
    a hundred radiographs at a time, so the same call continues an interrupted one. `progress` gets (done, all).
    """
    done, unread = 0, list[tuple[str, str]]()
    with IndexReader.open(path) as reader:
        kept = reader.read_whole(lambda: list(zip(reader.cases(), reader.extra("regions"), strict=True)))
        encoder = Encoder.open(reader.model)
    waiting = [case for case, data in kept if again or not data]
    made: dict[str, bytes] = {}
    for number, case in enumerate(waiting, 1):
        try:
            file = (paths or {}).get(case.case, case.path)
            if not file:
                raise RadiographError("the index stores no path of it; build the index again with --regions")
            pixels = read_radiograph(Path(file)).pixels
            boxes = attended_boxes(encoder, pixels)
            made[case.case] = pack(boxes, encode_regions(encoder, pixels, boxes), pixels.shape)
        except RadiographError as error:
            unread.append((case.case, str(error)))
        if len(made) == 100 or number == len(waiting):
            with IndexWriter.open(path) as writer:
                writer.put("regions", made, "regions")
            done += len(made)
            made = {}
        if progress:
            progress(number, len(waiting))
    return done, unread


class RegionIndex:
    """The regions of an index, in memory: N of them, by study."""

    def __init__(self, reader: IndexReader) -> None:
        """Raises IndexFailure if the index has no regions."""
        from index.vectors.faiss import FaissStore  # late: it takes longer to import than all the rest

        pairs = reader.read_whole(lambda: list(zip(reader.cases(), reader.extra("regions"), strict=True)))
        dimension = reader.embeddings().shape[1]
        kept = [(case, *unpack(data, dimension)) for case, data in pairs if data]
        if not kept:
            raise IndexFailure(f"{reader.path} has no regions to search; make them with  mura-search index regions")
        self.cases = [case for case, places, _ in kept for _ in places]
        self.places = np.concatenate([places for _, places, _ in kept])
        self._studies = np.unique([case.study for case in self.cases], return_inverse=True)[1].astype(np.int64)
        self._store = FaissStore(np.concatenate([embeddings for _, _, embeddings in kept]))

    def search(self, embedding: Floats, scope: Scope, excluded: Collection[str] = ()) -> list[tuple[float, int]]:
        """The studies with the regions nearest to (D,): similarity and row of `cases` and `places`."""
        where = scope.where or {}
        allowed = np.array([case.patient not in excluded and _fits(case, where) for case in self.cases])
        return nearest_studies(self._store, embedding[None], scope.k, self._studies, allowed)[0]


def search_region(
    searcher: Searcher,
    images: Images,
    box: Box,
    *,
    k: int = SHOWN,
    patient: str | None = None,
    where: Where | None = None,
) -> RegionAnswer:
    """The studies with a region like the one that `box` marks in a radiograph; `k`, `patient`, `where` as in `search`.

    Raises RadiographError for several radiographs or a region outside, IndexFailure if the index has no regions.
    """
    searcher.refresh()
    views, _ = read_views(images)
    if len(views) != 1:
        raise RadiographError("a region is marked in one radiograph: name one file")
    return search_view_region(searcher, RegionIndex(searcher.index), views[0], box, Scope(k, patient, where))


def search_view_region(searcher: Searcher, regions: RegionIndex, view: View, box: Box, scope: Scope) -> RegionAnswer:
    """The same for a radiograph that is read already."""
    box = box.within(*view.pixels.shape[:2])
    excluded, _ = searcher.own_patients([view], scope.patient)
    (embedding,) = encode_regions(searcher.encoder, view.pixels, [box])
    neighbours = regions.search(embedding, scope, excluded)
    weights = vote_weights([similarity for similarity, _ in neighbours], searcher.rules.temperature).tolist()
    similar = []
    for rank, ((similarity, row), weight) in enumerate(zip(neighbours, weights, strict=True), 1):
        x, y, width, height = regions.places[row].tolist()
        case = regions.cases[row]
        similar.append(SimilarRegion.of(rank, similarity, weight, case, x=x, y=y, width=width, height=height))
    abnormal = sum(region.weight for region in similar if region.label == LABEL_NAMES[1]) if similar else None
    return RegionAnswer(view.name, box, abnormal, tuple(similar), tuple(sorted(excluded)))


def _fits(case: Case, where: Where) -> bool:
    values = {field: case.label_name if field == "label" else getattr(case, field) for field in where}
    return all(value in where[field] for field, value in values.items())
