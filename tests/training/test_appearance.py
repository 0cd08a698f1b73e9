import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from retrieval.preprocess import Preprocessing, preprocess
from training.appearance import PENALTY, changed, fit_appearance, fit_layer


@pytest.mark.parametrize("count", [0, 3])
def test_layers_are_those_of_scikit_learn(count: int) -> None:
    dice = np.random.default_rng(0)
    classes = dice.integers(0, max(count, 2), 400)
    embeddings = (dice.standard_normal((400, 6)) + 0.8 * np.eye(6)[classes]).astype(np.float32) * (1, 2, 3, 0.1, 1, 1)
    weight, bias = fit_layer(embeddings.astype(np.float32), classes, count)

    scaler = StandardScaler().fit(embeddings)
    oracle = LogisticRegression(C=1 / PENALTY, tol=1e-8, max_iter=10_000).fit(scaler.transform(embeddings), classes)
    wanted = oracle.decision_function(scaler.transform(embeddings)).reshape(400, -1)
    found = embeddings @ weight.T + bias
    if count:  # softmax is the same up to a constant
        wanted, found = (scores - scores.mean(1, keepdims=True) for scores in (wanted, found))
    assert found == pytest.approx(wanted, abs=1e-3)


def test_parts_and_changes_are_told_apart() -> None:
    dice = np.random.default_rng(1)
    changes = np.tile(np.arange(4), 150)
    parts = [("hand", "leg", "hip")[n // 4 % 3] for n in range(600)]
    signs = np.column_stack(
        [[part == name for part in parts] for name in ("hand", "leg", "hip")] + [changes == 1, changes >= 2]
    )
    embeddings = (signs + 0.1 * dice.standard_normal((600, 5))).astype(np.float32)
    looks = fit_appearance(embeddings, parts, changes)
    assert looks.parts == ("hand", "hip", "leg")
    assert looks.part(embeddings) == parts
    margins = looks.margins(embeddings, ["hand"])
    assert ((margins[:, 0] > 0) == [part == "hand" for part in parts]).all()
    assert ((margins[:, 1] < 0) == (changes == 1)).all()
    assert ((margins[changes != 1, 2] < 0) == (changes[changes != 1] >= 2)).all()


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
