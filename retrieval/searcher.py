"""A query's way: read the views, encode them, find the nearest studies, let them vote, and answer."""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from index.errors import IndexDamaged, IndexFailure
from index.reader import Hit, IndexReader
from retrieval.answer import (
    Answer,
    ClassifierAnswer,
    Familiarity,
    IndexSource,
    ModelSource,
    Query,
    Seconds,
    SimilarCase,
    ViewAnswer,
    VoteAnswer,
)
from retrieval.decision.familiarity import familiarity
from retrieval.decision.rules import Rules
from retrieval.decision.vote import StudyVote, merged, study_vote
from retrieval.encoding.batches import usable
from retrieval.encoding.bundle import Bundle, digest_number
from retrieval.encoding.encoder import Encoded, Encoder
from retrieval.errors import RadiographError
from retrieval.explain.rendering import overlay, overlay_files, write_overlay
from retrieval.explain.smooth_grad_cam import explain_class
from retrieval.notices import Code, Notice
from retrieval.pseudonyms import KEY_VARIABLE, SiteKey, patient_names
from retrieval.query import Images, View, read_views

__all__ = ["Searcher", "StudyScores", "default_index"]

SHOWN = 5  # studies in an answer, where nobody says how many
_MANY = 20  # more views than a study has: probably a folder of many studies

Filter = Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class StudyScores:
    """What classifier and neighbours say of one study of V views.

    `classifier` (V) are calibrated probabilities; `nearest` (V) the similarity of each view's nearest study, None where
    the index has none to compare with; `neighbours` the nearest studies of all views, as `decision.vote.merged` gives;
    `familiarity` whether they are like what is indexed.
    """

    classifier: tuple[float, ...]
    vote: StudyVote
    nearest: tuple[float | None, ...]
    neighbours: tuple[Hit, ...]
    familiarity: Familiarity

    @property
    def probability(self) -> float:
        """The classifier's probability of the study: the mean over its views (MURA's protocol)."""
        return sum(self.classifier) / len(self.classifier)


def default_index() -> Path:
    """The index to use where none is named: MURA_SEARCH_INDEX, else `index` in the user's data folder."""
    if place := os.environ.get("MURA_SEARCH_INDEX"):
        return Path(place)
    from platformdirs import user_data_path

    return user_data_path("mura-search") / "index"


