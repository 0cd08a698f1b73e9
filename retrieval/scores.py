"""The scores of one study, and what an answer says of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from index.hits import Hit
from retrieval.answer import ClassifierAnswer, SimilarCase, ViewAnswer, VoteAnswer
from retrieval.decision.familiarity import Familiarity
from retrieval.decision.findings import FindingShare
from retrieval.decision.rules import Rules
from retrieval.decision.vote import StudyVote
from retrieval.images.measures import Measures
from retrieval.notices import Code, Notice
from retrieval.query import Scope

__all__ = ["StudyScores"]


@dataclass(frozen=True, slots=True)
class StudyScores:
    """The scores of one study of V views.

    `classifier` (V,) are calibrated probabilities. `nearest` (V,) are the similarities of each view's nearest study,
    None if no study can be compared. `neighbours` are the nearest studies of all views (`decision.vote.merged`).
    `reasons` (V,) say why a view is not familiar, `findings` what the voting studies had, `measures` (V,) the plain
    measures of the views.
    """

    classifier: tuple[float, ...]
    vote: StudyVote
    nearest: tuple[float | None, ...]
    neighbours: tuple[Hit, ...]
    familiarity: Familiarity
    reasons: tuple[tuple[str, ...], ...]
    findings: tuple[FindingShare, ...]
    measures: tuple[Measures, ...]

    @property
    def probability(self) -> float:
        """The classifier's probability of the study: the mean over its views (MURA's protocol)."""
        return sum(self.classifier) / len(self.classifier)

    def borderline(self, rules: Rules) -> bool | None:
        """Whether one of the probabilities or the similarity is borderline; None where that is unknown."""
        if rules.borderline is None:
            return None
        return any((*self._near_thresholds(rules), self.familiarity.borderline))

    def classifier_answer(self, rules: Rules) -> ClassifierAnswer:
        threshold = rules.classifier_threshold
        near, _ = self._near_thresholds(rules)
        return ClassifierAnswer(self.probability, self.probability > threshold, threshold, rules.classifier, near)

    def vote_answer(self, rules: Rules) -> VoteAnswer:
        """What the vote predicts by the rules; nothing where no study could vote."""
        probability, threshold = self.vote.probability, rules.vote_threshold
        abnormal = None if probability is None else probability > threshold
        _, near = self._near_thresholds(rules)
        return VoteAnswer(probability, abnormal, threshold, self.vote.voters, len(self.vote.weights), near)

    def view_answers(self, files: Sequence[str]) -> tuple[ViewAnswer, ...]:
        """The scores of each view; `files` (V,) are their names."""
        nothing = (None,) * len(files)
        columns = (self.classifier, self.vote.views or nothing, self.nearest, self.reasons, self.measures or nothing)
        return tuple(
            ViewAnswer(file, classifier, knn, nearest, reasons=reasons, measures=asdict(measures) if measures else {})
            for file, classifier, knn, nearest, reasons, measures in zip(files, *columns, strict=True)
        )

    def similar(self, count: int) -> tuple[SimilarCase, ...]:
        """The `count` nearest studies."""
        return tuple(
            SimilarCase.of(
                rank,
                hit.similarity,
                self.vote.weights.get(hit.case.study, 0.0),
                hit.case,
                laterality=hit.case.laterality,
                finding=hit.case.finding,
            )
            for rank, hit in enumerate(self.neighbours[:count], start=1)
        )

    @property
    def complete(self) -> bool:
        """Whether something could vote, and a similar study can be shown."""
        return self.vote.probability is not None and bool(self.neighbours)

    def missing_notices(self, labels: Sequence[str], scope: Scope) -> list[Notice]:
        """Why nothing could vote, or why no similar study is shown. labels: those that the index has."""
        if self.vote.probability is None and self.neighbours and len(labels) == 1:
            return [Notice(Code.ONE_LABEL, detail={"label": labels[0]})]
        if self.vote.probability is None:
            voters = scope.where if scope.where and scope.filter_vote else {}
            chosen = ", ".join(f"{field} {' or '.join(values)}" for field, values in voters.items())
            return [Notice(Code.NO_VOTE, detail={"chosen": f" with {chosen}" if chosen else ""})]
        if not self.neighbours:
            return [Notice(Code.NO_SUCH_LABEL if "label" in (scope.where or {}) else Code.NO_SUCH_STUDY)]
        return []

    def borderline_notices(self, rules: Rules) -> list[Notice]:
        """Which probabilities and similarities mild changes of the radiographs could turn."""
        widths, familiarity = rules.borderline, self.familiarity
        if widths is None:
            return []
        readers = (
            ("classifier", self.probability, rules.classifier_threshold, widths.classifier),
            ("vote", self.vote.probability, rules.vote_threshold, widths.knn),
        )
        notices = [
            Notice(
                Code.BORDERLINE,
                detail={"reader": name, "probability": float(probability), "threshold": threshold, "width": width},
            )
            for (name, probability, threshold, width), near in zip(readers, self._near_thresholds(rules), strict=True)
            if near and probability is not None
        ]
        if familiarity.familiar and familiarity.borderline and familiarity.similarity is not None:
            detail = {"similarity": familiarity.similarity, "limit": familiarity.limit, "width": widths.similarity}
            notices.append(Notice(Code.NEARLY_UNFAMILIAR, detail=detail))
        return notices

    def _near_thresholds(self, rules: Rules) -> tuple[bool | None, bool | None]:
        return rules.near_thresholds(self.probability, self.vote.probability)
