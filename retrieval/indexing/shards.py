"""Build an index in pieces (shards) on several machines, and join them. The result is the same as that of one build.

Shard i of n is the i-th of n consecutive parts of the collection. It is an index folder with checksums, but has no
decision rules: these are learned on the whole collection.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import partial
from pathlib import Path
from typing import ClassVar

from index.builder import IndexBuilder
from index.errors import IndexFailure
from index.reader import IndexReader
from retrieval.datasets.collection import Collection
from retrieval.encoding.batches import EncodingOptions, Progress
from retrieval.encoding.bundle import BUNDLED, Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.indexing.borderline import with_borderline
from retrieval.indexing.build import (
    BUILD,
    BuildReport,
    Report,
    collection_metadata,
    encode_remaining,
    fingerprint,
    finish_build,
    resumed_cases,
)
from retrieval.notices import Notice

__all__ = ["Shard", "ShardReport", "build_shard", "is_shard", "join_shards"]

_NO_SEARCH = {"latency": 1e9}  # a shard is not searched, so nothing is approximated


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's `number`, 1 to `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard that "3/8" names: the third of eight. Raises ValueError."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ValueError(f"a shard is written like 3/8, the third of eight, not {text!r}")
        return cls(int(number), int(count))

    def select(self, collection: Collection) -> Collection:
        """The radiographs of this shard."""
        N = len(collection.cases)
        first, last = (N * n // self.count for n in (self.number - 1, self.number))
        return replaced(collection, cases=collection.cases[first:last])


@dataclass(frozen=True, slots=True)
class ShardReport(Report):
    """The result of building one shard; the fields are those of `BuildReport`."""

    schema: ClassVar[str] = "mura-search/shard/1"
    path: str
    shard: str
    cases: int
    quarantined: tuple[tuple[str, str], ...]
    notices: tuple[Notice, ...]
    resumed: int
    seconds: float


def build_shard(
    collection: Collection,
    shard: Shard,
    path: Path,
    options: EncodingOptions = BUILD,
    *,
    model: Path | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> ShardReport:
    """Encode one shard of `collection`, which is the whole collection; otherwise like `build_index`."""
    started = time.perf_counter()
    encoder = Encoder.open(BUNDLED if model is None else model)
    whole = fingerprint(collection, encoder.bundle, options)
    piece = shard.select(collection)
    settings = {
        "shard": {"number": shard.number, "count": shard.count, "whole": whole},
        "demand": _NO_SEARCH,
        "previews": options.preview,
        **collection_metadata(collection),
    }
    with IndexBuilder.start(
        path,
        model=encoder.bundle.folder,
        dimension=encoder.bundle.dimension,
        fingerprint=f"{whole} {shard.number}/{shard.count}",
        replace=replace,
    ) as build:
        resumed = resumed_cases(build, piece)
        notices = encode_remaining(build, piece, encoder, options, progress)
        count, quarantined = len(build.done()), build.quarantined()
        for key, value in settings.items():
            build.set_metadata(key, value)
        build.finish()
    return ShardReport(
        path=str(path),
        shard=f"{shard.number}/{shard.count}",
        cases=count,
        quarantined=tuple(quarantined.items()),
        notices=(*collection.notices, *notices),
        resumed=resumed,
        seconds=time.perf_counter() - started,
    )


def is_shard(path: Path) -> bool:
    """Whether the index at `path` is a shard. Raises IndexFailure if there is no index."""
    with IndexReader.open(path) as index:
        return index.metadata("shard") is not None


def join_shards(
    paths: Sequence[Path],
    path: Path,
    *,
    replace: bool = False,
    demand: Mapping[str, float] | None = None,
    store: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Join all shards of a collection, named in any order, into one index at `path`. The shards stay as they are.

    The result is the same as that of one build. The same call continues an interrupted one. Raises IndexFailure if a
    shard is missing, damaged, named twice, or of another collection or model.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        shards = _in_order([stack.enter_context(IndexReader.open(shard)) for shard in paths])
        for shard in shards:
            shard.verify()
        bundle = Bundle.open(shards[0].model)
        total = sum(shard.size()[0] for shard in shards)
        with IndexBuilder.start(
            path,
            model=bundle.folder,
            dimension=bundle.dimension,
            fingerprint=f"joined {_shard(shards[0])['whole']}",
            replace=replace,
        ) as build:
            known = build.done()
            resumed = done = len(known)
            for shard in shards:
                for batch in shard.batches():
                    build.add_missing(batch, known)
                    done += sum(case.case not in known for case in batch.cases)
                    if progress:
                        progress(done, total)
                build.quarantine(shard.set_aside())
            collection = shards[0].metadata("collection")
            settings = {"collection": collection, "demand": dict(demand or {}), "store": dict(store or {})}
            complete = partial(with_borderline, encoder=Encoder.open(bundle.folder))
            report = finish_build(build, path, settings, bundle, complete)
    synthetic = isinstance(collection, dict) and bool(collection.get("synthetic"))
    seconds = time.perf_counter() - started
    return replaced(report, resumed=resumed, synthetic=synthetic, seconds=seconds)


def _in_order(shards: Sequence[IndexReader]) -> list[IndexReader]:
    """The shards by number. Raises IndexFailure unless they are all shards of one collection, each named once."""
    first = _shard(shards[0])
    for shard in shards:
        if any(_shard(shard)[key] != first[key] for key in ("whole", "count")):
            raise IndexFailure(
                f"{shard.path} is a shard of another collection, model or number of shards than {shards[0].path}"
            )
    by_number = {int(str(_shard(shard)["number"])): shard for shard in shards}
    count = int(str(first["count"]))
    missing = [number for number in range(1, count + 1) if number not in by_number]
    if missing or len(shards) != count:
        fault = f"shard {missing[0]} of {count} is missing" if missing else "a shard is named twice"
        raise IndexFailure(f"{fault}; name every shard once")
    return [by_number[number] for number in sorted(by_number)]


def _shard(index: IndexReader) -> dict[str, object]:
    """The shard's number, count and fingerprint of the whole. Raises IndexFailure if the index is not a shard."""
    shard = index.metadata("shard")
    if not isinstance(shard, dict):
        raise IndexFailure(f"{index.path} is not a shard: it was built without --shard")
    return shard
