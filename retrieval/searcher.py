"""The query path: read the views, encode them, find the nearest studies, let them vote, and answer."""

import os
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from index.atomic import MODEL
from index.case import Where
from index.hits import Hit
from index.integrity import require_index
from index.reader import IndexReader
from retrieval.answer import Answer, IndexSource, ModelSource, Query, Seconds
from retrieval.decision.familiarity import familiarity
from retrieval.decision.findings import tally
from retrieval.decision.index_rules import evaluation_with_rules, stored_rules
from retrieval.decision.measure_limits import MeasureLimits, limits_of
from retrieval.decision.reference import Reference
from retrieval.decision.rules import Rules
from retrieval.decision.vote import merged, study_vote
from retrieval.encoding.batches import usable
from retrieval.encoding.bundle import Bundle
from retrieval.encoding.encoder import Encoded, Encoder
from retrieval.errors import RadiographError
from retrieval.explain.evidence import evidence_of
from retrieval.explain.rendering import overlay, overlay_files, write_overlay
from retrieval.images.measures import Measures, measure_rows
from retrieval.images.radiograph import read_frames
from retrieval.notices import Code, Notice
from retrieval.query import EVERYTHING, SHOWN, Images, Reader, Scope, View, read_views
from retrieval.query_checks.one_study import one_study_notices, require_one_study
from retrieval.query_checks.own_patients import own_patients, stored_prefixes
from retrieval.query_checks.training_radiographs import TrainingRadiographs
from retrieval.scores import StudyScores

__all__ = ["Searcher", "default_index"]


def default_index() -> Path:
    """The default index: MURA_SEARCH_INDEX, else `index` in the user's data folder."""
    if path := os.environ.get("MURA_SEARCH_INDEX"):
        return Path(path)
    from platformdirs import user_data_path

    return user_data_path("mura-search") / "index"


