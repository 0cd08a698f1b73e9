"""The cache of prepared radiographs: what is listed is whole, whoever was killed and however many append at once."""

import hashlib
import multiprocessing
import stat
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from numpy.typing import NDArray

from retrieval.images.preprocessing import Preprocessing
from training.data.cache import PictureCache, default_cache

HOW = Preprocessing(size=32)
Made = tuple[str, NDArray[np.uint8], int, int]


def made(number: int, channels: int = 1) -> Made:
    """A picture that its own number fills."""
    digest = hashlib.sha256(f"{number}".encode()).hexdigest()
    return digest, np.full((32, 32, channels), number % 256, np.uint8), 100 + number, 50


def check(place: Path, numbers: range) -> None:
    cache = PictureCache(place, HOW)
    entries = cache.entries()
    assert set(entries) >= {made(number)[0] for number in numbers}
    for number in numbers:
        entry = entries[made(number)[0]]
        picture = cache.pictures(entry.kind)[entry.row]
        assert (picture == number % 256).all()
        assert (entry.height, entry.width) == (100 + number, 50)


def test_pictures_come_back_by_digest_grey_and_colour(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, HOW)
    assert cache.entries() == {}
    assert cache.pictures("g").shape == (0, 32, 32, 1)
    cache.append([made(1), made(2, channels=3), made(3)])
    cache.append([made(3), made(4)])  # one is there already
    check(tmp_path, range(1, 5))
    assert [len(cache.pictures(kind)) for kind in "gc"] == [3, 1]


def test_another_preprocessing_has_another_folder(tmp_path: Path) -> None:
    PictureCache(tmp_path, HOW).append([made(1)])
    assert PictureCache(tmp_path, Preprocessing(size=32, clahe=False)).entries() == {}
    assert PictureCache(tmp_path, Preprocessing(size=64)).entries() == {}


@pytest.mark.parametrize("pixels", [b"", b"half of a picture"])
@pytest.mark.parametrize("line", [b"", b"abcdef,g,2", b"\xff\xfe"])
def test_what_a_killed_process_left_is_overwritten(tmp_path: Path, pixels: bytes, line: bytes) -> None:
    cache = PictureCache(tmp_path, HOW)
    cache.append([made(1), made(2)])
    for name, rest in (("grey.u8", pixels), ("rows.csv", line)):
        with (cache.folder / name).open("ab") as file:
            file.write(rest)
    check(tmp_path, range(1, 3))
    cache.append([made(3)])
    check(tmp_path, range(1, 4))
    assert len(cache.entries()) == 3


def _append(place: Path, first: int) -> None:
    for number in range(first, first + 20):
        PictureCache(place, HOW).append([made(number)])


def test_processes_append_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(tmp_path, first)) for first in (0, 10, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    check(tmp_path, range(40))
    assert len(PictureCache(tmp_path, HOW).entries()) == 40


def test_files_are_their_owners_alone_and_name_nobody(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, HOW)
    cache.append([made(1)])
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    for file in cache.folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0


def test_its_place_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MURA_SEARCH_CACHE", str(tmp_path))
    assert default_cache() == tmp_path / "prepared"
    monkeypatch.delenv("MURA_SEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert default_cache() == platformdirs.user_cache_path("mura-search") / "prepared"
    assert default_cache() != tmp_path
