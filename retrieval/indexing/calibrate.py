"""Calibrate an index on labelled studies of the hospital that uses it, and undo that.

Thresholds, calibration, vote and familiarity limits are learned anew from the local studies, each of which meets the
index as a new patient does: it holds none of their patients. A local classifier takes the place of the model's where it
beats it beyond chance (`decision.local_classifier`). Cases, embeddings and model stay as they are.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from index.builder import IndexBuilder
from index.case import LABEL_NAMES, Case
from index.errors import IndexFailure
from index.reader import IndexReader
from index.writer import IndexWriter
from retrieval.datasets.cache_folder import cache_folder
from retrieval.datasets.collection import Collection
from retrieval.decision.calibration import fit_platt, sigmoid
from retrieval.decision.familiarity import familiarity
from retrieval.decision.fit_rules import NEIGHBOURS, TEMPERATURES, Lesson, fit_rules, study_votes
from retrieval.decision.index_rules import RULES_SINCE, stored_rules
from retrieval.decision.leave_patient_out import Ranked, ranked_queries
from retrieval.decision.local_classifier import (
    ClassifierTrial,
    log_losses,
    paired_gain,
    try_local_classifier,
)
from retrieval.decision.measure_limits import KEY, MeasureLimits, learn_measure_limits, stored_measures
from retrieval.decision.reference import Reference, reference_of, reference_scores
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.batches import EncodingOptions, Progress, case_digest
from retrieval.encoding.bundle import Bundle, digest_number
from retrieval.encoding.encoder import Encoder
from retrieval.encoding.probes import Appearance
from retrieval.errors import CollectionError
from retrieval.formats.json_format import plain
from retrieval.indexing.build import encode_remaining, fingerprint, resumed_cases, with_classifier
from retrieval.indexing.update import require_same_site
from retrieval.notices import Notice
from retrieval.query_checks.own_patients import stored_prefixes
from retrieval.wording import listed

__all__ = ["CalibrationReport", "calibrate_index", "calibrated", "undo_calibration"]

FEWEST_PATIENTS = 20
_KEPT = 5  # former rules that `undo_calibration` can bring back, the newest first


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration learned: the rules, the trial of a local classifier, if any, and the scores that studies have.

    `unfamiliar` of the `studies` were unlike the index by the former rules.
    """

    rules: Rules
    trial: ClassifierTrial | None
    reference: Reference
    studies: int
    unfamiliar: int


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """The result of a calibration. `trial` is None where too few studies of either label could judge a classifier.

    `former` and `rules` are the rules before and after. `quarantined` has (case, reason) of radiographs that were not
    used. `seconds` is all time, `learning` that without encoding.
    """

    schema: ClassVar[str] = "mura-search/calibration/1"
    path: str
    studies: int
    abnormal: int
    patients: int
    unfamiliar: int
    former: Rules
    rules: Rules
    trial: ClassifierTrial | None
    quarantined: tuple[tuple[str, str], ...]
    notices: tuple[Notice, ...]
    resumed: int
    learning: float
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """The JSON object "mura-search/calibration/1"."""
        quarantined = [{"case": case, "reason": reason} for case, reason in self.quarantined]
        return {"schema": self.schema, **plain(self), "quarantined": quarantined}


