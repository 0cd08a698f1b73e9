import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import training.data.dataset
from retrieval.datasets.collection import read_collection
from retrieval.images.preprocessing import Preprocessing, preprocess
from retrieval.images.radiograph import Radiograph, read_radiograph
from retrieval.synthetic.dataset import write_collection
from training.data.augment import augment
from training.data.dataset import load_training_set
from training.data.lesion_boxes import read_boxes
from training.errors import TrainingError

HOW = Preprocessing(size=64)


def fracatlas(root: Path) -> Path:
    """Two images of 100 x 50 (width x height), the second with a box over its right half."""
    root.mkdir()
    for name, label in (("a.png", "normal"), ("b.png", "abnormal")):
        cv2.imwrite(str(root / name), np.full((50, 100), 90 if label == "normal" else 160, np.uint8))
    (root / "cases.csv").write_text("path,label,part\na.png,normal,hand\nb.png,abnormal,hand\n")
    (root / "fractures.csv").write_text(
        "image_id,x,y,width,height,image_width,image_height\nb.png,50.0,0.0,50.0,50.0,100,50\n"
    )
    return root


def test_pictures_are_those_of_a_query_and_boxes_lie_where_they_belong(tmp_path: Path) -> None:
    collection = read_collection(fracatlas(tmp_path / "data"))
    data, failed = load_training_set([collection], HOW)
    assert failed == []
    assert [case.case for case in data.cases] == ["a.png", "b.png"]
    pictures, coverage = data.take([0, 1])
    for case, picture in zip(data.cases, pictures, strict=True):
        radiograph = read_radiograph(Path(case.path))
        assert case.digest == radiograph.digest
        assert np.array_equal(picture, preprocess(radiograph.pixels, HOW)[:, :, :1])
    # Letterboxed to 64: rows 16 to 48; at a quarter of it the box is rows 4 to 12, columns 8 to 16.
    expected = np.zeros((16, 16), np.uint8)
    expected[4:12, 8:] = 255
    assert np.array_equal(coverage[1], expected)
    assert coverage[0].max() == 0
    assert data.known.tolist() == [True, True]


def test_an_abnormal_one_without_a_box_is_unknown(tmp_path: Path) -> None:
    root = fracatlas(tmp_path / "data")
    (root / "fractures.csv").unlink()
    data, _ = load_training_set([read_collection(root)], HOW)
    assert data.known.tolist() == [True, False]


def test_two_collections_keep_their_patients_apart(tmp_path: Path) -> None:
    one, two = (read_collection(fracatlas(tmp_path / name)) for name in ("one", "two"))
    data, _ = load_training_set([one, two], HOW)
    assert len({case.patient for case in data.cases}) == 4
    assert len({case.case for case in data.cases}) == 4


def test_unreadable_files_are_left_out_with_a_reason(tmp_path: Path) -> None:
    root = fracatlas(tmp_path / "data")
    (root / "a.png").write_text("no picture")
    data, failed = load_training_set([read_collection(root)], HOW)
    assert [case.case for case in data.cases] == ["b.png"]
    assert failed[0][0].endswith("a.png")
    (root / "b.png").write_text("nor this")
    with pytest.raises(TrainingError, match="none of the radiographs"):
        load_training_set([read_collection(root)], HOW)


def test_synthetic_masks_give_boxes(tmp_path: Path) -> None:
    write_collection(tmp_path / "phantoms", patients=4, seed=3, abnormal=0.5, valid=0.0)
    collection = read_collection(tmp_path / "phantoms")
    boxes = read_boxes(collection)
    with (tmp_path / "phantoms" / "lesions.csv").open() as lines:
        masks = {row["path"]: row["mask"] for row in csv.DictReader(lines) if row["mask"]}
    assert boxes.keys() == masks.keys() == {case.case for case in collection.cases if case.label == 1}
    for path, ((left, top, width, height),) in boxes.items():
        mask = cv2.imread(str(tmp_path / "phantoms" / masks[path]), cv2.IMREAD_GRAYSCALE)
        assert mask is not None
        rows, columns = np.nonzero(mask)
        assert [left * mask.shape[1], (left + width) * mask.shape[1]] == pytest.approx(
            [columns.min(), columns.max() + 1]
        )
        assert [top * mask.shape[0], (top + height) * mask.shape[0]] == pytest.approx([rows.min(), rows.max() + 1])


def test_a_table_of_findings_has_no_boxes(tmp_path: Path) -> None:
    root = fracatlas(tmp_path / "data")
    (root / "fractures.csv").unlink()
    (root / "lesions.csv").write_text("path,lesion\nb.png,fracture\n")
    assert read_boxes(read_collection(root)) == {}


def test_whatever_is_learned_from_is_in_the_fingerprint(tmp_path: Path) -> None:
    root = fracatlas(tmp_path / "data")
    data, _ = load_training_set([read_collection(root)], HOW)
    made = {data.fingerprint()}
    assert load_training_set([read_collection(root)], HOW)[0].fingerprint() in made
    for change in ({"part": "foot"}, {"study": "other"}, {"patient": "other"}, {"label": 1}, {"digest": "0" * 64}):
        made.add(replace(data, cases=(replace(data.cases[0], **change), *data.cases[1:])).fingerprint())
    made.add(data.rows(np.array([1, 0])).fingerprint())
    table = root / "fractures.csv"
    table.write_text(table.read_text() + "b.png,0,0,5,5,64,32\n")
    made.add(load_training_set([read_collection(root)], HOW)[0].fingerprint())
    assert len(made) == 8


