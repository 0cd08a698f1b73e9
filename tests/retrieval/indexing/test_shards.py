from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from index.builder import IndexBuilder
from index.errors import IndexDamaged, IndexFailure
from index.reader import IndexReader
from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index
from retrieval.indexing.shards import Shard, build_shard, is_shard, join_shards
from retrieval.searcher import Searcher

Squares = Callable[..., Collection]


@pytest.fixture
def whole(squares: Squares) -> Collection:
    """60 studies, enough to learn rules from; and a file that is none."""
    collection = squares([(f"p{n}", f"s{n:02}", n % 2, [40 + 2 * n + 60 * (n % 2)]) for n in range(60)])
    (collection.root / "broken.png").write_bytes(b"no picture")
    broken = replace(collection.cases[0], case="broken.png", study="sx", path=str(collection.root / "broken.png"))
    return replace(collection, cases=(*collection.cases[:30], broken, *collection.cases[30:]))


@pytest.fixture
def shards(whole: Collection, model: Path, tmp_path: Path) -> list[Path]:
    places = [tmp_path / f"shard{number}" for number in (1, 2, 3)]
    for number, place in enumerate(places, start=1):
        build_shard(whole, Shard(number, 3), place, model=model)
    return places


def test_shards_joined_are_what_one_build_makes(
    whole: Collection, shards: list[Path], model: Path, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    joined = join_shards(
        [shards[2], shards[0], shards[1]], tmp_path / "joined", progress=lambda done, total: seen.append((done, total))
    )
    built = build_index(whole, tmp_path / "built", model=model)
    assert seen[-1] == (60, 60)
    assert replace(joined, path="", seconds=0) == replace(built, path="", seconds=0)
    with IndexReader.open(tmp_path / "joined") as one, IndexReader.open(tmp_path / "built") as other:
        assert one.verify()
        assert one.cases() == other.cases()
        assert one.embeddings() == pytest.approx(other.embeddings(), abs=1e-6)
        assert one.logits() == pytest.approx(other.logits(), abs=1e-5)
        assert [one.thumbnail(case.case) for case in one.cases()] == [other.thumbnail(c.case) for c in other.cases()]
        assert one.set_aside() == other.set_aside()
        for key in ("rules", "collection", "demand"):
            assert one.metadata(key) == other.metadata(key)
        assert one.metadata("shard") is None


def test_every_radiograph_is_in_one_shard(whole: Collection) -> None:
    for count in (1, 2, 7, 61, 100):
        pieces = [Shard(number, count).select(whole).cases for number in range(1, count + 1)]
        assert sum(pieces, ()) == whole.cases
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_a_shard_is_no_index_to_ask(shards: list[Path]) -> None:
    assert is_shard(shards[0])
    with pytest.raises(IndexFailure, match="is one shard of an index; join all of them"):
        Searcher.open(shards[0])


def test_shards_that_do_not_make_one(
    whole: Collection, shards: list[Path], model: Path, tmp_path: Path, squares: Squares
) -> None:
    place = tmp_path / "joined"
    build_index(whole, tmp_path / "index", model=model)
    build_shard(squares([("p", "s", 0, [40, 60])], "other"), Shard(1, 3), tmp_path / "stranger", model=model)
    for given, says in (
        (shards[:2], "shard 3 of 3 is missing"),
        ([*shards, shards[0]], "named twice"),
        ([*shards[:2], tmp_path / "stranger"], "another collection"),
        ([*shards[:2], tmp_path / "index"], "is not a shard"),
    ):
        with pytest.raises(IndexFailure, match=says):
            join_shards(given, place)
    damaged = shards[1] / "vectors.faiss"
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IndexDamaged):
        join_shards(shards, place)
    assert not place.exists()


def test_joining_goes_on_where_it_was_interrupted(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, calls = IndexBuilder.add, 0

    def interrupted(self: IndexBuilder, *batch: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        add(self, *batch)  # type: ignore[arg-type]

    monkeypatch.setattr(IndexBuilder, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        join_shards(shards, tmp_path / "joined")
    assert join_shards(shards, tmp_path / "joined").resumed == 20
    with IndexReader.open(tmp_path / "joined") as folder:
        assert folder.size() == (60, 60)


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "-1/4", "1/0", "a/b", "1/2/3", "1.5/2"])
def test_no_shard(text: str) -> None:
    with pytest.raises(ValueError, match="written like 3/8"):
        Shard.parse(text)
