import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder
from retrieval.errors import BundleError
from retrieval.synthetic.dataset import draw_study


def test_squares_are_encoded_as_their_model_says(model: Path) -> None:
    encoder = Encoder.open(model)
    encoded = encoder.encode([np.full((32, 32), value, np.uint8) for value in (0, 128, 255)])
    m = (np.array([0, 128, 255]) / 255 - 0.5) / 0.25
    expected = np.stack([m, np.ones(3)], 1) / np.hypot(m, 1)[:, None]
    np.testing.assert_allclose(encoded.embeddings, expected, atol=1e-5)
    np.testing.assert_allclose(encoded.logits, 4 * expected[:, 0], atol=1e-4)


def test_the_bundled_model_does_not_depend_on_the_batch() -> None:
    encoder = Encoder.open(BUNDLED)
    pixels = [phantom.pixels for study in range(2) for phantom in draw_study(1, study, abnormal=study == 1)]
    together = encoder.encode(pixels)
    np.testing.assert_allclose(np.linalg.norm(together.embeddings, axis=1), 1, atol=1e-5)
    for row, one in enumerate(pixels):
        alone = encoder.encode([one])
        np.testing.assert_allclose(alone.embeddings[0], together.embeddings[row], atol=1e-4)
        np.testing.assert_allclose(alone.logits[0], together.logits[row], atol=1e-3)


def test_a_network_that_does_not_run_is_refused(make_model: Callable[..., Path], tmp_path: Path) -> None:
    from dataclasses import replace

    from retrieval.encoding.bundle import Bundle

    bundle = Bundle.open(make_model(tmp_path / "model"))
    broken = replace(bundle, files={**bundle.files, "encoder.onnx": b"no network"})
    with pytest.raises(BundleError, match="cannot be run"):
        Encoder(broken)
    with pytest.raises(BundleError, match="disagree"):
        Encoder(replace(bundle, dimension=3))


def test_a_mirrored_bundle_averages_both_sides_and_cannot_tell_them_apart(tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    shutil.copytree(BUNDLED, folder)
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (folder / "model.json").write_text(json.dumps({**about, "test_time": "mirror"}), encoding="utf-8")
    plain, mirror = Encoder.open(BUNDLED), Encoder.open(folder)
    pictures = [plain.prepare(drawn.pixels) for drawn in draw_study(0, 1, abnormal=True)]
    flipped = [picture[:, ::-1] for picture in pictures]
    as_is, other, both = (
        plain.encode_prepared(pictures),
        plain.encode_prepared(flipped),
        mirror.encode_prepared(pictures),
    )
    middle = as_is.embeddings + other.embeddings
    expected = middle / np.linalg.norm(middle, axis=1, keepdims=True)
    assert np.abs(as_is.embeddings - other.embeddings).max() > 1e-3  # so it is not for nothing
    np.testing.assert_allclose(both.embeddings, expected, atol=1e-6)
    np.testing.assert_allclose(both.logits, (as_is.logits + other.logits) / 2, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(both.embeddings, axis=1), 1, atol=1e-6)
    alone = mirror.encode_prepared(pictures[-1:])
    np.testing.assert_allclose(alone.embeddings[0], both.embeddings[-1], atol=1e-4)
    np.testing.assert_allclose(alone.logits[0], both.logits[-1], atol=1e-3)
    np.testing.assert_array_equal(mirror.maps(pictures[:1]), plain.maps(pictures[:1]))
    again = mirror.encode_prepared(flipped)
    np.testing.assert_allclose(again.embeddings, both.embeddings, atol=1e-5)
    np.testing.assert_allclose(again.logits, both.logits, atol=1e-4)
