import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.encoding.bundle import BUNDLED, Bundle, digest_number
from retrieval.errors import BundleError

FILES = ("model.json", "encoder.onnx", "head.safetensors", "seen.safetensors")


def test_what_was_written_is_read(make_model: Callable[..., Path], tmp_path: Path) -> None:
    digests = ["ab" * 32, "cd" * 32]
    bundle = Bundle.open(make_model(tmp_path / "model", seen=digests))
    assert (bundle.name, bundle.dimension, bundle.preprocessing.size) == ("squares", 2, 32)
    assert bundle.seen() == {digest_number(digest) for digest in digests}
    assert bundle.seen() == {0xABABABABABABABAB, 0xCDCDCDCDCDCDCDCD}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped"])
def test_damage_is_one_sentence(model: Path, tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    file = folder / name
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(data[:-5])
    else:
        # In model.json a flipped byte may leave another valid document; there it is put where it breaks the syntax.
        at = 0 if name == "model.json" else len(data) // 2
        data[at] ^= 0x20
        file.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_schema_and_a_missing_field_are_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**about, "schema": "mura-search/model/9"}))
    with pytest.raises(BundleError, match=r"mura-search/model/9, this version reads mura-search/model/1"):
        Bundle.open(folder)
    for field in about:
        (folder / "model.json").write_text(json.dumps({k: v for k, v in about.items() if k != field}))
        with pytest.raises(BundleError):
            Bundle.open(folder)


def test_every_change_of_a_bundle_changes_its_name_for_others(make_model: Callable[..., Path], tmp_path: Path) -> None:
    first = Bundle.open(make_model(tmp_path / "a"))
    same = Bundle.open(make_model(tmp_path / "b"))
    other = Bundle.open(make_model(tmp_path / "c", seen=["ab" * 32]))
    assert first.sha256 == same.sha256
    assert first.sha256 != other.sha256


def test_the_bundled_model_is_whole_small_and_says_what_it_is() -> None:
    bundle = Bundle.open(BUNDLED)
    assert sum(file.stat().st_size for file in BUNDLED.iterdir()) <= 16_000_000
    assert bundle.synthetic
    assert bundle.rules is not None
    assert bundle.provenance["pretrained"] is True
    assert len(bundle.seen()) > 1000
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    for said in ("CC BY 4.0", "10.1038/s41597-023-02432-4", "synthetic", "not a medical device"):
        assert said in card


def test_an_unknown_test_time_augmentation_is_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert Bundle.open(folder).test_time == ""
    (folder / "model.json").write_text(json.dumps({**about, "test_time": "mirror"}), encoding="utf-8")
    assert Bundle.open(folder).test_time == "mirror"
    (folder / "model.json").write_text(json.dumps({**about, "test_time": "ten crops"}), encoding="utf-8")
    with pytest.raises(
        BundleError, match="'ten crops', which this version does not know; use the version that wrote it"
    ):
        Bundle.open(folder)
