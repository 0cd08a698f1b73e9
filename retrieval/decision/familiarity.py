"""Is a query like what is indexed? Only where something indexed is near it, and it is usual at first sight as well.

At first sight: by its body part, polarity and turn (`encoding.probes`), and by its plain measures
(`decision.measure_limits`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.decision.rules import Rules
from retrieval.encoding.probes import NOTHING, Appearance
from retrieval.notices import Unlike
from retrieval.wording import unlike_text

__all__ = ["Familiarity", "familiarity"]


@dataclass(frozen=True, slots=True)
class Familiarity:
    """The nearest similarity of the least familiar view, and the limit below which the query is unlike the index.

    `reasons` says why it is not familiar: too little similarity, another body part, inverted, on its side, softer and
    so on; `codes` are the same as `notices.Unlike` names them. `borderline` says whether the similarity is so little
    above the limit that mild changes could turn it; None where that was not learned.
    """

    similarity: float | None
    limit: float
    familiar: bool | None
    reasons: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    borderline: bool | None = None


def familiarity(
    embeddings: NDArray[np.float32],
    nearest: Sequence[float | None],
    rules: Rules,
    appearance: Appearance | None,
    unusual: Sequence[tuple[Unlike, str, float, float]] = (),
) -> Familiarity:
    """Of a study with embeddings (V, D) of its views, whose nearest studies have these similarities, None where none.

    unusual: what `MeasureLimits.beyond` gives for the study. The least familiar view decides, for each of the reasons
    on its own. It is not known where nothing can be compared.
    """
    similarity = min((value for value in nearest if value is not None), default=None)
    limit = rules.familiarity_limit
    reasons: dict[Unlike, str] = {}
    if similarity is not None and similarity < limit:
        reasons[Unlike.FAR] = unlike_text(Unlike.FAR, value=similarity, limit=limit)
    if appearance is not None and rules.appearance_limits:
        reasons |= _looks(embeddings, rules, appearance)
    for reason, measure, value, bound in unusual:
        reasons[reason] = unlike_text(reason, measure=measure, value=value, limit=bound)
    return Familiarity(
        similarity=similarity,
        limit=limit,
        familiar=None if similarity is None else not reasons,
        reasons=tuple(reasons.values()),
        codes=tuple(map(str, reasons)),
        borderline=None
        if similarity is None or rules.borderline is None
        else rules.borderline.near_limit(similarity, limit),
    )


def _looks(embeddings: NDArray[np.float32], rules: Rules, appearance: Appearance) -> dict[Unlike, str]:
    """What is unusual in how views with embeddings (V, D) look, in codes and words."""
    margins = appearance.margins(embeddings, rules.parts)  # (V, 3)
    part, inverted, turned = np.any(margins < np.array(rules.appearance_limits), axis=0)
    reasons = {}
    if part:
        shown = appearance.part_beside(embeddings[margins[:, 0].argmin()], rules.parts)
        reason = Unlike.NO_RADIOGRAPH if shown == NOTHING else Unlike.OTHER_PART
        reasons[reason] = unlike_text(reason, part=_shown(shown), known=_shown(*rules.parts))
    reasons |= {
        reason: unlike_text(reason) for reason, is_so in ((Unlike.INVERTED, inverted), (Unlike.TURNED, turned)) if is_so
    }
    return reasons


def _shown(*parts: str) -> str:
    return " or ".join(part.replace("_", " ") for part in parts)
