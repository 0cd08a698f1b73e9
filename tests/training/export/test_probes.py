from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from retrieval.encoding.encoder import Encoder
from retrieval.encoding.probes import NOTHING
from retrieval.images.preprocessing import Preprocessing, preprocess
from training.data.dataset import TrainingSet
from training.export.probes import (
    AS_IS,
    INVERTED,
    LEFT,
    PENALTY,
    RIGHT,
    SPOILT,
    changed,
    fit_appearance,
    fit_layer,
    show,
)


@pytest.mark.parametrize("count", [0, 3])
def test_layers_are_those_of_scikit_learn(count: int) -> None:
    dice = np.random.default_rng(0)
    classes = dice.integers(0, max(count, 2), 400)
    embeddings = (dice.standard_normal((400, 6)) + 0.8 * np.eye(6)[classes]).astype(np.float32) * (1, 2, 3, 0.4, 1, 1)
    weight, bias = fit_layer(embeddings.astype(np.float32), classes, count)

    scaler = StandardScaler().fit(embeddings)
    oracle = LogisticRegression(C=1 / PENALTY, tol=1e-8, max_iter=10_000).fit(scaler.transform(embeddings), classes)
    wanted = oracle.decision_function(scaler.transform(embeddings)).reshape(400, -1)
    found = embeddings @ weight.T + bias
    if count:  # softmax is the same up to a constant
        wanted, found = (scores - scores.mean(1, keepdims=True) for scores in (wanted, found))
    assert found == pytest.approx(wanted, abs=1e-3)


def test_a_number_that_hardly_varies_does_not_decide() -> None:
    """In what was learned from it differs by rounding only, by chance along with the class."""
    dice = np.random.default_rng(3)
    classes = dice.integers(0, 2, 400)
    embeddings = dice.standard_normal((400, 4)).astype(np.float32)
    embeddings[:, 3] = 1e-7 * classes
    weight, _ = fit_layer(embeddings, classes)
    assert np.abs(weight[0, 3]) < 1e-3 < np.abs(weight[0, :3]).max()


def test_parts_and_changes_are_told_apart() -> None:
    dice = np.random.default_rng(1)
    parts = [("hand", "leg", "hip")[n % 3] for n in range(150)]
    signs = np.zeros((150, 5, 6))
    for n, part in enumerate(parts):
        signs[n, :4, ("hand", "leg", "hip").index(part)] = 1
    signs[:, INVERTED, 3] = signs[:, LEFT, 4] = signs[:, RIGHT, 4] = signs[:, SPOILT, 5] = 1
    vectors = (signs + 0.1 * dice.standard_normal(signs.shape)).astype(np.float32)
    looks = fit_appearance(vectors, parts)
    assert looks.parts == ("hand", "hip", "leg", NOTHING)
    for way in (AS_IS, INVERTED, LEFT, RIGHT):
        assert looks.part(vectors[:, way]) == parts
    assert looks.part(vectors[:, SPOILT]) == [NOTHING] * 150
    margins = looks.margins(vectors.reshape(750, 6), ["hand"]).reshape(150, 5, 3)
    assert ((margins[:, :4, 0] > 0) == [[part == "hand"] * 4 for part in parts]).all()
    assert (margins[:, SPOILT, 0] < 0).all()
    assert ((margins[:, :4, 1] < 0) == [False, True, False, False]).all()
    assert ((margins[:, [AS_IS, LEFT, RIGHT], 2] < 0) == [False, True, True]).all()
    everything = looks.margins(vectors.reshape(750, 6), ["hand", "leg", "hip", NOTHING]).reshape(150, 5, 3)
    assert ((everything[:, :, 0] < 0) == [False, False, False, False, True]).all()  # what is none is never familiar


def test_what_is_shown(blobs: TrainingSet, model: Path) -> None:
    """Each radiograph's features in five ways, beside its part; the same again for the same seed."""
    encoder = Encoder.open(model)
    pictures, coverage = (some[:, ::2, ::2] for some in blobs.take(range(len(blobs.cases))))
    blobs = TrainingSet.of_arrays(blobs.cases, pictures, coverage, blobs.known)
    shown = show(encoder, blobs, 3)
    again = show(encoder, blobs, 3)
    assert (shown.features == again.features).all()
    N = len(blobs.cases)
    assert shown.features.shape == (N, 5, 2 * encoder.head.features)
    assert sorted(shown.parts) == sorted(case.part for case in blobs.cases)
    row = int(np.random.default_rng(3).permutation(N)[0])
    wanted = encoder.encode_prepared(list(changed(blobs.take([row])[0][0]))).embeddings
    assert encoder.head.embed(shown.features)[0, :4] == pytest.approx(wanted, abs=1e-5)


def test_changes_of_a_prepared_picture_are_nearly_those_of_the_radiograph() -> None:
    dice = np.random.default_rng(2)
    smooth = cv2.GaussianBlur(dice.standard_normal((320, 240)), (0, 0), 6)
    pixels = np.clip(128 + 60 * smooth / smooth.std(), 1, 254).astype(np.uint8)
    how = Preprocessing(size=96)
    asis, inverted, left, right = changed(preprocess(pixels, how)[:, :, :1])
    assert (asis == preprocess(pixels, how)).all()
    for found, turns in ((left, 1), (right, 3)):
        wanted = preprocess(np.ascontiguousarray(np.rot90(pixels, turns)), how)
        assert np.abs(found.astype(int) - wanted).mean() < 3
    wanted = preprocess(np.asarray(255 - pixels, np.uint8), how)
    assert np.corrcoef(inverted.ravel(), wanted.ravel())[0, 1] > 0.98
    assert np.abs(inverted.astype(int) - wanted).mean() < 12
    assert (inverted[:, :10] == 0).all()  # the letterbox stays black


def test_a_black_picture_has_nothing_to_invert() -> None:
    assert not changed(np.zeros((8, 8, 1), np.uint8))[1].any()