def calibrate_index(
    collection: Collection,
    path: Path,
    *,
    keep_blank: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> CalibrationReport:
    """Learn the decision rules of the index at `path` anew from a collection of labelled local studies.

    Radiographs are encoded outside the index; the same call continues an interrupted one. The rules are stored in one
    transaction with an entry in the history. `progress` gets (radiographs done, all).

    Raises IndexFailure and BundleError, and CollectionError, changing nothing, where the studies have one label, are of
    fewer than 20 patients, or of patients or radiographs that the index holds or that the model was trained on, where
    most of them are unlike the index, and where it names its patients in another way.
    """
    started = time.perf_counter()
    with IndexReader.open(path) as reader:
        former = stored_rules(reader)
        require_same_site(reader.metadata("collection"), collection)
        _require_new(collection.cases, reader)
        _require_enough(collection.cases)
        encoder = Encoder.open(reader.model)
    options = EncodingOptions(keep_blank, workers=workers)
    with _cache(collection, path, encoder.bundle, options) as build:
        resumed = resumed_cases(build, collection)
        notices = encode_remaining(build, collection, encoder, options, progress)
        local = LabelledStudies(build.cases(), build.embeddings(), build.logits())
        pictures = [picture for batch in build.batches() for picture in batch.thumbnails]
        measures = stored_measures(build)
        quarantined = tuple(build.quarantined().items())
    learning = time.perf_counter()
    _require_enough(local.cases)
    _require_untrained(local.cases, encoder.bundle.seen_in(local.cases, pictures))
    with IndexWriter.open(path) as writer, IndexReader.open(path) as reader:  # no other process changes it now
        former = stored_rules(reader)
        _require_new(local.cases, reader)
        learned = calibrated(reader.cases(), reader.embeddings(), local, former, encoder.appearance)
        _require_familiar(learned)
        detail = {"studies": learned.studies, "classifier": learned.rules.classifier}
        reference = learned.reference.with_measures(*measures)
        limits = replace(learn_measure_limits(*measures), local=True)
        writer.set_values("calibrate", detail, _values(reader, learned.rules, reference, limits))
    return CalibrationReport(
        path=str(path),
        studies=learned.studies,
        abnormal=int(local.everyone().labels.sum()),
        patients=len({case.patient for case in local.cases}),
        unfamiliar=learned.unfamiliar,
        former=former,
        rules=learned.rules,
        trial=learned.trial,
        quarantined=quarantined,
        notices=(*collection.notices, *notices),
        resumed=resumed,
        learning=time.perf_counter() - learning,
        seconds=time.perf_counter() - started,
    )


def calibrated(
    cases: Sequence[Case],
    embeddings: NDArray[np.float32],
    local: LabelledStudies,
    former: Rules,
    appearance: Appearance | None = None,
) -> Calibration:
    """Learn rules from local studies that meet an index with these cases N and embeddings (N, D).

    former: the rules that are in use, whose parts stay the familiar ones. The same input gives the same rules.
    """
    teachers = local.everyone()
    teaching = local.teaching(teachers)
    study_of, labels, patients = teachers.study_of, teachers.labels, teaching.patients
    ranked = ranked_queries(cases, embeddings, local.embeddings, max(*NEIGHBOURS, former.k))
    rules = fit_rules(
        Lesson(local, teachers, ranked),
        fallback=replace(former, local=None),
        appearance=appearance,
        parts=former.parts,
        choose_vote=partial(_vote, former, patients),
        source=f"calibrated on {len(labels)} local studies ({labels.sum()} abnormal) of {len(set(patients))} patients",
    )
    trial = try_local_classifier(teaching)
    rules = with_classifier(rules, trial)
    scores = reference_scores(ranked, local.embeddings, local.logits, study_of, rules)
    if trial and trial.classifier:
        scores["classifier"] = np.array(trial.probabilities)  # of studies that did not teach it
    unfamiliar = _unfamiliar(local, ranked, study_of, former, appearance)
    return Calibration(rules, trial, reference_of(scores, rules), len(labels), unfamiliar)


def _vote(
    former: Rules,
    patients: Sequence[str],
    ranked: Ranked,
    study_of: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> tuple[int, float, NDArray[np.float64]]:
    """k, temperature and votes (S,): the former ones, unless others separate the labels better beyond chance.

    All are compared after Platt's calibration, since the votes of another hospital lie higher or lower as a whole. The
    criterion is that of `local_classifier`: an interval of the gain in log loss, over resampled patients, above 0.
    """

    def losses(k: int, temperature: float) -> NDArray[np.float64]:
        votes = study_votes(ranked, study_of, k, temperature)
        slope, intercept = fit_platt(votes, labels, np.ones(len(labels)))
        return log_losses(labels, sigmoid(slope * votes + intercept))

    before = losses(former.k, former.temperature)
    tried = {(k, temperature): losses(k, temperature) for k in NEIGHBOURS for temperature in TEMPERATURES}
    best = min(tried, key=lambda choice: float(tried[choice].mean()))
    k, temperature = best if paired_gain(before - tried[best], patients)[1] > 0 else (former.k, former.temperature)
    return k, temperature, study_votes(ranked, study_of, k, temperature)


def undo_calibration(path: Path) -> Rules:
    """Bring the rules back that were in use before the last calibration; gives them.

    Raises IndexFailure where the index was not calibrated, or the former rules are no longer kept.
    """
    with IndexWriter.open(path) as writer, IndexReader.open(path) as reader:
        former = reader.metadata("former")
        if not isinstance(former, list) or not former:
            raise IndexFailure(
                f"{path} keeps no rules from before a calibration; calibrate it again, or build it again"
            )
        last = former[0]
        rules = Rules.from_dict(last["rules"])
        values = {**last, "former": former[1:] or None, RULES_SINCE: reader.generation + 1}
        writer.set_values("undo-calibrate", {"classifier": rules.classifier}, values)
    return rules


def _values(reader: IndexReader, rules: Rules, reference: Reference, limits: MeasureLimits) -> Mapping[str, object]:
    """The metadata of the calibrated index."""
    kept = reader.metadata("former")
    before = {name: reader.metadata(name) for name in ("rules", "reference", KEY)}
    return {
        "rules": rules.to_dict(),
        "reference": reference.to_dict(),
        KEY: limits.to_dict(),
        "former": [before, *(kept if isinstance(kept, list) else [])][:_KEPT],
        RULES_SINCE: reader.generation + 1,
    }


def _unfamiliar(
    local: LabelledStudies, ranked: Ranked, study_of: NDArray[np.int64], rules: Rules, appearance: Appearance | None
) -> int:
    """How many of the local studies are unlike the index by the rules."""
    nearest = ranked.similarities[:, 0].astype(np.float64)
    views = [np.flatnonzero(study_of == study) for study in range(int(study_of.max()) + 1)]
    ratings = (familiarity(local.embeddings[rows], nearest[rows].tolist(), rules, appearance) for rows in views)
    return sum(rated.familiar is False for rated in ratings)


@contextmanager
def _cache(collection: Collection, path: Path, bundle: Bundle, options: EncodingOptions) -> Iterator[IndexBuilder]:
    """A partial index for the encoded radiographs, readable by its owner alone; an interrupted block leaves it."""
    name = hashlib.sha256(f"{collection.root.resolve()} {path.resolve()}".encode(errors="surrogateescape"))
    folder = cache_folder() / "calibrate" / name.hexdigest()[:16]
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with IndexBuilder.start(
        folder,
        model=bundle.folder,
        dimension=bundle.dimension,
        fingerprint=fingerprint(collection, bundle, options),
    ) as build:
        yield build
        with suppress(IndexFailure, OSError):  # a cache that cannot be removed only takes room
            build.discard()


def _require_enough(cases: Sequence[Case]) -> None:
    """Raise CollectionError for one label alone, and for fewer than 20 patients."""
    if not cases:
        raise CollectionError("none of the local radiographs can be read; see what mura-search audit says of them")
    labels = sorted({case.label for case in cases})
    if len(labels) < 2:
        raise CollectionError(
            f"all local studies are {LABEL_NAMES[labels[0]]}: thresholds need normal and abnormal ones; "
            "nothing is changed"
        )
    patients = len({case.patient for case in cases})
    if patients < FEWEST_PATIENTS:
        raise CollectionError(
            f"the local studies are of {patients} patients, and calibration needs at least {FEWEST_PATIENTS}; "
            "add studies of other patients; nothing is changed"
        )


def _require_new(cases: Sequence[Case], index: IndexReader) -> None:
    """Raise CollectionError where the index holds a patient or a radiograph of the cases."""
    prefixes = ["", *stored_prefixes(index)]
    patients = sorted({case.patient for case in cases})
    known = index.find("patient", {prefix + patient for prefix in prefixes for patient in patients})
    if known:
        names = sorted({case.patient for case in known})
        raise CollectionError(
            f"the index holds {len(names)} of the {len(patients)} local patients ({listed(names)}): they would vote on "
            "themselves; leave them out; nothing is changed"
        )
    digests = {case.digest or case_digest(case) for case in cases} - {""}
    if copies := index.find("digest", digests):
        raise CollectionError(
            f"the index holds {len(copies)} of the local radiographs under other patients "
            f"({listed([case.case for case in copies])}); leave them out; nothing is changed"
        )


def _require_untrained(cases: Sequence[Case], seen: frozenset[int]) -> None:
    """Raise CollectionError where the model was trained on radiographs of the cases."""
    trained = [case.case for case in cases if case.digest and digest_number(case.digest) in seen]
    if trained:
        raise CollectionError(
            f"the model was trained on {len(trained)} of the {len(cases)} local radiographs ({listed(trained)}): their "
            "probabilities say nothing about new ones; leave them out; nothing is changed"
        )


def _require_familiar(learned: Calibration) -> None:
    """Raise CollectionError where most of the local studies are unlike the index."""
    if 2 * learned.unfamiliar > learned.studies:
        raise CollectionError(
            f"{learned.unfamiliar} of the {learned.studies} local studies are unlike the index: other body parts, or "
            "nothing indexed is like them; no threshold helps there: build an index of studies like them; nothing is "
            "changed"
        )
