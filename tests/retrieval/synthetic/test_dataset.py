"""Synthetic radiographs: random numbers against NumPy's own, geometry by hand, drawing by its properties."""

import csv
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from math import pi, radians
from pathlib import Path

import cv2
import numpy as np
import pytest

from retrieval.datasets.collection import read_collection
from retrieval.errors import CollectionError
from retrieval.synthetic.dataset import LESIONS, VIEWS, Phantom, draw_study, write_collection
from retrieval.synthetic.finger import Finger, Frame, Pose, project_bones, random_finger
from retrieval.synthetic.hardware import Rod, draw_implant
from retrieval.synthetic.rng import RandomStream
from retrieval.synthetic.thickness_maps import Camera, Tissue, draw_finger, mark_joint

STRAIGHT = (0.0, 0.0, 0.0, 0.0)
STUDIES = {"fracture": 2, "dislocation": 25, "joint-space narrowing": 30, "lytic lesion": 1, "metal": 5}  # of seed 0
PIXELS = "7fe5c2d6b812ca4d"  # the start of a SHA-256, see test_same_pixels_on_every_machine


@pytest.fixture(scope="module")
def finger() -> Finger:
    """A finger without sesamoid, growth lines or marks, so that its volume does not depend on the view."""
    grown = random_finger(RandomStream(1), RandomStream(2))
    a, b, c, d = (replace(bone, physis=0.0, scar=0.0, lines=()) for bone in grown.bones)
    return replace(grown, bones=(a, b, c, d), sesamoid=0.0, creases=())


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[list[Phantom], list[Phantom]]]:
    """For each finding, a study with it and the same study without it."""
    return {name: (draw_study(0, study, True), draw_study(0, study, False)) for name, study in STUDIES.items()}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "MURA, synthetic"
    write_collection(folder, patients=10, seed=3, abnormal=0.5, valid=0.3)
    return folder


def camera(angle: float = 0.0, mirror: float = 1.0) -> Camera:
    return Camera(900, 900, 0.2, angle, (75.0, 0.0), mirror)


# Random numbers


def test_uniform_is_numpys_own() -> None:
    rng, oracle = RandomStream(7, 1, 9), np.random.Generator(np.random.PCG64(np.random.SeedSequence((7, 1, 9))))
    assert [rng.uniform() for _ in range(100)] == oracle.random(100).tolist()


def test_noise_is_the_sum_of_the_four_parts_of_a_draw() -> None:
    raw = np.random.PCG64(np.random.SeedSequence((5,))).random_raw(6)
    parts = [sum((int(number) >> shift) & 0xFFFF for shift in (0, 16, 32, 48)) for number in raw]
    expected = (np.array(parts, dtype=np.float64) - 131070.0) / np.sqrt((65536.0**2 - 1.0) / 3.0)
    np.testing.assert_allclose(RandomStream(5).noise(2, 3), expected.reshape(2, 3), rtol=1e-13)
    plenty = RandomStream(6).noise(300, 300)
    assert abs(plenty.mean()) < 0.02
    assert abs(plenty.std() - 1.0) < 0.02


def test_choices_follow_their_shares() -> None:
    rng = RandomStream(11)
    drawn = [rng.choice("abc", (0.5, 0.0, 1.5)) for _ in range(4000)]
    assert drawn.count("b") == 0
    assert abs(drawn.count("a") / 4000 - 0.25) < 0.03
    assert {rng.integer(2, 4) for _ in range(100)} == {2, 3, 4}


# Geometry


def test_a_straight_finger_is_as_long_as_its_parts(finger: Finger) -> None:
    skeleton = project_bones(finger, Pose(0.3, STRAIGHT, STRAIGHT))
    whole = sum(bone.length for bone in finger.bones) + sum(finger.spaces)
    assert skeleton.tip == pytest.approx((whole, 0.0))
    assert skeleton.joints[0] == pytest.approx((finger.bones[0].length + finger.spaces[0] / 2, 0.0))


def test_flexion_shows_from_the_side_and_shortens_from_the_back(finger: Finger) -> None:
    bent = (0.0, 0.0, radians(60), 0.0)
    side, back = project_bones(finger, Pose(pi / 2, bent, STRAIGHT)), project_bones(finger, Pose(0.0, bent, STRAIGHT))
    assert (side.frames[2].cosine, side.frames[2].sine) == pytest.approx((0.5, 3**0.5 / 2))
    assert side.frames[2].scale == pytest.approx(1.0)
    assert (back.frames[2].cosine, back.frames[2].scale) == pytest.approx((1.0, 0.5))


