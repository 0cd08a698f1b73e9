"""Pictures of radiographs for a report, with the words that stand for them."""

from dataclasses import dataclass
from pathlib import Path

from retrieval.encoding.batches import thumbnail
from retrieval.errors import RadiographError
from retrieval.images.radiograph import read_radiograph

__all__ = ["Layers", "Picture", "file_thumbnail"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture (JPEG or PNG; None leaves a blank) with lines below it; the mark of `label` begins the first."""

    data: bytes | None
    alt: str
    lines: tuple[str, ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Layers:
    """A radiograph (None leaves a blank) with its caption and, over it, a heatmap of the same proportions."""

    picture: bytes | None
    alt: str
    caption: str
    heatmap: bytes | None = None
    heatmap_alt: str = ""


def file_thumbnail(path: str) -> bytes | None:
    """The thumbnail of a radiograph's file; None where the file can no longer be read."""
    try:
        return thumbnail(read_radiograph(Path(path)).pixels)
    except RadiographError:
        return None
