"""Building an index in pieces, on as many machines as there are, and joining them into what one build would have made.

Shard i of n is the i-th of n runs of the collection's radiographs, in the collection's order. It is an index folder of
its own, with its checksums, that holds no decision rules, since those are learned on the whole.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path

from index.builder import IndexBuilder
from index.errors import IndexFailure
from index.reader import IndexReader
from retrieval.answer import plain
from retrieval.datasets.collection import Collection
from retrieval.encoding.bundle import BUNDLED, Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.indexing.build import BuildReport, about, bundle_rules, encode_remaining, fingerprint, finish_build, told

__all__ = ["Shard", "ShardReport", "build_shard", "is_shard", "join_shards"]

SCHEMA = "mura-search/shard/1"
_NO_SEARCH = {"latency": 1e9}  # a shard is not searched, so nothing is approximated


@dataclass(frozen=True, slots=True)
class Shard:
    """Which piece: `number` 1 to `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Of "3/8". Raises ValueError."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError(f"a shard is written like 3/8, the third of eight, not {text!r}")
        return cls(int(number), int(count))

    def of(self, collection: Collection) -> Collection:
        """The radiographs of this piece."""
        N = len(collection.cases)
        first, last = (N * n // self.count for n in (self.number - 1, self.number))
        return replaced(collection, cases=collection.cases[first:last])


@dataclass(frozen=True, slots=True)
class ShardReport:
    path: str
    shard: str
    cases: int
    quarantined: tuple[tuple[str, str], ...]
    warnings: tuple[tuple[str, str], ...]
    resumed: int
    seconds: float

    def to_dict(self) -> dict[str, object]:
        return {"schema": SCHEMA, **plain(self), **told(self.quarantined, self.warnings)}


def build_shard(
    collection: Collection,
    shard: Shard,
    place: Path,
    *,
    model: Path | None = None,
    replace: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ShardReport:
    """Encode one piece of a collection, of which the whole is given; like `build_index` otherwise."""
    started = time.perf_counter()
    encoder = Encoder.open(BUNDLED if model is None else model)
    whole = fingerprint(collection, encoder.bundle)
    piece = shard.of(collection)
    settings = {
        "shard": {"number": shard.number, "count": shard.count, "whole": whole},
        "demand": _NO_SEARCH,
        **about(collection),
    }
    with IndexBuilder.start(
        place,
        model=encoder.bundle.folder,
        dimension=encoder.bundle.dimension,
        fingerprint=f"{whole} {shard.number}/{shard.count}",
        replace=replace,
    ) as build:
        resumed = len(build.done())
        warnings = encode_remaining(build, piece, encoder, workers, progress)
        count, quarantined = len(build.done()), build.quarantined()
        for key, value in settings.items():
            build.set_metadata(key, value)
        build.finish()
    return ShardReport(
        path=str(place),
        shard=f"{shard.number}/{shard.count}",
        cases=count,
        quarantined=tuple(quarantined.items()),
        warnings=tuple(warnings),
        resumed=resumed,
        seconds=time.perf_counter() - started,
    )


def is_shard(place: Path) -> bool:
    """Whether the index at the place is a piece that waits to be joined. Raises IndexFailure where there is none."""
    with IndexReader.open(place) as folder:
        return folder.metadata("shard") is not None


def join_shards(
    places: Sequence[Path],
    place: Path,
    *,
    replace: bool = False,
    demand: Mapping[str, float] | None = None,
    store: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Make one index of all shards of a collection, in whatever order they are named; the shards stay as they are.

    The result holds what one build would have made. Interrupted, the same call goes on where it was. Raises
    IndexFailure where a shard is missing, damaged, named twice, or of another collection or model.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        folders = _in_order([stack.enter_context(IndexReader.open(one)) for one in places])
        for folder in folders:
            folder.verify()
        bundle = Bundle.open(folders[0].model)
        total = sum(folder.size()[0] for folder in folders)
        with IndexBuilder.start(
            place,
            model=bundle.folder,
            dimension=bundle.dimension,
            fingerprint=f"joined {_shard(folders[0])['whole']}",
            replace=replace,
        ) as build:
            done = build.done()
            resumed = met = len(done)
            for folder in folders:
                for batch in folder.batches():
                    new = [n for n, case in enumerate(batch.cases) if case.case not in done]
                    if new:
                        pictures = [batch.thumbnails[n] for n in new]
                        build.add([batch.cases[n] for n in new], batch.embeddings[new], pictures, batch.logits[new])
                    met += len(new)
                    if progress:
                        progress(met, total)
                build.quarantine(folder.set_aside())
            collection = folders[0].metadata("collection")
            settings = {"collection": collection, "demand": dict(demand or {}), "store": dict(store or {})}
            report = finish_build(build, settings, bundle_rules(bundle), bundle.seen(), bundle.appearance())
    synthetic = isinstance(collection, dict) and bool(collection.get("synthetic"))
    seconds = time.perf_counter() - started
    return replaced(report, path=str(place), resumed=resumed, synthetic=synthetic, seconds=seconds)


def _in_order(folders: Sequence[IndexReader]) -> list[IndexReader]:
    """The shards by number. Raises IndexFailure unless they are all shards of one collection, each once."""
    for folder in folders:
        if folder.metadata("shard") is None:
            raise IndexFailure(f"{folder.path} is no shard: it was built without --shard")
    first = _shard(folders[0])
    for folder in folders:
        shard = _shard(folder)
        if (shard["whole"], shard["count"]) != (first["whole"], first["count"]):
            raise IndexFailure(
                f"{folder.path} is a shard of another collection, model or division than {folders[0].path}"
            )
    numbers = [int(str(_shard(folder)["number"])) for folder in folders]
    wanted = range(1, int(str(first["count"])) + 1)
    missing = sorted(set(wanted) - set(numbers))
    if missing or len(numbers) != len(wanted):
        which = f"shard {missing[0]} of {len(wanted)} is missing" if missing else "a shard is named twice"
        raise IndexFailure(f"{which}; name every shard once")
    return sorted(folders, key=lambda folder: int(str(_shard(folder)["number"])))


def _shard(folder: IndexReader) -> dict[str, object]:
    shard = folder.metadata("shard")
    assert isinstance(shard, dict)
    return shard
