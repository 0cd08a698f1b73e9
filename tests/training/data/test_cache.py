"""The cache of prepared radiographs: whole pictures, whoever was killed or wrote at once, whatever was damaged."""

import hashlib
import multiprocessing
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from retrieval.images.preprocessing import Preprocessing
from training.data.cache import PictureCache, Prepared, default_cache

HOW = Preprocessing(size=32)


def digest(number: int) -> str:
    return hashlib.sha256(f"{number}".encode()).hexdigest()


def made(number: int, channels: int = 1) -> Prepared:
    """A picture that its own number fills."""
    return Prepared(
        np.full((32, 32, channels), number % 256, np.uint8), 100 + number, 50, np.full(64, number, np.uint8)
    )


def check(folder: Path, number: int, channels: int = 1) -> None:
    prepared = PictureCache(folder, HOW).read(digest(number))
    assert prepared is not None
    assert np.array_equal(prepared.picture, made(number, channels).picture)
    assert (prepared.height, prepared.width) == (100 + number, 50)
    assert (prepared.hash == number).all()


def test_pictures_come_back_by_digest_grey_and_colour(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, HOW)
    assert not cache.holds(digest(1))
    assert cache.read(digest(1)) is None
    for number, channels in ((1, 1), (2, 3), (3, 1), (3, 1)):
        cache.write(digest(number), made(number, channels))
        check(tmp_path, number, channels)
    assert cache.holds(digest(1))


def test_another_preprocessing_has_another_folder(tmp_path: Path) -> None:
    PictureCache(tmp_path, HOW).write(digest(1), made(1))
    assert not PictureCache(tmp_path, Preprocessing(size=32, clahe=False)).holds(digest(1))
    assert not PictureCache(tmp_path, Preprocessing(size=64)).holds(digest(1))


def flipped(number: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:number] + bytes([data[number] ^ 1]) + data[number + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:10],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
        lambda data: data[:512] + bytes(len(data) - 512),
        *(flipped(number) for number in (0, 4, 8, 12, 16, 50, 700)),
    ],
)
def test_a_damaged_picture_counts_as_missing(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    cache = PictureCache(tmp_path, HOW)
    cache.write(digest(1), made(1))
    (file,) = cache.folder.glob("*/*")
    file.write_bytes(damage(file.read_bytes()))
    assert cache.read(digest(1)) is None
    cache.write(digest(1), made(1))
    check(tmp_path, 1)


def test_a_picture_under_the_digest_of_another_counts_as_missing(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, HOW)
    cache.write(digest(1), made(1))
    cache.write(digest(2), made(2))
    (file,) = cache.folder.glob(f"*/{digest(1)}")
    next(cache.folder.glob(f"*/{digest(2)}")).write_bytes(file.read_bytes())
    assert cache.read(digest(2)) is None


def _write(folder: Path, first: int) -> None:
    for number in range(first, first + 20):
        PictureCache(folder, HOW).write(digest(number), made(number))


def test_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path, first)) for first in (0, 10, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    for number in range(40):
        check(tmp_path, number)
    assert len(list(tmp_path.rglob("*/*/*"))) == 40


def test_files_are_their_owners_alone_and_name_nobody(tmp_path: Path) -> None:
    cache = PictureCache(tmp_path, HOW)
    cache.write(digest(1), made(1))
    files = [file for file in cache.folder.rglob("*") if file.is_file()]
    assert [file.name for file in files] == [digest(1)]
    for path in (cache.folder, *cache.folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_its_place_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MURA_SEARCH_CACHE", str(tmp_path))
    assert default_cache() == tmp_path / "prepared"
    monkeypatch.delenv("MURA_SEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert default_cache() == platformdirs.user_cache_path("mura-search") / "prepared"
    assert default_cache() != tmp_path