class Searcher:
    """An index and its model, ready to answer. A context manager; `close` frees the index.

    Each search uses the index as it is then, with all changes by other processes.
    """

    def __init__(self, encoder: Encoder, index: IndexReader, rules: Rules, load_seconds: float = 0.0) -> None:
        self._load_seconds = load_seconds
        self._use(encoder, index, rules)

    def _use(self, encoder: Encoder, index: IndexReader, rules: Rules) -> None:
        self.encoder = encoder
        self.index = index
        self.rules = rules
        self._source: IndexSource | None = None
        self._training = TrainingRadiographs(encoder.bundle)
        self._labels: tuple[str, ...] | None = None
        self._limits: MeasureLimits | None = None
        self._explained: Encoder | None = None
        self._reference: tuple[Reference | None] | None = None
        self._evaluation = evaluation_with_rules(index, encoder.bundle.sha256)

    @classmethod
    def open(cls, index: Path | str | None = None) -> Self:
        """Open an index folder with the model in it. Raises IndexFailure, BundleError, MissingExtra."""
        started = time.perf_counter()
        path = default_index() if index is None else Path(index)
        require_index(path)
        with ThreadPoolExecutor(1) as thread, ExitStack() as stack:
            loading = thread.submit(Encoder.open, path / MODEL)  # while this thread imports FAISS and checks the cases
            reader = stack.enter_context(IndexReader.open(path))
            # An index that replaced one of another model has its own in another folder.
            encoder = loading.result() if reader.model == path / MODEL else Encoder.open(reader.model)
            rules = stored_rules(reader)
            stack.pop_all()
        return cls(encoder, reader, rules, time.perf_counter() - started)

    def close(self) -> None:
        self.index.close()

    def refresh(self) -> None:
        """Bring the searcher up to date if the index was changed or replaced."""
        current = self.current()
        if current is not self:
            if current.index is not self.index:
                self.close()
            self._use(current.encoder, current.index, current.rules)

    def current(self) -> "Searcher":
        """A searcher of the index as it is now: this one if nothing changed.

        For a changed index the new searcher shares its reader with this one. For a replaced index it has its own, and
        this one stays open. The model is loaded again only if it is another. Raises as `open` does.
        """
        if not self.index.replaced():
            changed = self.index.refresh()  # the rules may have been calibrated
            return Searcher(self.encoder, self.index, stored_rules(self.index)) if changed else self
        with ExitStack() as stack:
            index = stack.enter_context(IndexReader.open(self.index.path))
            same = Bundle.open(index.model).sha256 == self.encoder.bundle.sha256
            current = Searcher(self.encoder if same else Encoder.open(index.model), index, stored_rules(index))
            stack.pop_all()
        return current

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
        k: int = SHOWN,
        patient: str | None = None,
        where: Where | None = None,
        heatmap: Path | str | None = None,
        one_study: bool = False,
    ) -> Answer:
        """Answer for one study.

        images: its views, as files, arrays ((H, W) grey or (H, W, 3) BGR, uint8) or one study folder. k: the number of
        studies to show; the decision rules fix the number that vote. where: allowed values of the fields of indexed
        cases, such as {"part": ["finger"]}; a filter by label changes what is shown, never the vote. heatmap: the PNG
        file for the radiograph with a heatmap of what raises the abnormality score; `rendering.overlay_files` names the
        files of several views.

        The query's own patient is neither shown nor votes: `patient`, the patient of an indexed radiograph with the
        same bytes, the patient folder of MURA in the path, and DICOM's Patient ID, as it is and as this site's key
        hashes it. one_study: take radiographs of several known patients or studies as one study.

        Raises RadiographError if a file does not exist, if none can be read, and if the radiographs are of several
        studies; SiteKeyError, ValueError for k below 1 or an unknown field, HeatmapError.
        """
        return self.search_with_overlays(images, Scope(k, patient, where), heatmap=heatmap, one_study=one_study)[0]

    def search_with_overlays(
        self,
        images: Images,
        scope: Scope = EVERYTHING,
        *,
        heatmap: Path | str | None = None,
        one_study: bool = False,
        draw: bool = False,
        read: Reader = read_frames,
    ) -> tuple[Answer, list[NDArray[np.uint8]]]:
        """Answer as `search` does, and give each view's heatmap over its radiograph, (H, W, 3) BGR.

        The list is empty unless `draw` is true or `heatmap` names a file. read: reads a file.
        """
        started = time.perf_counter()
        self.refresh()
        views, notices = read_views(images, read)
        if not one_study:
            require_one_study(self.index, views)
        files = [] if heatmap is None else overlay_files(Path(heatmap), len(views), images)
        maps = self.encoder.views([self.encoder.prepare(view.pixels) for view in views])
        measures = [self.encoder.measure(view.pixels) for view in views]
        encoded = self.encoder.harmonised(self.encoder.pool(maps), measures)
        spent = time.perf_counter() - started
        answer = self.answer(views, encoded, scope, notices=notices, encode=spent, measures=measures)
        if not (files or draw):
            return answer, []
        started = time.perf_counter()
        overlays = []
        for number, view in enumerate(views):
            view_maps = [one_pass[number : number + 1] for one_pass in maps]
            heat = evidence_of(self.explained, self.rules, view.pixels, encoded.row(number), views=view_maps)
            overlays.append(overlay(view.pixels, heat))
        for file, painted in zip(files, overlays, strict=False):
            write_overlay(file, painted)
        drawing = time.perf_counter() - started
        seconds = replace(answer.seconds, heatmap=drawing, total=answer.seconds.total + drawing)
        return replace(answer.with_heatmaps(files), seconds=seconds), overlays

    def answer(
        self,
        views: Sequence[View],
        encoded: Encoded,
        scope: Scope = EVERYTHING,
        *,
        notices: Sequence[Notice] = (),
        encode: float = 0.0,
        measures: Sequence[Measures] | None = None,
    ) -> Answer:
        """Answer for views that are read and encoded already, one row of `encoded` each.

        This does not look for changes of the index; `refresh` does. notices: about the files of the views. encode: the
        seconds that reading and encoding took. measures: of the views, if they are not to be taken of their pixels;
        none if they are unknown. Raises RadiographError if the model's output is not a number.
        """
        started = time.perf_counter()
        if not usable(encoded).all():
            raise RadiographError(f"{views[0].name}: the model's output for this study is not a number")
        excluded, known = self.own_patients(views, scope.patient)
        if measures is None:
            measures = [self.encoder.measure(view.pixels) for view in views]
        scores = self.scores(encoded, scope, measures=measures, excluded=excluded)
        search = time.perf_counter() - started
        load, self._load_seconds = self._load_seconds, 0.0
        files = tuple(view.name for view in views)
        missing = [] if scores.complete else scores.missing_notices(self.labels, scope)
        classifier, vote = scores.classifier_answer(self.rules), scores.vote_answer(self.rules)
        return Answer(
            query=Query(files, len(views), tuple(sorted(excluded))),
            classifier=classifier,
            knn=vote,
            agreement=None if vote.abnormal is None else vote.abnormal == classifier.abnormal,
            familiarity=scores.familiarity,
            views=scores.view_answers(files),
            cases=scores.similar(scope.k),
            notices=(
                *notices,
                *known,
                *([Notice(Code.SYNTHETIC)] if self.source.synthetic else []),
                *self._training.notices(views),
                *one_study_notices(views),
                *missing,
                *scores.borderline_notices(self.rules),
            ),
            model=self.model,
            index=self.source,
            seconds=Seconds(load=load, encode=encode, search=search, total=load + encode + search),
            findings=scores.findings,
            evaluation=self._evaluation,
        )

    def scores(
        self,
        encoded: Encoded,
        scope: Scope = EVERYTHING,
        *,
        measures: Sequence[Measures] = (),
        excluded: Collection[str] = (),
    ) -> StudyScores:
        """The scores of one study from its encoded views; `neighbours` are at least the `scope.k` nearest studies.

        measures: of the views; without them, they do not count for familiarity. excluded: the patients to leave out.
        """
        rules, embeddings, voters = self.rules, encoded.embeddings, scope.voters
        search = partial(self.index.search, embeddings, exclude_patients=[excluded] * len(embeddings))
        voting = search(max(rules.k, scope.k), where=voters or None)
        neighbours = search(scope.k, where=scope.where) if scope.where and scope.where != voters else voting
        comparable = search(1) if voters else voting  # a query is familiar if it is like anything indexed
        alike = len({hit.case.label for row in voting for hit in row}) < 2
        voters_of_views = [] if alike and len(self.labels) < 2 else [row[: rules.k] for row in voting]
        vote, nearest = study_vote(voters_of_views, rules.temperature), _similarities(comparable)
        rated = partial(familiarity, rules=rules, appearance=self.encoder.appearance)
        measured, beyond = measure_rows(measures), self.limits.beyond
        whole = rated(embeddings, nearest, unusual=beyond(measured))
        rows = [slice(row, row + 1) for row in range(len(embeddings))]
        alone = [
            () if whole.familiar else rated(embeddings[row], nearest[row], unusual=beyond(measured[row])).reasons
            for row in rows
        ]
        return StudyScores(
            classifier=tuple(rules.probabilities(encoded.logits, embeddings).tolist()),
            vote=vote,
            nearest=_similarities(voting),
            neighbours=tuple(merged(neighbours)),
            familiarity=whole,
            reasons=tuple(alone),
            findings=tally(voters_of_views, vote.weights),
            measures=tuple(measures),
        )

    @property
    def reference(self) -> Reference | None:
        """What the scores of the index's own studies look like; None where too few could say."""
        if self._reference is None:
            self._reference = (Reference.from_dict(self.index.metadata("reference")),)
        return self._reference[0]

    @property
    def explained(self) -> Encoder:
        """The encoder whose classifier is the one that predicts: for heatmaps of a class."""
        if self._explained is None:
            local = self.rules.local
            self._explained = self.encoder if local is None else self.encoder.with_head(local.head(self.encoder.head))
        return self._explained

    @property
    def limits(self) -> MeasureLimits:
        """The limits of the plain measures of the index's radiographs; none in an index of an earlier version."""
        if self._limits is None:
            self._limits = limits_of(self.index)
        return self._limits

    @property
    def model(self) -> ModelSource:
        bundle = self.encoder.bundle
        return ModelSource(bundle.name, bundle.sha256, bundle.synthetic)

    @property
    def source(self) -> IndexSource:
        if self._source is None:
            synthetic = bool(self._collection.get("synthetic"))
            self._source = IndexSource(str(self.index.path), *self.index.size(), synthetic, self.index.generation)
        return self._source

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the index's cases: "normal", "abnormal". An index of one label does not vote."""
        if self._labels is None:
            self._labels = self.index.labels()
        return self._labels

    @property
    def _collection(self) -> dict[str, object]:
        collection = self.index.metadata("collection")
        return collection if isinstance(collection, dict) else {}

    @property
    def site(self) -> str:
        """The name of the site key that hashed the index's identifiers; "" if they are not hashed."""
        return str(self._collection.get("site", ""))

    @property
    def layout(self) -> str:
        """The layout of the collection that the index was built from; "" if the index does not say it."""
        return str(self._collection.get("layout", ""))

    @property
    def prefixes(self) -> list[str]:
        """The prefixes of the names of patients that came from other indexes."""
        return stored_prefixes(self.index)

    def own_patients(self, views: Sequence[View], patient: str | None) -> tuple[set[str], list[Notice]]:
        """The indexed patients to leave out, and the notices about them."""
        return own_patients(self.index, views, patient, self.site)


def _similarities(hits: Sequence[Sequence[Hit]]) -> tuple[float | None, ...]:
    """The similarity of each view's nearest study; None for a view without hits."""
    return tuple(row[0].similarity if row else None for row in hits)
