"""How much earlier a ranked worklist reaches abnormal studies than the order of arrival does.

N studies, P of them abnormal, are read from the highest score down. A curve from (0, 0) to (1, 1) plots the share of
abnormal studies that are reached against the share of all studies that are read. Its area A is 1 minus the mean
position of an abnormal study in the list, where 0 is the first position and 1 the last. Ties come in any order. With
p = P / N, and AUROC as the chance that an abnormal study scores above a normal study:

    arrival   the order is independent of the label                       A = 1/2
    ideal     every abnormal study comes first                            A = 1 - p/2
    ranked    half of the other abnormal studies come before an abnormal
              study, and the normal studies that score higher             A = p/2 + (1 - p) AUROC
    normalised = (ranked - arrival) / (ideal - arrival) = 2 AUROC - 1     0 arrival, 1 ideal: the Gini coefficient

Intervals are 95 %, by resampling the patients, as in `retrieval.evaluation.metrics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.metrics import Bootstrap, Estimate, Predictor, Resampling, bootstrap
from retrieval.formats.json_format import plain

__all__ = ["Triage", "triage"]

_EVERY = "every"  # predicts that every study is abnormal: its accuracy is p


@dataclass(frozen=True, slots=True)
class Triage:
    """The worklist of one predictor: `area` (its `chance` is that of arrival), `normalised`, and the `ideal` area.

    `position` is the mean position of an abnormal study in the list, from 0 to 1: 1 - area.
    """

    area: Estimate
    normalised: Estimate
    position: Estimate
    ideal: float | None

    def to_dict(self) -> dict[str, object]:
        return {"place" if name == "position" else name: value for name, value in plain(self).items()}


def triage(
    labels: NDArray[np.int64],
    patients: Sequence[str],
    scores: Mapping[str, NDArray[np.float64]],
    **resampling: Unpack[Resampling],
) -> dict[str, Triage]:
    """Measure the worklists of several predictors. labels (N,) of 0 and 1; patients: N names; scores: (N,) each.

    Where all studies have one label, the estimates are undefined.
    """
    abnormal = np.ones(len(labels), np.bool_)
    predictors = {name: Predictor(values, abnormal) for name, values in scores.items()}
    predictors[_EVERY] = Predictor(np.zeros(len(labels)), abnormal)
    measured = bootstrap(labels, patients, predictors, **resampling)
    p, p_rounds = measured.values[_EVERY]["accuracy"], measured.rounds[_EVERY]["accuracy"]
    result = {}
    for name in scores:
        auroc, auroc_rounds = measured.values[name]["auroc"], measured.rounds[name]["auroc"]
        figures = {
            "area": (p / 2 + (1 - p) * auroc, p_rounds / 2 + (1 - p_rounds) * auroc_rounds, 0.5),
            "normalised": (2 * auroc - 1, 2 * auroc_rounds - 1, 0.0),
            "position": (1 - p / 2 - (1 - p) * auroc, 1 - p_rounds / 2 - (1 - p_rounds) * auroc_rounds, 0.5),
        }
        estimates = {figure: _estimate(*values, measured) for figure, values in figures.items()}
        result[name] = Triage(**estimates, ideal=None if estimates["area"].value is None else 1 - p / 2)
    return result


def _estimate(value: float, rounds: NDArray[np.float64], chance: float, measured: Bootstrap) -> Estimate:
    """An estimate with the reasons of AUROC, since both are defined in the same rounds."""
    single = Bootstrap({"": {"auroc": value}}, {"": {"auroc": rounds}}, {}, measured.patients)
    return replace(single.estimates()[""]["auroc"], chance=chance)