def test_several_processes_share_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has read one when the second comes, begins in the middle and reads all others."""
    write_collection(tmp_path / "phantoms", patients=2, seed=3, abnormal=0.5, valid=0.0)
    collection = read_collection(tmp_path / "phantoms")
    read: list[tuple[str, str]] = []
    rank = {"RANK": "0", "WORLD_SIZE": "2"}
    monkeypatch.setattr(training.data.dataset, "_AT_ONCE", 1)
    monkeypatch.setattr(training.data.dataset, "rank_and_size", lambda: (int(rank["RANK"]), 2))

    def noted(path: Path, name: str) -> Radiograph:
        read.append((rank["RANK"], str(path.relative_to(collection.root))))
        return read_radiograph(path, name)

    monkeypatch.setattr(training.data.dataset, "read_radiograph", noted)

    def second(done: int, total: int) -> None:
        if rank["RANK"] == "0" and done == 1:
            rank["RANK"] = "1"
            other, _ = load_training_set([collection], HOW)
            assert len(other.cases) == total
            rank["RANK"] = "0"

    data, _ = load_training_set([collection], HOW, second)
    names = [case.case for case in collection.cases]
    assert [case.case for case in data.cases] == names
    middle = len(names) // 2
    assert read == [("0", names[0])] + [("1", name) for name in (*names[middle:], *names[1:middle])]


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: bytes(len(data))])
def test_a_damaged_picture_is_prepared_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    collection = read_collection(fracatlas(tmp_path / "data"))
    whole, _ = load_training_set([collection], HOW, cache=tmp_path / "cache")
    file = next(path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(TrainingError, match="changed or damaged during the run"):
        whole.take([0, 1])
    again, _ = load_training_set([collection], HOW, cache=tmp_path / "cache")
    assert all(np.array_equal(*pair) for pair in zip(again.take([0, 1]), whole.take([0, 1]), strict=True))


def test_fracatlas_own_annotations_give_boxes(tmp_path: Path) -> None:
    root = fracatlas(tmp_path / "data")
    expected = read_boxes(read_collection(root))
    file = root / "Annotations" / "COCO JSON" / "COCO_fracture_masks.json"
    file.parent.mkdir(parents=True)
    image = {"id": 7, "file_name": "b.png", "width": 100, "height": 50}
    content = {"images": [image], "annotations": [{"image_id": 7, "bbox": [50, 0, 25, 50]}]}
    file.write_text(json.dumps(content))
    assert read_boxes(read_collection(root)) == expected  # a table of one's own comes first
    (root / "fractures.csv").unlink()
    assert read_boxes(read_collection(root)) == {"b.png": [(0.5, 0.0, 0.25, 1.0)]}
    for broken in ("no JSON", "[]", json.dumps({**content, "images": []})):
        file.write_text(broken)
        with pytest.raises(TrainingError, match=r"COCO_fracture_masks\.json has no boxes in COCO's format"):
            read_boxes(read_collection(root))


def test_a_broken_table_of_boxes_is_named(tmp_path: Path) -> None:
    root = fracatlas(tmp_path / "data")
    (root / "fractures.csv").write_text("image_id,x\nb.png,1\n")
    with pytest.raises(TrainingError, match=r"fractures\.csv is not a table of boxes"):
        load_training_set([read_collection(root)], HOW)


def test_augmentation_of_no_strength_only_mirrors_turns_and_inverts(texture: Callable[..., np.ndarray]) -> None:
    grey = cv2.GaussianBlur(texture(3, 120), (0, 0), 2)
    pictures = torch.from_numpy(cv2.resize(grey, (64, 64))).float()[None, None].expand(64, 1, 64, 64) / 255
    coverage = torch.zeros(64, 1, 16, 16)
    one = pictures[0]
    sides = [way for turned in (one, one.rot90(2, (1, 2))) for way in (turned, turned.flip(2))]
    ways = torch.stack([*sides, *(1 - way for way in sides)])  # (8, 1, 64, 64)
    away = {}
    for strength in (0.0, 0.5, 1.0, 2.0):
        moved, _ = augment(pictures, coverage, 0, strength)
        differences = (moved[:, None] - ways).abs().mean((2, 3, 4))  # (64, 8)
        away[strength] = float(differences.min(1).values.mean())
        if not strength:
            assert differences.min(1).values.max() < 1e-5
            assert set(differences.argmin(1).tolist()) >= {0, 1, 2, 3}
    assert away[0.0] < away[0.5] < away[1.0] < away[2.0]


def test_augmentation_moves_lesions_with_their_picture() -> None:
    pictures, coverage = torch.zeros(16, 1, 64, 64), torch.zeros(16, 1, 16, 16)
    pictures[:, :, 20:32, 36:48] = 1  # bright where the lesion is
    coverage[:, :, 5:8, 9:12] = 1
    moved, where = augment(pictures, coverage, 0)
    assert moved.min() >= 0
    assert moved.max() <= 1
    small = torch.nn.functional.avg_pool2d(moved, 4)
    for picture, lesion in zip(small, where, strict=True):
        if lesion.sum() < 4:  # shifted out of the picture
            continue
        contrast = (picture * lesion).sum() / lesion.sum() - (picture * (1 - lesion)).sum() / (1 - lesion).sum()
        assert abs(contrast) > 0.4  # the sign is that of the polarity
    again, _ = augment(pictures, coverage, 0)
    assert torch.equal(moved, again)
