"""Build an index: read, encode and store every radiograph of a collection, then learn the decision rules."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from dataclasses import replace as replaced
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from index.builder import IndexBuilder
from index.case import Case
from retrieval.datasets.collection import Collection
from retrieval.decision.fit_rules import learn_rules
from retrieval.decision.local_classifier import ClassifierTrial, try_local_classifier
from retrieval.decision.measure_limits import KEY, stored_limits, stored_measures
from retrieval.decision.reference import NOTHING_KNOWN, Reference, index_reference
from retrieval.decision.rules import DEFAULTS, Rules
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.batches import ENCODING, PREVIEW_SIDE, Batch, EncodingOptions, Progress, encode_all
from retrieval.encoding.bundle import BUNDLED, Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.errors import BundleError, CollectionError
from retrieval.formats.json_format import plain
from retrieval.images.radiograph import file_digest
from retrieval.indexing.borderline import with_borderline
from retrieval.notices import Code, Notice
from retrieval.wording import anonymous_sentence, warnings_of_files

__all__ = [
    "BUILD",
    "BuildOptions",
    "BuildReport",
    "Report",
    "build_index",
    "bundle_rules",
    "collection_metadata",
    "encode_remaining",
    "fingerprint",
    "finish_build",
    "resumed_cases",
    "with_classifier",
]

Complete = Callable[[Rules, LabelledStudies], Rules]
"""Adds to the rules what needs the radiographs of the studies themselves, as `with_borderline` does."""

_TEXTS = {
    "quarantined": "reason",
    "refused": "reason",
    "known": "indexed",
    "differing": "difference",
    "warnings": "warning",
}


class Report:
    """A report of a build or an addition, whose lists of (case, text) become objects in JSON."""

    __slots__ = ()
    schema: ClassVar[str]
    notices: tuple[Notice, ...]

    @property
    def warnings(self) -> tuple[tuple[str, str], ...]:
        """The notices about radiographs, as (case, sentence)."""
        return warnings_of_files(self.notices)

    def to_dict(self) -> dict[str, object]:
        """The JSON object of the schema."""
        lists = {name: getattr(self, name) for name in _TEXTS if hasattr(self, name)}
        pairs = {name: [{"case": case, _TEXTS[name]: text} for case, text in lists[name]] for name in lists}
        return {"schema": self.schema, **plain(self), **pairs}


@dataclass(frozen=True, slots=True)
class BuildReport(Report):
    """The result of a build: counts, the decision rules, and the quarantined radiographs with the reason.

    `trial` compares the model's classifier with one of the index's own studies, None where too few could teach.
    `notices` are about the collection and about indexed radiographs. An interrupted build added `resumed` cases, and
    gave the notices about them.
    """

    schema: ClassVar[str] = "mura-search/build/1"
    path: str
    cases: int
    studies: int
    patients: int
    quarantined: tuple[tuple[str, str], ...]
    rules: Rules
    trial: ClassifierTrial | None = None
    notices: tuple[Notice, ...] = ()
    resumed: int = 0
    synthetic: bool = False
    seconds: float = 0.0

    @classmethod
    def of(
        cls,
        path: Path,
        cases: Sequence[Case],
        rules: Rules,
        *,
        quarantined: tuple[tuple[str, str], ...] = (),
        **more: Any,
    ) -> Self:
        """The report of an index with these cases; `more` are other fields."""
        studies, patients = {case.study for case in cases}, {case.patient for case in cases}
        return cls(str(path), len(cases), len(studies), len(patients), quarantined, rules, **more)


@dataclass(frozen=True, slots=True)
class BuildOptions(EncodingOptions):
    """How an index is built: how its radiographs are encoded, how fast it is searched, and where its vectors are.

    Blank radiographs are quarantined unless `keep_blank`; the index keeps previews, for comparisons. `demand`: the
    recall and speed that the search must reach, as fields of `vectors.base.Demand`. `store`: where the vectors are kept
    if not in the index: {"kind": "milvus", "uri": ...} and other fields of `MilvusSettings`, without a token.
    """

    keep_blank: bool = False
    preview: int = PREVIEW_SIDE
    demand: Mapping[str, float] = field(default_factory=dict)
    store: Mapping[str, str] = field(default_factory=dict)


BUILD = BuildOptions()


def build_index(
    collection: Collection,
    path: Path,
    options: BuildOptions = BUILD,
    *,
    model: Path | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> BuildReport:
    """Build an index of a collection at `path`, with the model bundle in `model` (by default the bundled model).

    `progress` is called with (radiographs done, all). An unreadable radiograph is quarantined and reported. Until the
    build is finished, `path` holds no index, or the former one. The same call continues an interrupted build, and
    encodes those radiographs again whose files have changed since.

    Raises IndexBusy if `path` holds an index and `replace` is false, BundleError, and CollectionError if no radiograph
    can be read.
    """
    started = time.perf_counter()
    encoder = Encoder.open(BUNDLED if model is None else model)
    bundle = encoder.bundle
    bundle_rules(bundle), bundle.seen()  # a damaged bundle raises before the long part
    with IndexBuilder.start(
        path,
        model=bundle.folder,
        dimension=bundle.dimension,
        fingerprint=fingerprint(collection, bundle, options),
        replace=replace,
    ) as build:
        resumed = resumed_cases(build, collection)
        notices = encode_remaining(build, collection, encoder, options, progress)
        settings = collection_metadata(collection) | {"demand": dict(options.demand), "store": dict(options.store)}
        settings["previews"] = options.preview
        paths = {case.case: case.path for case in collection.cases}
        complete = partial(with_borderline, encoder=encoder, paths=paths, workers=options.workers)
        report = finish_build(build, path, settings, bundle, complete)
    return replaced(
        report,
        notices=(*collection.notices, *report.notices, *notices),
        resumed=resumed,
        synthetic=collection.synthetic,
        seconds=time.perf_counter() - started,
    )


def finish_build(
    build: IndexBuilder,
    path: Path,
    settings: Mapping[str, object],
    bundle: Bundle,
    complete: Complete | None = None,
) -> BuildReport:
    """Learn the decision rules from the added cases, and move the index to `path`.

    settings: further metadata of the index. bundle: its own rules are used if there are too few cases to learn from.
    Raises CollectionError if no case was added.
    """
    cases, quarantined = build.cases(), build.quarantined()
    if not cases:
        first = next(iter(quarantined.values()), "the collection is empty")
        raise CollectionError(f"none of the {len(quarantined)} radiographs could be read; the first: {first}")
    learned = learn_decisions(build, bundle, complete)
    rules = learned.rules
    names = sorted({case.label_name for case in cases})
    reference = None if learned.reference is None else learned.reference.to_dict()
    kept = {"rules": rules.to_dict(), "reference": reference, KEY: stored_limits(build).to_dict()}
    for key, value in {**settings, **kept}.items():
        build.set_metadata(key, value)
    build.finish()
    return BuildReport.of(
        path,
        cases,
        rules,
        quarantined=tuple(quarantined.items()),
        notices=tuple(Notice(Code.ONE_LABEL, detail={"label": name}) for name in names if len(names) == 1),
        trial=learned.trial,
    )


@dataclass(frozen=True, slots=True)
class Learned:
    """What an index learned from its own studies. `trial` and `reference` are None where too few could teach."""

    rules: Rules
    trial: ClassifierTrial | None
    reference: Reference | None


def learn_decisions(build: IndexBuilder, bundle: Bundle, complete: Complete | None = None) -> Learned:
    """Learn the rules, try a classifier of the index's own studies beside the model's, and note their scores.

    Only studies on whose patients the model was not trained teach.
    """
    cases = build.cases()
    trained_on = bundle.seen_in(cases, (picture for batch in build.batches() for picture in batch.thumbnails))
    studies = LabelledStudies(cases, build.embeddings(), build.logits(), trained_on)
    rules = learn_rules(studies, fallback=bundle_rules(bundle), appearance=bundle.appearance())
    trial = try_local_classifier(studies.teaching(studies.teachers()))
    rules = with_classifier(rules, trial)
    if complete:
        rules = complete(rules, studies)
    reference = index_reference(studies, rules)
    if reference and trial and trial.classifier:
        reference = reference.with_classifier(np.array(trial.probabilities), rules.classifier_threshold)
    known = (reference or NOTHING_KNOWN).with_measures(*stored_measures(build))
    return Learned(rules, trial, known if known.scores else None)


def with_classifier(rules: Rules, trial: ClassifierTrial | None) -> Rules:
    """The rules with the local classifier of a trial, if it was kept."""
    if trial is None or trial.classifier is None:
        return rules
    return replaced(
        rules,
        local=trial.classifier,
        slope=trial.slope,
        intercept=trial.intercept,
        classifier_threshold=trial.threshold,
        source=f"{rules.source}; with a local classifier",
    )


def collection_metadata(collection: Collection) -> dict[str, object]:
    """The metadata in an index about the collection that it was built from. Its notes name no file and no patient."""
    described: dict[str, object] = {
        "root": "" if collection.site else str(collection.root),
        "layout": collection.layout,
        "notes": [*map(anonymous_sentence, collection.notices)],
        "synthetic": collection.synthetic,
    }
    return {"collection": described | ({"site": collection.site} if collection.site else {})}


def resumed_cases(build: IndexBuilder, collection: Collection) -> int:
    """The number of cases that an interrupted build added, without those whose files have changed: they are removed."""
    paths = {case.case: Path(case.path) for case in collection.cases}
    done = build.cases()
    changed = []
    for case in done:
        with suppress(OSError):  # a file that is missing now was read then
            if file_digest(paths[case.case]) != case.digest:
                changed.append(case.case)
    if changed:
        build.forget(changed)
    return len(done) - len(changed)


def encode_remaining(
    build: IndexBuilder, collection: Collection, encoder: Encoder, options: EncodingOptions, progress: Progress | None
) -> list[Notice]:
    """Add every case that the build does not have yet; gives the notices about them."""

    def store(batch: Batch) -> bool:
        if batch.cases:
            stored = [*map(collection.stored, batch.cases)]
            build.add(stored, batch.embeddings, batch.thumbnails, batch.logits, batch.extras)
        build.quarantine([(collection.stored(case), reason) for case, reason in batch.unreadable])
        return True

    done = build.done()
    remaining = [case for case in collection.cases if case.case not in done]  # unreadable files are tried again
    report = encode_all(remaining, encoder, store, options, done=len(done), progress=progress)
    return report.notices


def fingerprint(collection: Collection, bundle: Bundle, options: EncodingOptions = ENCODING) -> str:
    """A hash of the model, of every record, and of the options: of whatever makes an index.

    An interrupted build continues only if it is the same.
    """
    records = [asdict(collection.stored(case)) for case in collection.cases]
    made_of = [bundle.sha256, options.keep_blank, options.preview, records]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()


def bundle_rules(bundle: Bundle) -> Rules:
    """The decision rules in a bundle, or the defaults. Raises BundleError if another version wrote them."""
    if bundle.rules is None:
        return DEFAULTS
    try:
        # Thresholds differ between collections, so an answer names the source of its own.
        return Rules.from_dict({**bundle.rules, "source": f"the model's own, {bundle.rules['source']}"})
    except (TypeError, ValueError, KeyError) as error:
        raise BundleError(
            f"the model at {bundle.folder} has decision rules of another version; train it again"
        ) from error