class Searcher:
    """An index and its model, ready to answer. A context manager; `close` frees the index.

    Each search is of the index as it is then: what another process added, removed or replaced is noticed.
    """

    def __init__(self, encoder: Encoder, index: IndexReader, rules: Rules, load_seconds: float = 0.0) -> None:
        self._load_seconds = load_seconds
        self._use(encoder, index, rules)

    def _use(self, encoder: Encoder, index: IndexReader, rules: Rules) -> None:
        self.encoder = encoder
        self.index = index
        self.rules = rules
        self._source: IndexSource | None = None  # of the index as it is open
        self._seen: frozenset[int] | None = None  # by the encoder

    @classmethod
    def open(cls, index: Path | str | None = None) -> Self:
        """Open an index folder with the model in it. Raises IndexFailure, BundleError, MissingExtra."""
        started = time.perf_counter()
        folder = IndexReader.open(default_index() if index is None else Path(index))
        try:
            encoder, rules = Encoder.open(folder.model), _stored_rules(folder)
        except BaseException:
            folder.close()
            raise
        return cls(encoder, folder, rules, time.perf_counter() - started)

    def close(self) -> None:
        self.index.close()

    def refresh(self) -> None:
        """Use the index as it is now, if it was changed or replaced since it was opened."""
        current = self.current()
        if current is not self:
            if current.index is not self.index:
                self.close()
            self._use(current.encoder, current.index, current.rules)

    def current(self) -> "Searcher":
        """The searcher of the index as it is now: this one, if nothing changed.

        The new searcher of a changed index shares its reader with this one; that of a replaced index has its own, and
        this one stays open. The model stays loaded where it is the same. Raises as `open` does.
        """
        if not self.index.replaced():
            return Searcher(self.encoder, self.index, self.rules) if self.index.refresh() else self
        index = IndexReader.open(self.index.path)
        try:
            same = Bundle.open(index.model).sha256 == self.encoder.bundle.sha256
            return Searcher(self.encoder if same else Encoder.open(index.model), index, _stored_rules(index))
        except BaseException:
            index.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def search(
        self,
        images: Images,
        *,
        k: int | None = None,
        patient: str | None = None,
        where: Filter | None = None,
        heatmap: Path | str | None = None,
    ) -> Answer:
        """Answer for one study.

        images: its views, as files, arrays ((H, W) grey or (H, W, 3) BGR, uint8) or one study folder. k: how many
        studies to show (default 5); the vote is always that of the frozen rules. where: allowed values of the fields of
        indexed cases, such as {"part": ["finger"]}; among labels it chooses what is shown, never who votes. heatmap:
        the PNG file to draw what raises the abnormality score into, over the radiograph; see
        `rendering.overlay_files` for several views.

        The query's own patient never is among the cases or the voters: `patient`, the patient of an indexed
        radiograph with the same bytes, MURA's patient folder in the file's path, and DICOM's Patient ID, as it stands
        and as this site's key hashes it. Raises RadiographError where no view can be read, SiteKeyError, ValueError for
        k below 1 or an unknown field, HeatmapError where that cannot be written.
        """
        return self.search_with_overlays(images, k=k, patient=patient, where=where, heatmap=heatmap)[0]

    def search_with_overlays(
        self,
        images: Images,
        *,
        k: int | None = None,
        patient: str | None = None,
        where: Filter | None = None,
        heatmap: Path | str | None = None,
        draw: bool = False,
    ) -> tuple[Answer, list[NDArray[np.uint8]]]:
        """Answer as `search` does, and give each view's heatmap over its radiograph, (H, W, 3) BGR.

        They are drawn where `draw` asks for them, or `heatmap` for their files; else the list is empty.
        """
        shown = SHOWN if k is None else k
        if shown < 1:
            raise ValueError(f"k is the number of studies to show, at least 1, not {k}")
        started = time.perf_counter()
        self.refresh()
        views, notices = read_views(images)
        files = [] if heatmap is None else overlay_files(Path(heatmap), len(views), images)
        maps = self.encoder.views([self.encoder.prepare(view.pixels) for view in views])
        encoded = self.encoder.pool(maps)
        spent = time.perf_counter() - started
        answer = self.answer(views, encoded, k=shown, patient=patient, where=where, notices=notices, encode=spent)
        if not (files or draw):
            return answer, []
        started = time.perf_counter()
        overlays = []
        for number, view in enumerate(views):
            own = [one_pass[number : number + 1] for one_pass in maps]
            overlays.append(overlay(view.pixels, explain_class(self.encoder, view.pixels, views=own)))
        for file, painted in zip(files, overlays, strict=False):
            write_overlay(file, painted)
        drawing = time.perf_counter() - started
        seconds = replace(answer.seconds, heatmap=drawing, total=answer.seconds.total + drawing)
        if files:
            drawn = (replace(view, heatmap=str(file)) for view, file in zip(answer.views, files, strict=True))
            answer = replace(answer, views=tuple(drawn))
        return replace(answer, seconds=seconds), overlays

    def answer(
        self,
        views: Sequence[View],
        encoded: Encoded,
        *,
        k: int = SHOWN,
        patient: str | None = None,
        where: Filter | None = None,
        notices: Sequence[Notice] = (),
        encode: float = 0.0,
    ) -> Answer:
        """Answer for views that were read and encoded already, one row of `encoded` each; `search` does all of it.

        The index is used as it was opened; `refresh` brings it up to date. notices: about reading the views. encode:
        the seconds that reading and encoding took.
        """
        if k < 1:
            raise ValueError(f"k is the number of studies to show, at least 1, not {k}")
        started = time.perf_counter()
        if not usable(encoded).all():
            raise RadiographError(f"{views[0].name}: the model makes no usable numbers of this study")
        excluded, known = self._own_patients(views, patient)
        scores = self.scores(encoded, shown=k, where=where, excluded=excluded)
        search = time.perf_counter() - started
        load, self._load_seconds = self._load_seconds, 0.0
        return self._answer(
            Query(tuple(view.name for view in views), len(views), tuple(sorted(excluded))),
            scores,
            k,
            [*notices, *known, *self._notices(views, scores, where)],
            Seconds(load=load, encode=encode, search=search, total=load + encode + search),
        )

    def scores(
        self, encoded: Encoded, *, shown: int = 0, where: Filter | None = None, excluded: Collection[str] = ()
    ) -> StudyScores:
        """The scores of one study from its encoded views; `neighbours` are at least the `shown` nearest studies."""
        patients = [excluded] * len(encoded.logits)
        # Were only one label allowed, every vote would be for it.
        voters = {field: values for field, values in (where or {}).items() if field != "label"}
        hits = self.index.search(
            encoded.embeddings, max(self.rules.k, shown), where=voters or None, exclude_patients=patients
        )
        vote = study_vote([row[: self.rules.k] for row in hits], self.rules.temperature)
        nearest = tuple(row[0].similarity if row else None for row in hits)
        # Familiar is what is like anything indexed, whoever may vote.
        anything = self.index.search(encoded.embeddings, 1, exclude_patients=patients) if voters else hits
        familiar = tuple(row[0].similarity if row else None for row in anything)
        if where and "label" in where and shown:
            hits = self.index.search(encoded.embeddings, shown, where=where, exclude_patients=patients)
        probabilities = tuple(self.rules.probabilities(encoded.logits).tolist())
        like = familiarity(encoded.embeddings, familiar, self.rules, self.encoder.appearance)
        return StudyScores(probabilities, vote, nearest, tuple(merged(hits)), like)

    @property
    def model(self) -> ModelSource:
        bundle = self.encoder.bundle
        return ModelSource(bundle.name, bundle.sha256, bundle.synthetic)

    @property
    def source(self) -> IndexSource:
        if self._source is None:
            collection = self.index.metadata("collection")
            synthetic = isinstance(collection, dict) and bool(collection.get("synthetic"))
            self._source = IndexSource(str(self.index.path), *self.index.size(), synthetic)
        return self._source

    def _trained_on(self, view: View) -> bool:
        """Whether the model was trained on the file of a view."""
        if self._seen is None:
            self._seen = self.encoder.bundle.seen()
        return bool(view.digest) and digest_number(view.digest) in self._seen

    def _own_patients(self, views: Sequence[View], patient: str | None) -> tuple[set[str], list[Notice]]:
        """The indexed patients to leave out, and what there is to say about them."""
        asked = self._names_of(patient)
        named = {name for view in views for name in view.patients}.union(asked)
        own = {case.patient for case in self.index.find("patient", named)} if named else set()
        merged_ones = self._merged_patients(named, own)
        copies = [(view, case) for view in views for case in self.index.find_digest(view.digest)]
        notices = [
            Notice(Code.PATIENT_LEFT_OUT, detail={"patient": name, "prefix": prefix})
            for name, prefix in merged_ones.items()
        ]
        if patient and not (own | set(merged_ones)).intersection(asked):
            notices.append(Notice(Code.UNKNOWN_PATIENT, detail={"patient": patient}))
        if self.site and any(view.dicom for view in views) and not self._site_is_here():
            notices.append(Notice(Code.UNKNOWN_SITE_KEY, detail={"variable": KEY_VARIABLE}))
        notices += [
            Notice(Code.INDEXED_ITSELF, view.name, {"case": case.case, "patient": case.patient})
            for view, case in copies
        ]
        return own | set(merged_ones) | {case.patient for _, case in copies}, notices

    def _names_of(self, patient: str | None) -> tuple[str, ...]:
        """The names that the index may have for a patient who was named as the index or as the site does."""
        if not patient:
            return ()
        return patient_names(patient) if self.site else (patient,)

    def _merged_patients(self, names: Collection[str], own: Collection[str]) -> dict[str, str]:
        """Patients of merged indexes who may be one of the named, each with the prefix of its index."""
        return {
            case.patient: prefix
            for prefix in self.prefixes
            for case in self.index.find("patient", {prefix + name for name in names})
            if case.patient not in own
        }

    @property
    def site(self) -> str:
        """The name of the site key that hashed the index's identifiers, "" where none did."""
        collection = self.index.metadata("collection")
        return str(collection.get("site", "")) if isinstance(collection, dict) else ""

    @property
    def layout(self) -> str:
        """The layout of the collection that the index was built of, "" where it does not say."""
        collection = self.index.metadata("collection")
        return str(collection.get("layout", "")) if isinstance(collection, dict) else ""

    @property
    def prefixes(self) -> list[str]:
        """What stands before names of patients that came from other indexes."""
        prefixes = self.index.metadata("prefixes")
        return list(prefixes) if isinstance(prefixes, list) else []

    def _site_is_here(self) -> bool:
        key = SiteKey.find()
        return key is not None and key.name == self.site

    def _notices(self, views: Sequence[View], scores: StudyScores, where: Filter | None) -> list[Notice]:
        """What there is to say about the views and the vote."""
        notices = [Notice(Code.SYNTHETIC)] if self.source.synthetic else []
        notices += [Notice(Code.TRAINED_ON, view.name) for view in views if self._trained_on(view)]
        if len({view.patients for view in views if view.dicom}) > 1:
            notices.append(Notice(Code.SEVERAL_PATIENTS))
        if len(views) > _MANY:
            notices.append(Notice(Code.MANY_VIEWS, detail={"views": len(views)}))
        if scores.vote.probability is None:
            chosen = ", ".join(f"{field} {' or '.join(values)}" for field, values in (where or {}).items())
            notices.append(Notice(Code.NO_VOTE, detail={"chosen": f" with {chosen}" if chosen else ""}))
        elif not scores.neighbours:
            notices.append(Notice(Code.NO_SUCH_LABEL))
        return notices

    def _answer(
        self, query: Query, scores: StudyScores, shown: int, notices: Sequence[Notice], seconds: Seconds
    ) -> Answer:
        rules, vote = self.rules, scores.vote
        abnormal = scores.probability > rules.classifier_threshold
        voted = None if vote.probability is None else vote.probability > rules.vote_threshold
        votes = vote.views or (None,) * query.views
        return Answer(
            query=query,
            classifier=ClassifierAnswer(scores.probability, abnormal, rules.classifier_threshold),
            knn=VoteAnswer(vote.probability, voted, rules.vote_threshold, vote.voters),
            agreement=None if voted is None else voted == abnormal,
            familiarity=scores.familiarity,
            views=tuple(map(ViewAnswer, query.files, scores.classifier, votes, scores.nearest)),
            cases=tuple(
                SimilarCase.of(rank, hit, vote.weights.get(hit.case.study, 0.0))
                for rank, hit in enumerate(scores.neighbours[:shown], start=1)
            ),
            notices=tuple(notices),
            model=self.model,
            index=self.source,
            seconds=seconds,
        )


def _stored_rules(folder: IndexReader) -> Rules:
    stored = folder.metadata("rules")
    if folder.metadata("shard") is not None and stored is None:
        raise IndexFailure(
            f"{folder.path} is one shard of an index; join all of them: mura-search index merge SHARD..."
        )
    try:
        return Rules.from_dict(stored)  # type: ignore[arg-type]  # what is no mapping is caught
    except (TypeError, ValueError) as error:
        raise IndexDamaged(
            f"{folder.path} has no decision rules that this version reads; build the index again"
        ) from error
