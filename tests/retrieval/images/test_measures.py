import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.images.corruptions import corrupt
from retrieval.images.measures import MEASURES, Measures, measure, measure_rows
from retrieval.synthetic.dataset import draw_study

SIZE = 96
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def finger() -> Picture:
    return np.asarray(cv2.resize(draw_study(3, 0, abnormal=False)[0].pixels, (72, SIZE)), np.uint8)


def filtered(values: NDArray[np.float64], sigma: float, taps: int) -> NDArray[np.float64]:
    """A Gaussian filter as its definition has it, with mirrored borders."""
    offsets = np.arange(taps) - taps // 2
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    for axis in (0, 1):
        pads = [(taps // 2, taps // 2) if axis == own else (0, 0) for own in (0, 1)]
        padded = np.pad(values, pads, mode="reflect")
        values = np.apply_along_axis(lambda line: np.convolve(line, weights, "valid"), axis, padded)
    return values


def independent(grey: Picture) -> dict[str, float]:
    """The measures of a picture that needs no scaling, in plain NumPy."""
    g = grey.astype(float)
    finer, softer = filtered(g, 0.7, 5), filtered(g, 1.4, 9)
    padded = np.pad(g, 1, mode="reflect")
    H, W = g.shape
    window = {(y, x): padded[y : y + H, x : x + W] for y in range(3) for x in range(3)}
    weights = ((1, -2, 1), (-2, 4, -2), (1, -2, 1))
    changes = np.sum([weights[y][x] * part for (y, x), part in window.items()], axis=0)
    flat = np.sort(g.ravel())
    edges = inside = 0.05
    for lines in (g, g.T):
        phases: list[list[float]] = [[] for _ in range(8)]
        for line in lines:
            for x in range((len(line) - 3) // 8 * 8):
                phases[x % 8].append(min(8, abs(line[x + 3] - 3 * line[x + 2] + 3 * line[x + 1] - line[x])))
        means = sorted(float(np.mean(own)) for own in phases)
        edges, inside = edges + means[-1], inside + means[3]
    return {
        "sharpness": float(np.log(np.sqrt(((g - finer) ** 2).mean()) / np.sqrt(((finer - softer) ** 2).mean()))),
        "noise": float(np.median(np.abs(changes[g >= 16]))) / 0.6745 / 6,
        "contrast": float(g.std()),
        "grey_range": float(flat[int(np.ceil(0.99 * g.size)) - 1] - flat[int(np.ceil(0.01 * g.size)) - 1]),
        "size": float(max(H, W)),
        "saturated": float((g >= 250).mean()),
        "background": float((g < 16).mean()),
        "blocking": float(np.log(edges / inside)),
    }


def test_they_are_what_their_equations_say(finger: Picture) -> None:
    wanted, found = independent(finger), measure(finger, SIZE)
    for name in MEASURES:
        rounding = 0.13 if name == "noise" else 1e-6  # half a level of |L * g|
        assert getattr(found, name) == pytest.approx(wanted[name], rel=1e-3, abs=rounding), name


@pytest.mark.parametrize("sigma", [2.0, 6.0])
def test_noise_of_a_known_deviation_is_found(sigma: float) -> None:
    grey = np.full((SIZE, SIZE), 128.0) + np.random.default_rng(0).normal(0, sigma, (SIZE, SIZE))
    assert measure(np.asarray(grey.round(), np.uint8), SIZE).noise == pytest.approx(sigma, rel=0.06)


def test_blur_enhancement_noise_window_and_size_each_move_their_own(finger: Picture) -> None:
    plain = measure(finger, SIZE)

    def changed(name: str, strength: int = 1) -> Measures:
        return measure(corrupt(finger, name, strength), SIZE)

    assert changed("blurred").sharpness < plain.sharpness < changed("unsharp-masked").sharpness
    assert changed("electronic-noise").noise > plain.noise + 2
    assert changed("low-contrast").contrast == pytest.approx(0.7 * plain.contrast, rel=0.02)
    assert changed("low-contrast").sharpness == pytest.approx(plain.sharpness, abs=0.1)
    assert changed("low-contrast").grey_range < plain.grey_range
    assert changed("narrow-window", 2).saturated > plain.saturated
    assert changed("bordered", 2).background > plain.background
    assert changed("shrunk").size == SIZE / 2
    assert changed("shrunk").sharpness < plain.sharpness  # what is enlarged for the encoder is soft
    assert changed("enlarged").size == plain.size
    assert changed("jpeg").blocking > plain.blocking + 0.4


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (1400, 900)])
@pytest.mark.parametrize("offset", [(0, 0), (3, 6)])
def test_blocking_rises_as_the_quality_falls_wherever_blocks_begin(
    shape: tuple[int, int], offset: tuple[int, int]
) -> None:
    random = np.random.default_rng(4)
    smooth = cv2.GaussianBlur(random.uniform(0, 255, shape), (0, 0), 12)
    drawn = (60 + 8 * (smooth - smooth.mean()) + random.normal(0, 2, shape)).clip(0, 255).astype(np.uint8)

    def blocking(quality: int) -> float:
        data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        read = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)[offset[0] :, offset[1] :]
        return measure(read, SIZE).blocking

    assert abs(measure(drawn, SIZE).blocking) < 0.1
    assert 0.5 < blocking(75) < blocking(60) < blocking(30) < blocking(10)


def test_colour_that_is_grey_counts_as_grey(finger: Picture) -> None:
    assert measure(np.dstack([finger] * 3), SIZE) == measure(finger, SIZE)


@pytest.mark.parametrize(
    "pixels", [np.zeros((1, 1)), np.full((300, 2), 255), np.zeros((40, 30, 3)), np.full((5, 5), 9)]
)
def test_any_picture_has_measures_that_are_numbers(pixels: NDArray[np.float64]) -> None:
    rows = measure_rows([measure(pixels.astype(np.uint8), SIZE)])
    assert rows.shape == (1, len(MEASURES))
    assert np.isfinite(rows).all()
    assert measure_rows([]).shape == (0, len(MEASURES))
