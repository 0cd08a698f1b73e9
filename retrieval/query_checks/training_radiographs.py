"""Whether a model was trained on a radiograph that it is asked about."""

from collections.abc import Sequence

from retrieval.encoding.batches import thumbnail
from retrieval.encoding.bundle import Bundle, digest_number
from retrieval.encoding.picture_hash import Hashes, picture_hashes, same_picture
from retrieval.notices import Code, Notice
from retrieval.query import View

__all__ = ["TrainingRadiographs"]


class TrainingRadiographs:
    """The radiographs that a model was trained on, as its bundle lists them; the list is read when it is needed."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._listed: tuple[frozenset[int], Hashes] | None = None

    def notices(self, views: Sequence[View]) -> list[Notice]:
        """A notice for each view that the model was trained on: its file has the same bytes, or the same picture."""
        if self._listed is None:
            self._listed = self._bundle.seen(), self._bundle.seen_hashes()
        digests, hashes = self._listed
        same = same_picture(picture_hashes(thumbnail(view.pixels) for view in views), hashes)
        return [
            Notice(Code.TRAINED_ON, view.name)
            for view, seen in zip(views, same, strict=True)
            if seen or (view.digest and digest_number(view.digest) in digests)
        ]
