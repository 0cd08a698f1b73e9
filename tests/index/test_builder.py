import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.builder import IndexBuilder
from index.case import Case
from index.errors import IndexBusy, IndexFailure
from index.lock import Lock
from index.reader import IndexReader

Sample = tuple[list[Case], NDArray[np.float32], list[bytes], NDArray[np.float32]]
Start = Callable[..., IndexBuilder]


@pytest.fixture
def start(tmp_path: Path, model: Path) -> Start:
    """Begin an index at tmp_path/index, or go on with it."""

    def begin(fingerprint: str = "f", dimension: int = 8, replace: bool = False) -> IndexBuilder:
        return IndexBuilder.start(
            tmp_path / "index", model=model, dimension=dimension, fingerprint=fingerprint, replace=replace
        )

    return begin


def part(sample: Sample, first: int, last: int) -> Sample:
    cases, embeddings, thumbnails, logits = sample
    return cases[first:last], embeddings[first:last], thumbnails[first:last], logits[first:last]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_build_goes_on_where_it_was_left(tmp_path: Path, start: Start, sample: Sample) -> None:
    cases, embeddings, thumbnails, logits = sample
    bad = Case("bad.png", "s", "p", 0, path="/data/bad.png")
    with start() as build:
        build.add(*part(sample, 0, 20))
        build.quarantine([(bad, "it is empty")])
        build.set_metadata("collection", {"layout": "mura"})
    with start() as build:
        assert build.done() == {case.case for case in cases[:20]}
        assert build.quarantined() == {"bad.png": "it is empty"}
        build.add(*part(sample, 20, 60))
        assert build.cases() == cases
        assert build.embeddings().tobytes() == embeddings.tobytes()
        assert build.logits().tobytes() == logits.tobytes()
        build.finish()
    assert names(tmp_path) == ["index"]
    assert names(tmp_path / "index") == ["SHA256SUMS", "cases.sqlite", "model", "vectors.faiss"]
    with IndexReader.open(tmp_path / "index") as folder:
        assert folder.cases() == cases
        assert [folder.thumbnail(case.case) for case in cases] == thumbnails
        rows = [folder.embedding(case.case) for case in cases]
        assert [None if row is None else row.tobytes() for row in rows] == [row.tobytes() for row in embeddings]
        assert folder.embedding("no such case") is None
        assert folder.counts("part") == {
            part: sum(case.part == part for case in cases) for part in folder.counts("part")
        }
        assert sum(folder.counts("part").values()) == len(cases)
        with pytest.raises(ValueError, match="no field"):
            folder.counts("colour")
        assert folder.metadata("collection") == {"layout": "mura"}
        assert (folder.info()["generation"], folder.info()["quarantined"]) == (2, 1)


@pytest.mark.parametrize("other", [{"fingerprint": "g"}, {"dimension": 9}])
def test_a_build_of_something_else_begins_anew(start: Start, sample: Sample, other: dict[str, object]) -> None:
    with start() as build:
        build.add(*sample)
    with start(**other) as build:
        assert build.done() == set()


def test_a_damaged_partial_index_is_begun_anew(tmp_path: Path, start: Start, sample: Sample) -> None:
    with start() as build:
        build.add(*sample)
    file = tmp_path / "index" / ".partial" / "cases.sqlite"
    data = bytearray(file.read_bytes())
    data[data.index(sample[1][30].tobytes())] ^= 1  # within an embedding
    file.write_bytes(data)
    with start() as build:
        assert build.done() == set()
        build.add(*sample)
        build.finish()
    with IndexReader.open(tmp_path / "index") as folder:
        assert folder.cases() == sample[0]


def test_an_added_case_is_no_longer_set_aside(start: Start, sample: Sample) -> None:
    with start() as build:
        build.quarantine([(case, "the disk was away") for case in sample[0][:2]])
        build.add(*part(sample, 0, 1))
        assert build.quarantined() == {sample[0][1].case: "the disk was away"}


def test_a_name_that_is_not_unicode_can_be_set_aside(start: Start) -> None:
    with start() as build:
        build.quarantine([(Case("\udcff.png", "s", "p", 0), "its name is not Unicode")])
        assert build.quarantined() == {"?.png": "its name is not Unicode"}


