"""Heatmaps on maps and models small enough to be followed by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder
from retrieval.errors import HeatmapError, RadiographError
from retrieval.explain.rendering import overlay, overlay_files, write_overlay
from retrieval.explain.smooth_grad_cam import (
    Heatmap,
    Smoothing,
    explain_class,
    explain_similarity,
    undo_letterbox,
    weigh,
)
from retrieval.images.preprocessing import Picture
from retrieval.synthetic.dataset import draw_study

Pixels = NDArray[np.uint8]
PLAIN = Smoothing(noise=0)


@pytest.fixture
def squares_encoder(model: Path) -> Encoder:
    """Encoder of grey squares: four cells' means, whose mean is the embedding's first number."""
    return Encoder.open(model)


@pytest.fixture(scope="session")
def bundled() -> Encoder:
    return Encoder.open(BUNDLED)


@pytest.fixture(scope="session")
def finger() -> Pixels:
    return draw_study(7, 3, abnormal=True)[0].pixels


def mirrored(encoder: Encoder) -> Encoder:
    return Encoder(replace(encoder.bundle, test_time="mirror"))


def heatmap(values: NDArray[np.float32]) -> Heatmap:
    return Heatmap(values, "abnormal", PLAIN)


def test_the_formula_by_hand() -> None:
    # Channel 0: A sums to 4, dS/dA is 1/2 at one place: alpha = 1 / (2 + 4/2) = 1/4, w = 1/4 x 1/2 = 1/8.
    # Channel 1: dS/dA is negative wherever it is anything: w = 0, so its strong place does not show.
    A = np.array([[[4, 0], [0, 0]], [[0, 0], [0, 9]]], np.float32)
    gradient = np.array([[[[0.5, 0], [0, 0]], [[0, 0], [0, -2]]]], np.float32)
    np.testing.assert_allclose(weigh(A, gradient, np.zeros(1, np.float32)), np.array([[0.5, 0], [0, 0]]))


def test_copies_weigh_as_exp_of_their_score() -> None:
    # Scores 0 and log 3: shares 1/4 and 3/4. Gradients 4 and 0: D1 = 1, D2 = 4, D3 = 16; alpha = 4 / (8 + 2 x 16).
    A = np.full((1, 1, 1), 2, np.float32)
    gradients = np.array([4, 0], np.float32).reshape(2, 1, 1, 1)
    scores = np.log(np.array([1, 3], np.float32))
    np.testing.assert_allclose(weigh(A, gradients, scores), 0.2, rtol=1e-6)


def test_copies_that_disagree_give_no_pole() -> None:
    # D1 is positive and D3 negative; with this A the paper's denominator, 2 D2 + A D3, is 0.
    gradients = np.array([1, 1, -1.6], np.float32).reshape(3, 1, 1, 1)
    D1, D2, D3 = (float((gradients**power).mean()) for power in (1, 2, 3))
    assert D3 < 0 < D1
    A = np.full((1, 1, 1), -2 * D2 / D3, np.float32)
    np.testing.assert_allclose(weigh(A, gradients, np.zeros(3, np.float32)), 0.5 * D1 * A[0], rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1.0, 1e12])
def test_it_is_finite_whatever_the_scale_of_gradients(scale: float) -> None:
    rng = np.random.default_rng(0)
    A = rng.normal(size=(5, 3, 4)).astype(np.float32)
    gradients = (scale * rng.normal(size=(3, 5, 3, 4))).astype(np.float32)
    heat = weigh(A, gradients, np.array([-1e4, 0, 1e4], np.float32))
    assert np.isfinite(heat).all()
    assert (heat >= 0).all()
    assert bool(heat.any()) == (scale > 0)


def test_what_speaks_for_each_label_on_squares(squares_encoder: Encoder) -> None:
    # The logit rises with the mean of the four cells, each (m - 0.5) / 0.25; evidence lies where cells are positive.
    pixels = np.full((32, 32), 128, np.uint8)
    pixels[:16, 16:] = 255
    found = explain_class(squares_encoder, pixels, PLAIN)
    assert found.target == "abnormal"
    assert found.values[0, 31] == 1
    assert found.values[31, 0] < 0.02  # 128 is a little above the middle of the range
    # Nothing on a bright square speaks for normal: the weights are those of cells, all negative.
    assert not explain_class(squares_encoder, pixels, PLAIN, target="normal").values.any()


def test_the_letterbox_is_undone(squares_encoder: Encoder) -> None:
    # 64 x 48 pixels lie in the middle 24 columns of the picture, over all four cells. The bright end shows.
    for turn in range(4):
        pixels = np.zeros((64, 48), np.uint8)
        pixels[:32] = 255
        pixels = np.ascontiguousarray(np.rot90(pixels, turn))
        values = explain_class(squares_encoder, pixels, PLAIN).values
        assert values.shape == pixels.shape
        assert values[pixels == 255].min() >= values[pixels == 0].max() - 1e-6
        assert values.max() == 1


def test_one_strong_cell_is_found_where_it_is() -> None:
    # Of 11 x 11 cells, in radiographs of many shapes: the strongest place is a cell's width away at most.
    size, cells = 352, 11
    for height, width in ((200, 400), (901, 333), (50, 60), (352, 352)):
        scale = max(height, width)
        for y, x in ((height // 4, width // 3), (height - 1, 0), (height // 2, width - 1)):
            row = int((y + (scale - height) / 2) / scale * cells)
            column = int((x + (scale - width) / 2) / scale * cells)
            heat = np.zeros((cells, cells), np.float32)
            heat[row, column] = 3
            values = undo_letterbox(heat, height, width, size)
            assert values.shape == (height, width)
            found = np.unravel_index(values.argmax(), values.shape)
            assert abs(found[0] - y) <= scale / cells
            assert abs(found[1] - x) <= scale / cells


def test_strength_over_the_bars_alone_is_no_strength() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[:, 0] = 1  # of a tall radiograph, whose picture is black there
    assert not undo_letterbox(heat, 400, 50, 32).any()


def test_it_depends_on_the_input_and_the_seed_alone(bundled: Encoder, finger: Pixels) -> None:
    first, again = (explain_class(bundled, finger) for _ in range(2))
    assert np.array_equal(first.values, again.values)
    assert first.smoothing == Smoothing()
    other = explain_class(bundled, finger, Smoothing(seed=1))
    assert not np.array_equal(first.values, other.values)
    np.testing.assert_allclose(first.values, other.values, atol=0.35)


def test_known_views_give_the_same(bundled: Encoder, finger: Pixels) -> None:
    views = bundled.views([bundled.prepare(finger)])
    for how in (Smoothing(), PLAIN):
        given = explain_class(bundled, finger, how, views=views).values
        np.testing.assert_allclose(explain_class(bundled, finger, how).values, given, atol=1e-4)


def test_it_costs_a_forward_pass_a_copy(bundled: Encoder, finger: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    views = bundled.views([bundled.prepare(finger)])
    maps = Encoder.maps

    def counted(encoder: Encoder, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        passes.append(len(pictures))
        return maps(encoder, pictures)

    monkeypatch.setattr(Encoder, "maps", counted)
    for how, known, expected in (
        (Smoothing(), None, [1] * 3),  # the radiograph itself and two copies
        (Smoothing(), views, [1] * 2),
        (Smoothing(samples=5), views, [1] * 5),
        (PLAIN, None, [1]),
        (PLAIN, views, []),
    ):
        passes.clear()
        explain_class(bundled, finger, how, views=known)
        assert passes == expected


@pytest.mark.parametrize("shape", [(300, 200), (300, 200, 3), (1, 1), (3, 500), (500, 1, 3)])
def test_range_and_size(bundled: Encoder, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    embedding = bundled.encode([pixels]).embeddings[0]
    for found in (explain_class(bundled, pixels), explain_similarity(bundled, pixels, embedding)):
        assert found.values.shape == shape[:2]
        assert found.values.dtype == np.float32
        assert found.values.min() >= 0
        assert found.values.max() in (0, 1)


@pytest.mark.parametrize("brightness", [0, 128, 255])
def test_a_blank_radiograph_has_a_finite_heatmap(bundled: Encoder, squares_encoder: Encoder, brightness: int) -> None:
    blank = np.full((40, 60), brightness, np.uint8)
    for encoder in (bundled, squares_encoder):
        values = explain_class(encoder, blank).values
        assert np.isfinite(values).all()
        assert values.max() in (0, 1)
    if brightness == 0:  # every cell is negative
        assert not explain_class(squares_encoder, blank).values.any()


def test_numbers_that_are_none_are_no_empty_heatmap(bundled: Encoder, finger: Pixels) -> None:
    views = bundled.views([bundled.prepare(finger)])
    views[0][0, 3, 2, 1] = np.nan
    with pytest.raises(RadiographError, match="numbers that are not finite"):
        explain_class(bundled, finger, PLAIN, views=views)


def test_similarity_has_no_direction_where_it_is_whole(squares_encoder: Encoder) -> None:
    # The cosine of a radiograph with itself cannot grow: its gradient is 0, and so is the heatmap.
    pixels = np.full((32, 32), 200, np.uint8)
    own = squares_encoder.encode([pixels]).embeddings[0]
    heat = explain_similarity(squares_encoder, pixels, own, PLAIN)
    assert heat.target == "similarity"
    assert not heat.values.any()
    # A brighter one draws it towards its bright cells.
    pixels[:16] = 140
    brighter = squares_encoder.encode([np.full((32, 32), 255, np.uint8)]).embeddings[0]
    values = explain_similarity(squares_encoder, pixels, brighter, PLAIN).values
    assert values[31].min() == 1
    assert values[0].max() < 0.5


def test_a_radiograph_and_its_mirror_image_have_mirrored_heatmaps(bundled: Encoder, finger: Pixels) -> None:
    # A model that says "mirror" looks at both, so it sees the same of either, in another order.
    encoder = mirrored(bundled)
    side = min(finger.shape)
    pixels = finger[:side, :side]  # a square has no bars, which could be a pixel wider on one side
    views = encoder.views([encoder.prepare(pixels)])
    assert len(views) == 2
    one = explain_class(encoder, pixels, PLAIN, views=views).values
    two = explain_class(encoder, pixels[:, ::-1], PLAIN, views=views[::-1]).values
    np.testing.assert_allclose(one, two[:, ::-1], atol=1e-5)
    assert np.abs(one - explain_class(bundled, pixels, PLAIN, views=views[:1]).values).max() > 0.05


def test_a_mirrored_heatmap_is_the_average_of_both(squares_encoder: Encoder) -> None:
    pixels = np.full((32, 32), 128, np.uint8)
    pixels[:16, 16:] = 255
    plain = explain_class(squares_encoder, pixels, PLAIN).values
    np.testing.assert_allclose(explain_class(mirrored(squares_encoder), pixels, PLAIN).values, plain, atol=1e-5)


def test_wrong_arguments_are_named(bundled: Encoder, finger: Pixels) -> None:
    for wrong in ({"samples": 0}, {"noise": -0.1}, {"noise": 1.1}, {"noise": float("nan")}, {"seed": -1}):
        with pytest.raises(ValueError, match="samples is at least 1"):
            Smoothing(**wrong)
    with pytest.raises(ValueError, match="abnormal or normal"):
        explain_class(bundled, finger, target="fracture")
    for other in (np.ones(127, np.float32), np.full(128, np.nan, np.float32)):
        with pytest.raises(ValueError, match="128 finite numbers"):
            explain_similarity(bundled, finger, other)


def test_overlay_shows_the_radiograph_where_nothing_is_and_colour_where_something_is() -> None:
    grey = np.full((40, 40), 90, np.uint8)
    values = np.zeros((40, 40), np.float32)
    values[5, 5], values[20:36, 20:36] = 0.4, 1
    painted = overlay(grey, heatmap(values), 0.5)
    assert painted.shape == (40, 40, 3)
    assert (painted[:5] == 90).all()
    assert painted[5, 5, 2] > painted[5, 5, 1]  # violet: red above green
    blue, green, red = cv2.applyColorMap(np.array([[255]], np.uint8), cv2.COLORMAP_INFERNO)[0, 0] // 2 + 45
    assert np.abs(painted[28, 28].astype(int) - [blue, green, red]).max() <= 1
    assert (painted[20, 28] > 225).all()  # the line around what is strong
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    assert np.array_equal(overlay(colour, heatmap(values), 0.5), painted)
    assert (grey == 90).all()
    assert (colour == 90).all()


def test_overlay_refuses_another_size_and_opacity() -> None:
    grey = np.zeros((4, 5), np.uint8)
    for values, opacity in ((np.zeros((5, 4), np.float32), 0.5), (np.zeros((4, 5), np.float32), 1.5)):
        with pytest.raises(ValueError, match="4 x 5"):
            overlay(grey, heatmap(values), opacity)


def test_colours_are_ordered_by_lightness() -> None:
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_INFERNO)
    lightness = cv2.cvtColor(table.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)[0, :, 0]
    assert (np.diff(lightness) > -0.5).all()
    assert lightness[-1] - lightness[0] > 90


def test_one_overlay_a_view(tmp_path: Path) -> None:
    place = tmp_path / "out.png"
    assert overlay_files(place, 1, ["q.png"]) == [place]
    assert [file.name for file in overlay_files(place, 3, ["a.png", "b.png", "c.png"])] == [
        "out-1.png", "out-2.png", "out-3.png",
    ]  # fmt: skip


def test_overlays_stay_out_of_the_way_of_radiographs(tmp_path: Path) -> None:
    query = tmp_path / "q.png"
    refused: list[tuple[Path, int, str | Path | list[Path], str]] = [
        (tmp_path / "out.jpg", 1, query, "end its name in .png"),
        (tmp_path / "no" / "out.png", 1, query, "folder does not exist"),
        (query, 1, query, "name another"),
        (query, 1, str(query), "name another"),
        (tmp_path / "out.png", 2, [tmp_path / "out-2.png", query], "name another"),
        (tmp_path / "out.png", 2, tmp_path, "name another"),
    ]
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert overlay_files(tmp_path / "out.png", 1, [loop, query]) == [tmp_path / "out.png"]
    for place, count, images, message in refused:
        with pytest.raises(HeatmapError, match=message):
            overlay_files(place, count, images)


def test_an_overlay_is_written_whole_or_refused_in_a_sentence(tmp_path: Path) -> None:
    grey = np.full((6, 7), 90, np.uint8)
    painted = overlay(grey, heatmap(np.ones((6, 7), np.float32)))
    write_overlay(tmp_path / "out.png", painted)
    read = cv2.imread(str(tmp_path / "out.png"))
    assert read is not None
    assert np.array_equal(read, painted)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(HeatmapError, match="cannot be written"):
        write_overlay(tmp_path / "folder.png", painted)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.png", "out.png"]
