from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from index.case import Case
from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder
from retrieval.synthetic.dataset import draw_study
from training.data.processing import processed
from training.export.harmonisation import _weight, fit_harmonisation


def test_the_weight_is_that_of_the_changes() -> None:
    rng = np.random.default_rng(0)
    h, weight = 8 * rng.random((400, 12)), rng.normal(size=(12, 3))
    e = h @ weight + rng.normal(0, 0.05, (400, 3))
    np.testing.assert_allclose(_weight(h, e, np.arange(400) % 5), weight, atol=0.05)


def test_copies_that_were_processed_otherwise_come_nearer_to_their_radiographs(tmp_path: Path) -> None:
    cases, pictures = [], []
    for number in range(72):
        pixels = draw_study(5, number, abnormal=number % 2 == 1)[0].pixels
        file = tmp_path / f"{number}.png"
        cv2.imwrite(str(file), pixels)
        cases.append(Case(file.name, f"s{number}", f"p{number}", number % 2, "finger", path=str(file)))
        pictures.append(pixels)
    plain = Encoder.open(BUNDLED)
    plain.harmonisation = None
    assert fit_harmonisation(plain, [replace(case, path="") for case in cases], 0) is None
    layer = fit_harmonisation(plain, cases[:56], 0)
    assert layer is not None

    new = pictures[56:]
    copies = [processed(picture, np.random.default_rng(number)) for number, picture in enumerate(new)]
    kept = [(picture, copy) for picture, copy in zip(new, copies, strict=True) if copy is not None]
    assert len(kept) > 5
    originals = plain.encode([picture for picture, _ in kept])
    as_they_are = plain.encode([copy for _, copy in kept])
    harmonised = layer.apply(as_they_are.embeddings, [plain.measure(copy) for _, copy in kept])
    before, after = (
        float(np.mean((originals.embeddings * own).sum(1))) for own in (as_they_are.embeddings, harmonised)
    )
    assert after > before + 0.005