def test_a_batch_is_added_in_whole_or_not_at_all(start: Start, sample: Sample) -> None:
    cases, embeddings, thumbnails, logits = part(sample, 0, 4)
    with start() as build:
        build.add(*part(sample, 0, 2))
        wrong = [
            (cases, embeddings, thumbnails, logits),  # two are there already
            ([*cases[2:3], *cases[2:3]], embeddings[:2], thumbnails[:2], logits[:2]),
            (cases[2:], embeddings[2:] * 1.01, thumbnails[2:], logits[2:]),
            (cases[2:], embeddings[2:, :7], thumbnails[2:], logits[2:]),
            (cases[2:], embeddings[2:], thumbnails[2:3], logits[2:]),
            (cases[2:], embeddings[2:], thumbnails[2:], np.array([0, np.nan], np.float32)),
            ([cases[2], Case("x", "s", "p", label=2)], embeddings[2:], thumbnails[2:], logits[2:]),
        ]
        for batch in wrong:
            with pytest.raises(ValueError, match=r"already|of length 1|embeddings are|one thumbnail|finite"):
                build.add(*batch)
        assert build.cases() == cases[:2]
        build.add(*part(sample, 2, 4))
        assert build.cases() == cases


def test_values_that_sqlite_would_change(tmp_path: Path, start: Start) -> None:
    cases = [
        Case(text, text, text, 1, text, text, text, text, text) for text in ("", "a\x00b", "\x1f", "'; --", "é\u0301")
    ]
    logits = np.array([-0.0, 2.0, 1e-45, -3.4e38, 0.1], np.float32)
    with start(dimension=1) as build:
        build.add(cases, np.ones((5, 1), np.float32), [b"", b"\x00", b"x", b"y", b"z"], logits)
        build.finish()
    with IndexReader.open(tmp_path / "index") as folder:
        assert folder.cases() == cases
        assert folder.logits().tolist() == logits.tolist()
        assert [folder.thumbnail(case.case) for case in cases] == [b"", b"\x00", b"x", b"y", b"z"]


def test_one_builder_at_a_time(tmp_path: Path, start: Start) -> None:
    with start() as build:
        with pytest.raises(IndexBusy, match="another process is building"):
            start()
        build.set_metadata("still", "mine")
    start().close()
    assert names(tmp_path / "index") == [".partial"]


