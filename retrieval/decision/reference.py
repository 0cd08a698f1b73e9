"""What the scores of an index's own studies look like, stored with it, so that scores of other studies can be compared.

A score is the classifier's probability, the vote's, or the similarity of the least familiar view to its nearest study.
Each study is scored as a new patient's would be: its own patient is left out, and the model was not trained on it. The
plain measures (`images.measures`) of all studies are beside them; a study's are the means over its views.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from retrieval.decision.fit_rules import study_votes
from retrieval.decision.leave_patient_out import Ranked, ranked_studies
from retrieval.decision.rules import Rules
from retrieval.decision.teachers import FEWEST, LabelledStudies
from retrieval.images.measures import MEASURES

__all__ = [
    "NOTHING_KNOWN",
    "SCORES",
    "Distribution",
    "Reference",
    "index_reference",
    "reference_of",
    "reference_scores",
    "rounded",
]

Floats = NDArray[np.float64]

SCORES = ("classifier", "knn", "similarity")
_QUANTILES = 201  # values of a distribution that are stored at most
_DIGITS = 3  # of a score or measure; an index stores measures with fewer digits than a query has


def rounded(values: NDArray[np.floating]) -> Floats:
    """Values (n,) as a reference has them: rounded, so that last digits do not tell apart what is alike."""
    return np.asarray(np.round(np.asarray(values, np.float64), _DIGITS), np.float64)


@dataclass(frozen=True, slots=True)
class Distribution:
    """The values of `count` studies, in rising order: all of them, or as many quantiles if they are more than 201."""

    count: int
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> "Distribution":
        """Of values (S,), of which there is at least one."""
        ordered = np.sort(rounded(values))
        if len(ordered) > _QUANTILES:
            ordered = np.quantile(ordered, np.linspace(0, 1, _QUANTILES))
        return cls(len(values), tuple(rounded(ordered).tolist()))


@dataclass(frozen=True, slots=True)
class Reference:
    """The scores and measures of `studies` studies by name, and the shares that classifier and vote call abnormal.

    Without scores, because too few studies could be scored, `abnormal` is empty.
    """

    studies: int
    scores: Mapping[str, Distribution]
    abnormal: Mapping[str, float]

    def with_classifier(self, probabilities: Floats, threshold: float) -> "Reference":
        """The same with other probabilities (n,) of the classifier, called abnormal above the threshold."""
        share = round(float((probabilities > threshold).mean()), 5)
        return replace(
            self,
            scores={**self.scores, "classifier": Distribution.of(probabilities)},
            abnormal={**self.abnormal, "classifier": share},
        )

    def with_measures(self, studies: Sequence[str], rows: Floats) -> "Reference":
        """The same with the measures (N, M) of radiographs of the N studies named; rows of NaN do not count."""
        known = np.atleast_1d(np.isfinite(rows).all(axis=1))
        names, study_of = np.unique(
            [study for study, counts in zip(studies, known, strict=True) if counts], return_inverse=True
        )
        if len(names) < FEWEST:
            return self
        means = [np.bincount(study_of, column) / np.bincount(study_of) for column in rows[known].T]
        scores = {name: Distribution.of(mean) for name, mean in zip(MEASURES, means, strict=True)}
        return replace(self, studies=max(self.studies, len(names)), scores={**self.scores, **scores})

    def to_dict(self) -> dict[str, object]:
        """The values as JSON has them."""
        scores = {
            name: {"count": distribution.count, "values": list(distribution.values)}
            for name, distribution in self.scores.items()
        }
        return {"studies": self.studies, "scores": scores, "abnormal": dict(self.abnormal)}

    @classmethod
    def from_dict(cls, values: object) -> "Reference | None":
        """What `to_dict` gave, also after JSON; None where there is none, or one of another version."""
        if not isinstance(values, Mapping):
            return None
        try:
            scores = {
                str(name): Distribution(int(stored["count"]), tuple(map(float, stored["values"])))
                for name, stored in values["scores"].items()
            }
            abnormal = {str(name): float(share) for name, share in values["abnormal"].items()}
            return cls(int(cast(int, values["studies"])), scores, abnormal)
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


NOTHING_KNOWN = Reference(0, {}, {})


def reference_of(scores: Mapping[str, Floats], rules: Rules) -> Reference:
    """The reference of studies with these scores (S,) by name."""
    thresholds = {"classifier": rules.classifier_threshold, "knn": rules.vote_threshold}
    return Reference(
        studies=max(len(sample) for sample in scores.values()),
        scores={name: Distribution.of(sample) for name, sample in scores.items() if len(sample)},
        abnormal={name: round(float((scores[name] > above).mean()), 5) for name, above in thresholds.items()},
    )


def reference_scores(
    ranked: Ranked,
    embeddings: NDArray[np.float32],
    logits: NDArray[np.float32],
    study_of: NDArray[np.int64],
    rules: Rules,
) -> dict[str, Floats]:
    """The scores (S,) of studies with V radiographs: ranked (V, K), embeddings (V, D), logits (V,), study_of (V,)."""
    nearest = np.full(int(study_of.max()) + 1, np.inf)
    np.minimum.at(nearest, study_of, ranked.similarities[:, 0])
    return {
        "classifier": np.bincount(study_of, rules.probabilities(logits, embeddings)) / np.bincount(study_of),
        "knn": study_votes(ranked, study_of, rules.k, rules.temperature),
        "similarity": nearest,
    }


def index_reference(studies: LabelledStudies, rules: Rules) -> Reference | None:
    """The reference of an index's own studies; None with fewer than 20 on whose patients the model was not trained."""
    teachers = studies.teachers()
    if len(teachers.labels) < FEWEST:
        return None
    rows, study_of = teachers.rows, teachers.study_of
    ranked = ranked_studies(studies.cases, studies.embeddings, rows, rules.k)
    if ranked.nobody:
        return None
    scores = reference_scores(ranked, studies.embeddings[rows], studies.logits[rows], study_of, rules)
    return reference_of(scores, rules)
