from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from index.case import Case
from retrieval.datasets.collection import read_collection
from retrieval.encoding.batches import encoded_batches
from retrieval.encoding.bundle import HARMONISATION, Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.encoding.harmonisation import Harmonisation, covariates
from retrieval.errors import BundleError
from retrieval.images.measures import Measures, measure
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher

USUAL = Measures(
    sharpness=-0.5, noise=2.0, contrast=60.0, grey_range=200.0, size=448.0, saturated=0.01, background=0.4, blocking=0.4
)


def layer(dimension: int, seed: int = 0) -> Harmonisation:
    """Covariates around those of USUAL, their range one deviation to either side, and random weights."""
    mean = covariates([USUAL])[0]
    weight = np.random.default_rng(seed).normal(0, 0.05, (4, dimension))
    return Harmonisation(mean, np.array([0.2, 0.3]), np.full(2, -1.0), np.ones(2), weight)


def test_a_radiograph_within_the_range_keeps_its_embedding() -> None:
    embeddings = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)
    # 0.75 deviations; and what text, a border, a narrow window or JPEG change does not count.
    within = [
        replace(USUAL, sharpness=-0.35),
        replace(USUAL, size=300.0, saturated=0.2, background=0.8, contrast=90.0, grey_range=255.0, blocking=2.0),
    ]
    assert np.array_equal(layer(2).apply(embeddings, within), embeddings)


def test_what_lies_beyond_the_range_moves_an_embedding_by_its_weight() -> None:
    own = layer(3)
    softer = replace(USUAL, sharpness=-1.1, noise=2.5 * np.exp(0.75) - 0.5)  # 3 deviations below, 2.5 above the mean
    embedding = np.array([[0.48, 0.64, 0.6]], np.float32)
    moved = embedding[0] - (2.0 * own.weight[0] + 1.5 * own.weight[2 + 1])
    expected = moved / np.sqrt(sum(value**2 for value in moved))
    np.testing.assert_allclose(own.apply(embedding, [softer])[0], expected, atol=1e-6)
    farther, farthest = (replace(USUAL, sharpness=-0.5 - 0.2 * steps) for steps in (9, 90))  # 8 beyond, and 89
    np.testing.assert_allclose(own.apply(embedding, [farther]), own.apply(embedding, [farthest]), atol=1e-6)


def test_it_is_written_and_read(tmp_path: Path) -> None:
    own = layer(4)
    again = Harmonisation.parse(own.dump(), 4)
    assert all(np.array_equal(getattr(again, name), getattr(own, name)) for name in Harmonisation.__slots__)
    wrong = replace(own, scale=np.zeros(2)), replace(own, low=np.full(2, np.nan)), replace(own, mean=np.zeros(5))
    for data in (b"", own.dump()[:-8], *(damaged.dump() for damaged in wrong)):
        with pytest.raises(BundleError, match=r"harmonisation\.safetensors"):
            Harmonisation.parse(data, 4)
    with pytest.raises(BundleError, match="another shape"):
        Harmonisation.parse(own.dump(), 5)


def test_logits_of_query_and_index_are_harmonised_alike(make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", harmonisation=layer(2))
    assert HARMONISATION in Bundle.open(model).files
    rng = np.random.default_rng(0)
    lines = ["path,label,patient"]
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 200, (32, 32), np.uint8))
        lines.append(f"{number}.png,{'abnormal' if number % 2 else 'normal'},p{number}")
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    build_index(read_collection(tmp_path), tmp_path / "index", model=model)
    encoder, file = Encoder.open(model), tmp_path / "0.png"
    pixels = np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), np.uint8)
    as_it_is = encoder.encode_prepared([encoder.prepare(pixels)])
    expected = encoder.harmonisation.apply(as_it_is.embeddings, [measure(pixels, 32)])  # type: ignore[union-attr]
    assert np.abs(expected - as_it_is.embeddings).max() > 0.01

    batch = next(iter(encoded_batches([Case("0.png", "s", "p", 0, path=str(file))], encoder)))
    with Searcher.open(tmp_path / "index") as searcher:
        stored = searcher.index.embeddings()[[case.case for case in searcher.index.cases()].index("0.png")]
        answered = searcher.search(file).classifier.probability
        asked = searcher.rules.probabilities(encoder.head.classify(expected), as_it_is.embeddings)[0]
    for found in (encoder.encode([pixels]), batch):
        np.testing.assert_allclose(found.embeddings, as_it_is.embeddings, atol=1e-6)  # neighbours stay as they are
        assert found.logits == pytest.approx(encoder.head.classify(expected), abs=1e-5)
    assert stored == pytest.approx(as_it_is.embeddings[0], abs=1e-6)
    assert answered == pytest.approx(asked, abs=1e-6)