def test_a_bone_keeps_its_distance_however_bent(finger: Finger) -> None:
    """The base stays at the joint space from the head's sphere, whose centre is `pivot` behind its end."""
    skeleton = project_bones(finger, Pose(pi / 2, (0.0, 0.2, 0.9, 0.4), STRAIGHT))
    for number in range(3):
        bone, base = finger.bones[number], skeleton.frames[number + 1]
        x, y = skeleton.frames[number].at(bone.length - bone.pivot)
        assert np.hypot(base.x - x, base.y - y) == pytest.approx(bone.pivot + finger.spaces[number])


@pytest.mark.parametrize("mirror", [1.0, -1.0])
@pytest.mark.parametrize("angle", [0.0, 0.7, pi / 2, pi])
def test_the_camera_finds_what_it_measures(angle: float, mirror: float) -> None:
    """A disc marked about a point has the area of a disc, and its middle where `local` says 0."""
    tissue = Tissue.empty(camera(angle, mirror), RandomStream(0))
    mark_joint(tissue, (80.0, 5.0), 9.0)
    assert tissue.finding.sum() * 0.2**2 == pytest.approx(pi * 81.0, rel=0.02)
    x, y = tissue.camera.local(Frame(80.0, 5.0, 0.6, 0.8), tissue.camera.window([(75.0, 0.0)], 200.0))
    assert abs(x[tissue.finding].mean()) < 0.1
    assert abs(y[tissue.finding].mean()) < 0.1


def test_distal_is_up_and_mirroring_turns_left_and_right_over() -> None:
    plain, mirrored = camera(), camera(mirror=-1.0)
    window = plain.window([(75.0, 0.0)], 200.0)
    x, y = plain.local(Frame(0.0, 0.0, 1.0, 0.0), window)
    assert x[0, 0] > x[-1, 0]
    assert y[0, 0] < y[0, -1]
    np.testing.assert_allclose(mirrored.local(Frame(0.0, 0.0, 1.0, 0.0), window)[1], y[:, ::-1], atol=1e-9)


def test_every_view_holds_the_same_tissue(finger: Finger) -> None:
    """A parallel projection keeps volume: the maps' sums agree from every side, but for the bones' rounded ends."""

    def volumes(theta: float) -> tuple[float, float]:
        tissue = Tissue.empty(camera(), RandomStream(0))
        draw_finger(tissue, finger, Pose(theta, STRAIGHT, STRAIGHT))
        return float(tissue.soft.sum()), float(tissue.bone.sum())

    soft, bone = volumes(0.0)
    for theta in (0.4, 0.9, pi / 2):
        assert volumes(theta) == pytest.approx((soft, bone), rel=0.05)


def test_a_wire_is_as_thick_as_it_is() -> None:
    tissue = Tissue.empty(camera(), RandomStream(0))
    wire = Rod(1, (10.0, -5.0, 0.0), (40.0, 5.0, 0.0), radius=1.0)
    draw_implant(tissue, wire, Frame(50.0, 0.0, 1.0, 0.0), Pose(0.0, STRAIGHT, STRAIGHT))
    assert tissue.metal.max() == pytest.approx(2.0, rel=0.02)
    length = 1000.0**0.5
    assert tissue.metal.sum() * 0.2**2 == pytest.approx(pi * length + 4.0 / 3.0 * pi, rel=0.03)  # with its round ends
    assert tissue.finding.sum() * 0.2**2 == pytest.approx(2.0 * length + pi, rel=0.05)


# Drawing


def test_same_pixels_on_every_machine(pairs: dict[str, tuple[list[Phantom], list[Phantom]]]) -> None:
    """Change PIXELS only where the drawing was changed on purpose, and say in the change log that seeds draw others.

    The digest was the same under NumPy 2.2 and 2.4, OpenCV 4.11 and 5.0, with and without IPP, AVX and AVX2.
    """
    digest = hashlib.sha256()
    for views in pairs.values():
        for phantom in (*views[0], *views[1]):
            digest.update(repr(phantom.pixels.shape).encode() + phantom.pixels.tobytes() + phantom.mask.tobytes())
    assert digest.hexdigest().startswith(PIXELS)


