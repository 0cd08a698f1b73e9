"""Is a query like what is indexed? Only where something indexed is near it, and it is usual at first sight as well."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.answer import Familiarity
from retrieval.decision.rules import Rules
from retrieval.encoding.probes import NOTHING, Appearance

__all__ = ["familiarity"]


def familiarity(
    embeddings: NDArray[np.float32], nearest: Sequence[float | None], rules: Rules, appearance: Appearance | None
) -> Familiarity:
    """Of a study with embeddings (V, D) of its views, whose nearest studies have these similarities, None where none.

    The least familiar view decides, for each of the reasons on its own. It is not known where nothing can be compared.
    """
    similarity = min((value for value in nearest if value is not None), default=None)
    reasons = []
    if similarity is not None and similarity < rules.familiarity_limit:
        reasons.append(f"nothing indexed is like it (similarity {similarity:.3f}, limit {rules.familiarity_limit:.3f})")
    if appearance is not None and rules.appearance_limits:
        margins = appearance.margins(embeddings, rules.parts)  # (V, 3)
        part, inverted, turned = np.any(margins < np.array(rules.appearance_limits), axis=0)
        if part:
            stranger = appearance.stranger(embeddings[margins[:, 0].argmin()], rules.parts)
            known = _shown(*rules.parts)
            reasons.append(
                f"it looks like no radiograph of {known}"
                if stranger == NOTHING
                else f"it looks like another body part: {_shown(stranger)}, not {known}"
            )
        if inverted:
            reasons.append("it looks inverted: black bones on white")
        if turned:
            reasons.append("it seems to lie on its side")
    familiar = None if similarity is None else not reasons
    return Familiarity(similarity, rules.familiarity_limit, familiar, tuple(reasons))


def _shown(*parts: str) -> str:
    return " or ".join(part.replace("_", " ") for part in parts)