def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Lock(tmp_path)
    flock = fcntl.flock

    def release_first(descriptor: int, operation: int) -> None:
        first.release()  # between the second's opening of the file and its locking
        flock(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", release_first)
    second = Lock(tmp_path)
    monkeypatch.undo()
    with pytest.raises(IndexBusy):
        Lock(tmp_path)
    second.release()
    second.release()
    assert names(tmp_path) == []


def test_an_index_is_replaced_only_on_request(place: Path, start: Start, sample: Sample) -> None:
    before = contents(place.parent)
    with pytest.raises(IndexBusy, match="--replace"):
        start()
    assert contents(place.parent) == before
    with IndexReader.open(place) as old:
        with start(replace=True) as build:
            build.add(*part(sample, 0, 5))
            build.finish()
        # A reader goes on with the index that it opened.
        assert old.search(sample[1][50:51], 1)[0][0].case.case in {sample[0][0].case, sample[0][50].case}
        assert old.thumbnail(sample[0][50].case) == sample[2][50]
    assert names(place.parent) == ["index"]
    with IndexReader.open(place) as new:
        assert new.cases() == sample[0][:5]


def test_the_old_index_stays_if_the_new_one_cannot_be_moved(
    place: Path, start: Start, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "cases.sqlite":
            raise OSError(5, "Input/output error")
        return replace(path, target)

    with start(replace=True) as build:
        build.add(*part(sample, 0, 5))
        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(IndexFailure, match="cannot be written"):
            build.finish()
    with IndexReader.open(place) as old:
        assert old.cases() == sample[0]
        assert old.search(sample[1][3:4], 1)[0][0].case in sample[0]


def test_another_model_does_not_touch_that_of_the_old_index(
    tmp_path: Path, place: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the new index is there, the old one is whole; afterwards only the new model is left."""
    another = tmp_path / "another"
    another.mkdir()
    (another / "model.json").write_text('{"another": 1}')
    put_in_place = IndexBuilder._put_in_place

    def looking(build: IndexBuilder) -> object:
        with IndexReader.open(place) as old:
            assert old.verify()
            assert (old.model / "model.json").read_text() == "{}"
        return put_in_place(build)

    monkeypatch.setattr(IndexBuilder, "_put_in_place", looking)
    first = shutil.copytree(place / "model", tmp_path / "first")
    for model, expected in ((another, '{"another": 1}'), (first, "{}"), (another, '{"another": 1}')):
        with IndexBuilder.start(place, model=model, dimension=8, fingerprint="f", replace=True) as build:
            build.add(*part(sample, 0, 5))
            build.finish()
        with IndexReader.open(place) as new:
            assert new.verify()
            assert (new.model / "model.json").read_text() == expected
        assert len(names(place)) == 4
        monkeypatch.undo()


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("beside_an_index", [True, False])
def test_a_folder_with_anything_else_in_it_is_never_taken(
    place: Path, start: Start, replace: bool, beside_an_index: bool
) -> None:
    if not beside_an_index:
        shutil.rmtree(place)
        place.mkdir()
    (place / "thesis.txt").write_text("years of work")
    before = contents(place.parent)
    with pytest.raises(IndexBusy, match=r"holds thesis\.txt, which is not part of an index"):
        start(replace=replace)
    assert contents(place.parent) == before


def test_a_file_at_the_place(tmp_path: Path, start: Start) -> None:
    (tmp_path / "index").write_text("")
    with pytest.raises(IndexBusy, match="is a file"):
        start(replace=True)


def test_a_place_taken_meanwhile(tmp_path: Path, start: Start, sample: Sample, template: Path) -> None:
    with start() as build:
        build.add(*sample)
        shutil.copytree(template, tmp_path / "index", dirs_exist_ok=True)
        with pytest.raises(IndexBusy, match="holds an index already"):
            build.finish()
    shutil.rmtree(tmp_path / "index" / "model")
    for name in ("SHA256SUMS", "cases.sqlite", "vectors.faiss"):
        (tmp_path / "index" / name).unlink()
    with start() as build:
        assert len(build.done()) == 60
        build.finish()
    assert contents(tmp_path / "index").keys() == contents(template).keys()


def test_a_place_that_cannot_be_written(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexFailure, match="cannot be written"):
        IndexBuilder.start(tmp_path / "file" / "index", model=model, dimension=8, fingerprint="f")


def test_behind_a_link(tmp_path: Path, model: Path, sample: Sample) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "index")
    with IndexBuilder.start(tmp_path / "link", model=model, dimension=8, fingerprint="f") as build:
        build.add(*sample)
        build.finish()
    assert names(tmp_path) == ["disk", "link"]
    assert names(tmp_path / "disk") == ["index"]
    with IndexReader.open(tmp_path / "link") as folder:
        assert folder.cases() == sample[0]


def test_metadata_is_json(start: Start) -> None:
    with start() as build:
        build.set_metadata("rules", {"k": 15})
        for wrong in (float("nan"), object()):
            with pytest.raises((TypeError, ValueError), match="JSON"):
                build.set_metadata("wrong", wrong)
        build.finish()
        with IndexReader.open(build.path) as folder:
            assert json.dumps(folder.metadata("rules")) == '{"k": 15}'
            assert folder.metadata("wrong") is None


def test_an_index_whose_writer_was_killed_may_be_replaced(place: Path, start: Start, sample: Sample) -> None:
    (place / "cases.sqlite-journal").write_bytes(b"")
    with start(replace=True) as build:
        build.add(*part(sample, 0, 5))
        build.finish()
    assert names(place) == ["SHA256SUMS", "cases.sqlite", "model", "vectors.faiss"]


@pytest.mark.parametrize("content", [b"", b"no database" * 500])
def test_a_partial_index_that_is_damaged_is_begun_again(
    tmp_path: Path, start: Start, sample: Sample, content: bytes
) -> None:
    with start() as build:
        build.add(*part(sample, 0, 20))
    (tmp_path / "index" / ".partial" / "cases.sqlite").write_bytes(content)
    for _ in range(2):
        with start() as build:
            assert build.done() == set()


def test_a_build_shows_what_it_holds(start: Start, sample: Sample) -> None:
    with start() as build:
        build.add(*sample)
        build.set_metadata("collection", {"layout": "mura"})
        assert build.metadata("collection") == {"layout": "mura"}
        assert build.metadata("never set") is None
        (batch,) = build.batches()
        assert (batch.cases, batch.thumbnails) == (sample[0], sample[2])
        assert batch.embeddings.tobytes() == sample[1].tobytes()
        assert batch.logits.tobytes() == sample[3].tobytes()


def test_a_discarded_build_leaves_nothing(tmp_path: Path, start: Start, sample: Sample) -> None:
    with start() as build:
        build.add(*sample)
        build.discard()
    assert names(tmp_path) == []


def test_a_build_that_cannot_begin_releases_its_lock(tmp_path: Path, start: Start) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / ".partial").write_text("a file")
    with pytest.raises(IndexFailure, match="cannot be written"):
        start()
    assert names(tmp_path / "index") == [".partial"]