def test_a_study_does_not_depend_on_what_was_drawn_before() -> None:
    first = draw_study(4, 8, True)
    draw_study(4, 9, False)
    for one, other in zip(first, draw_study(4, 8, True), strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    assert any(
        one.pixels.shape != other.pixels.shape for one, other in zip(first, draw_study(5, 8, True), strict=False)
    )


@pytest.mark.parametrize("name", LESIONS)
def test_a_finding_is_seen_where_its_mask_says(
    name: str, pairs: dict[str, tuple[list[Phantom], list[Phantom]]]
) -> None:
    with_it, without = pairs[name]
    best = 0.0
    for ill, well in zip(with_it, without, strict=True):
        assert (ill.label, ill.lesion, well.label, well.lesion) == (1, name, 0, "")
        assert ill.view == well.view
        assert ill.pixels.shape == well.pixels.shape == ill.mask.shape
        assert not well.mask.any()
        assert 0 < ill.mask.mean() < 0.12
        change = np.abs(ill.pixels.astype(np.int64) - well.pixels)
        best = max(best, float(np.percentile(change[ill.mask], 90)))
        if name in {"lytic lesion", "metal"}:  # the others move what lies beyond them
            far = cv2.dilate(ill.mask.astype(np.uint8), np.ones((41, 41), np.uint8)) == 0
            assert np.percentile(change[far], 99) <= 6
    assert best >= 15


def test_views_and_sizes_are_those_of_mura(collection: Path) -> None:
    with (collection / "lesions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["view"] for row in rows} == set(VIEWS)
    pictures = [cv2.imread(str(collection / row["path"]), cv2.IMREAD_UNCHANGED) for row in rows]
    assert all(picture is not None and picture.ndim == 2 and picture.dtype == np.uint8 for picture in pictures)
    assert all(300 <= max(picture.shape) <= 512 for picture in pictures if picture is not None)


def test_white_spots_are_no_sign_of_metal(collection: Path) -> None:
    """Markers, rings, overlapping bones and unexposed margins saturate normal radiographs as well."""
    normal = [case.path for case in read_collection(collection).cases if case.label == 0]
    white = [np.mean(np.asarray(cv2.imread(path, cv2.IMREAD_GRAYSCALE)) >= 245) > 1e-3 for path in normal]
    assert sum(white) >= len(white) / 4


# Collections


def test_a_collection_reads_as_mura(collection: Path) -> None:
    read = read_collection(collection)
    assert (read.layout, read.synthetic) == ("mura", True)
    pictures = sorted(path for path in collection.rglob("image*.png") if "masks" not in path.parts)
    assert sorted(Path(case.path) for case in read.cases) == pictures
    split = {name: {case.patient for case in read.cases if case.split == name} for name in ("train", "valid")}
    assert (len(split["train"]), len(split["valid"])) == (7, 3)
    assert not split["train"] & split["valid"]
    labels = {case.study: case.label for case in read.cases}
    assert abs(sum(labels.values()) - len(labels) / 2) <= 1
    assert "synthetic" in (collection / "SYNTHETIC.txt").read_text()


def test_the_csv_files_name_every_file(collection: Path) -> None:
    for split in ("train", "valid"):
        with (collection / f"{split}_image_paths.csv").open(newline="") as file:
            named = {collection.parent / row[0] for row in csv.reader(file)}
        assert named == set((collection / split).rglob("*.png"))
        with (collection / f"{split}_labeled_studies.csv").open(newline="") as file:
            studies = {collection.parent / row[0]: row[1] for row in csv.reader(file)}
        assert set(studies) == {path.parent for path in named}
        assert all((label == "1") == path.name.endswith("_positive") for path, label in studies.items())


def test_masks_belong_to_abnormal_radiographs(collection: Path) -> None:
    with (collection / "lesions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert bool(row["lesion"]) == bool(row["mask"]) == ("_positive" in row["path"])
        if row["mask"]:
            mask = cv2.imread(str(collection / row["mask"]), cv2.IMREAD_UNCHANGED)
            picture = cv2.imread(str(collection / row["path"]), cv2.IMREAD_UNCHANGED)
            assert mask is not None
            assert picture is not None
            assert mask.shape == picture.shape
            assert set(np.unique(mask)) == {0, 255}
    assert {row["mask"] for row in rows} - {""} == {
        path.relative_to(collection).as_posix() for path in (collection / "masks").rglob("*.png")
    }


def test_an_interrupted_collection_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert (done, total) == (1, 4)  # one of the three patients has two studies
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_collection(tmp_path / "new", patients=3, seed=2, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_collection_is_not_there(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from retrieval.synthetic.dataset import write_collection;"
        "write_collection(Path(sys.argv[1]), patients=9, progress=lambda done, total: os._exit(9))"
    )
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", program, str(tmp_path / "new")]
    ended = subprocess.run(command, check=False, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    assert ended.returncode == 9
    assert not (tmp_path / "new").exists()


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CollectionError, match="already holds something"):
        write_collection(tmp_path, patients=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(CollectionError, match="at least 1 patient"):
        write_collection(tmp_path / "new", patients=0)
    with pytest.raises(CollectionError, match="between 0 and 1"):
        write_collection(tmp_path / "new", patients=1, abnormal=1.5)
