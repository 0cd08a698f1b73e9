from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra web is not installed")

from retrieval.datasets.collection import read_collection
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher
from web.service.indexed import from_index, from_selection


def test_an_indexed_study_has_the_measures_of_its_radiographs_and_not_of_their_small_pictures(
    model: Path, tmp_path: Path
) -> None:
    lines, pictures = ["path,label,patient,study"], []
    for number in range(4):
        pictures.append(np.random.default_rng(number).integers(0, 256, (300, 240), np.uint8))
        cv2.imwrite(str(tmp_path / f"{number}.png"), pictures[-1])
        lines.append(f"{number}.png,{'abnormal' if number > 1 else 'normal'},p{number // 2},s{number // 2}")
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    build_index(read_collection(tmp_path), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as searcher:
        study = from_index("1.png", files=False)(searcher)
        measure = searcher.encoder.measure
        for own, view, picture in zip(study.measures, study.views, pictures, strict=False):
            assert own.noise == pytest.approx(measure(picture).noise, rel=1e-6)
            assert own.noise != pytest.approx(measure(view.pixels).noise, rel=1e-3)
        # A study of two indexed ones has no radiograph of its own, so nothing is said of its measures.
        assert from_selection(["s0", "s1"], mean=True, most=5)(searcher).measures == ()

        both = study.joined(from_index("3.png", files=False)(searcher))
        assert both.only([1, 3]).measures == (study.measures[1], both.measures[3])
        assert both.only([1, 3]).encoded.logits.tolist() == both.encoded.logits[[1, 3]].tolist()
