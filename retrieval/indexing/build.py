"""Building an index: every radiograph of a collection read, encoded and stored, then the decision rules learned."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Set
from contextlib import closing
from dataclasses import asdict, dataclass
from dataclasses import replace as replaced
from pathlib import Path

from index.builder import IndexBuilder
from retrieval.answer import plain
from retrieval.datasets.collection import Collection
from retrieval.decision.rules import DEFAULTS, Rules, learn_rules
from retrieval.encoding.batches import encoded_batches
from retrieval.encoding.bundle import BUNDLED, Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.encoding.probes import Appearance
from retrieval.errors import BundleError, CollectionError

__all__ = [
    "BuildReport",
    "about",
    "build_index",
    "bundle_rules",
    "encode_remaining",
    "fingerprint",
    "finish_build",
    "told",
]

SCHEMA = "mura-search/build/1"
Pairs = tuple[tuple[str, str], ...]  # a case, and what is said of it


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did: counts of what is indexed, what could not be read and why, and the rules it learned.

    `warnings` are those of radiographs that were read nevertheless. `resumed` of the cases were there already, from a
    build that had been interrupted; it gave their warnings.
    """

    path: str
    cases: int
    studies: int
    patients: int
    quarantined: tuple[tuple[str, str], ...]
    rules: Rules
    warnings: tuple[tuple[str, str], ...] = ()
    resumed: int = 0
    synthetic: bool = False
    seconds: float = 0.0

    def to_dict(self) -> dict[str, object]:
        return {"schema": SCHEMA, **plain(self), **told(self.quarantined, self.warnings)}


def told(quarantined: Pairs, warnings: Pairs) -> dict[str, object]:
    """What was noticed of cases, as JSON has it."""
    return {
        "quarantined": [{"case": case, "reason": reason} for case, reason in quarantined],
        "warnings": [{"case": case, "warning": warning} for case, warning in warnings],
    }


def build_index(
    collection: Collection,
    place: Path,
    *,
    model: Path | None = None,
    replace: bool = False,
    demand: Mapping[str, float] | None = None,
    store: Mapping[str, str] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Build an index of a collection at `place`, with the model bundle in `model` (the bundled one by default).

    `demand` says what the search has to reach, in the terms of `vectors.base.Demand`; `store` where the vectors are if
    not in the index: {"kind": "milvus", "uri": ..., and what else `MilvusSettings` takes, without a token}.
    `progress` is called with (radiographs done, all). An unreadable radiograph is set aside and reported. An
    interrupted build goes on where it was when the same one is asked for again; nothing is at `place` before it is
    finished. Raises IndexBusy where an index is there and `replace` is false, BundleError, CollectionError where
    nothing can be read.
    """
    started = time.perf_counter()
    encoder = Encoder.open(BUNDLED if model is None else model)
    bundle = encoder.bundle
    fallback, seen = bundle_rules(bundle), bundle.seen()  # a bundle that is damaged is noticed before the long part
    with IndexBuilder.start(
        place,
        model=bundle.folder,
        dimension=bundle.dimension,
        fingerprint=fingerprint(collection, bundle),
        replace=replace,
    ) as build:
        resumed = len(build.done())
        warnings = encode_remaining(build, collection, encoder, workers, progress)
        settings = about(collection) | {"demand": dict(demand or {}), "store": dict(store or {})}
        report = finish_build(build, settings, fallback, seen, encoder.appearance)
    return replaced(
        report,
        path=str(place),
        warnings=tuple(warnings),
        resumed=resumed,
        synthetic=collection.synthetic,
        seconds=time.perf_counter() - started,
    )


def finish_build(
    build: IndexBuilder,
    settings: Mapping[str, object],
    fallback: Rules,
    seen: Set[int],
    appearance: Appearance | None,
) -> BuildReport:
    """Learn the decision rules of what was added, and move the index to its place.

    settings: what else is stored with it. fallback: the rules where there is too little to learn from. seen: the
    radiographs that the model was trained on. appearance: the model's. Raises CollectionError where nothing was added.
    """
    cases, quarantined = build.cases(), build.quarantined()
    if not cases:
        first = next(iter(quarantined.values()), "there is none")
        raise CollectionError(f"none of the {len(quarantined)} radiographs could be read; the first: {first}")
    rules = learn_rules(
        cases, build.embeddings(), build.logits(), trained_on=seen, fallback=fallback, appearance=appearance
    )
    for key, value in {**settings, "rules": rules.to_dict()}.items():
        build.set_metadata(key, value)
    build.finish()
    return BuildReport(
        path=str(build.place),
        cases=len(cases),
        studies=len({case.study for case in cases}),
        patients=len({case.patient for case in cases}),
        quarantined=tuple(quarantined.items()),
        rules=rules,
    )


def about(collection: Collection) -> dict[str, object]:
    """What an index says of the collection that it was built of."""
    described = {
        "root": "" if collection.site else str(collection.root),
        "layout": collection.layout,
        "notes": list(collection.notes),
        "synthetic": collection.synthetic,
    }
    return {"collection": described | ({"site": collection.site} if collection.site else {})}


def encode_remaining(
    build: IndexBuilder,
    collection: Collection,
    encoder: Encoder,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[str, str]]:
    """Add every case that is not there yet; gives (case, warning) of those that were read with one."""
    cases, done = collection.cases, build.done()
    # What was unreadable before is tried again: the disk may be back.
    remaining = [case for case in cases if case.case not in done]
    met = len(done)
    warnings: list[tuple[str, str]] = []
    try:
        with closing(encoded_batches(remaining, encoder, workers=workers)) as batches:
            for batch in batches:
                if batch.cases:
                    build.add([*map(collection.stored, batch.cases)], batch.embeddings, batch.thumbnails, batch.logits)
                build.quarantine([(collection.stored(case), reason) for case, reason in batch.unreadable])
                warnings += [(case.case, warning) for case, warning in batch.warnings]
                met += len(batch.cases) + len(batch.unreadable)
                if progress:
                    progress(met, len(cases))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{met} of {len(cases)} radiographs are done; the same command goes on from there"
        ) from None
    return warnings


def fingerprint(collection: Collection, bundle: Bundle) -> str:
    """What must be the same for an interrupted build to go on: the model, and every record of the case table."""
    records = [asdict(collection.stored(case)) for case in collection.cases]
    return hashlib.sha256(json.dumps([bundle.sha256, records]).encode()).hexdigest()


def bundle_rules(bundle: Bundle) -> Rules:
    if bundle.rules is None:
        return DEFAULTS
    try:
        # Thresholds differ between collections, so an answer says where its own come from.
        return Rules.from_dict({**bundle.rules, "source": f"the model's own, {bundle.rules['source']}"})
    except (TypeError, ValueError, KeyError) as error:
        raise BundleError(
            f"the model at {bundle.folder} has decision rules of another version; train it again"
        ) from error
