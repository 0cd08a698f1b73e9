"""A radiograph that the model was trained on is called so."""

from collections.abc import Callable
from pathlib import Path

import cv2

from retrieval.datasets.collection import Collection
from retrieval.encoding.batches import thumbnail
from retrieval.encoding.picture_hash import picture_hashes
from retrieval.images.radiograph import file_digest
from retrieval.indexing.build import build_index
from retrieval.notices import Code
from retrieval.searcher import Searcher
from retrieval.synthetic.dataset import draw_study
from tests.retrieval.index_of_squares import STUDIES

Squares = Callable[..., Collection]


def test_a_radiograph_that_the_model_was_trained_on_is_called_so(
    squares: Squares, square: Callable[..., Path], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    seen, new = square("seen.png", 100), square("new.png", 101)
    model = make_model(tmp_path / "model", seen=[file_digest(seen)])
    build_index(squares(STUDIES), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as searcher:
        assert any(f"trained on {seen}" in warning for warning in searcher.search(seen).warnings)
        assert searcher.search(new).warnings == ()


def test_a_radiograph_that_the_model_was_trained_on_is_known_in_other_bytes(
    squares: Squares, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    seen, new = (phantom.pixels for phantom in draw_study(0, 1, abnormal=True)[:2])
    model = make_model(tmp_path / "model", hashes=picture_hashes([thumbnail(seen)]))
    build_index(squares(STUDIES), tmp_path / "index", model=model)
    cv2.imwrite(str(tmp_path / "seen.jpg"), seen, (cv2.IMWRITE_JPEG_QUALITY, 60))
    with Searcher.open(tmp_path / "index") as searcher:
        for image in (tmp_path / "seen.jpg", seen):
            assert [notice.code for notice in searcher.search(image).notices] == [Code.TRAINED_ON]
        assert searcher.search(new).notices == ()
