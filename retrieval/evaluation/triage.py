"""How much earlier abnormal studies are reached in a ranked worklist than in the order of arrival.

N studies, P of them abnormal, are read from the highest score down. The curve goes from (0, 0) to (1, 1): the share of
the abnormal studies that were reached, over the share of all studies that were read. Its area A is 1 minus the place
in the list, 0 the first and 1 the last, at which an abnormal study is reached on average; studies of one score come in
any order. With p = P / N and AUROC, the chance that an abnormal study scores above a normal one:

    arrival   the order of arrival has nothing to do with the label       A = 1/2
    ideal     every abnormal study comes first                            A = 1 - p/2
    ranked    an abnormal study has half of the other abnormal ones
              before it, and the normal ones that score higher            A = p/2 + (1 - p) AUROC
    normalised = (ranked - arrival) / (ideal - arrival) = 2 AUROC - 1     0 as arrival, 1 ideal, the Gini coefficient

Intervals are 95 %, of resamplings of the patients, as in `retrieval.evaluation.metrics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation.metrics import Bootstrap, Estimate, Reader, bootstrap

__all__ = ["Triage", "triage"]

_EVERY = "every"  # a reader that calls all studies abnormal: its accuracy is the share of abnormal ones


@dataclass(frozen=True, slots=True)
class Triage:
    """One reader's worklist: `area` with that of arrival as its chance, `normalised`, and the `ideal` area.

    `place` is where in the list, from 0 to 1, an abnormal study is reached on average: 1 - area.
    """

    area: Estimate
    normalised: Estimate
    place: Estimate
    ideal: float | None

    def to_dict(self) -> dict[str, object]:
        return {
            "area": self.area.to_dict(),
            "normalised": self.normalised.to_dict(),
            "place": self.place.to_dict(),
            "ideal": self.ideal,
        }


def triage(
    labels: NDArray[np.int64],
    patients: Sequence[str],
    scores: Mapping[str, NDArray[np.float64]],
    *,
    rounds: int = 10_000,
    seed: int = 0,
) -> dict[str, Triage]:
    """Measure the worklists of several readers. labels (N,) of 0 and 1, patients N names, scores (N,) by reader.

    Undefined, with the reason, where all studies have one label.
    """
    calls = np.ones(len(labels), np.bool_)
    readers = {name: Reader(of, calls) for name, of in scores.items()}
    found = bootstrap(
        labels, patients, {**readers, _EVERY: Reader(np.zeros(len(labels)), calls)}, rounds=rounds, seed=seed
    )
    p, p_rounds = found.values[_EVERY]["accuracy"], found.rounds[_EVERY]["accuracy"]
    result = {}
    for name in scores:
        auroc, auroc_rounds = found.values[name]["auroc"], found.rounds[name]["auroc"]
        figures = {
            "area": (p / 2 + (1 - p) * auroc, p_rounds / 2 + (1 - p_rounds) * auroc_rounds, 0.5),
            "normalised": (2 * auroc - 1, 2 * auroc_rounds - 1, 0.0),
            "place": (1 - p / 2 - (1 - p) * auroc, 1 - p_rounds / 2 - (1 - p_rounds) * auroc_rounds, 0.5),
        }
        told = {figure: _estimate(*of, found) for figure, of in figures.items()}
        result[name] = Triage(**told, ideal=None if told["area"].value is None else 1 - p / 2)
    return result


def _estimate(value: float, rounds: NDArray[np.float64], chance: float, of: Bootstrap) -> Estimate:
    """With the interval and the reasons that AUROC has in `evaluation.metrics`: both are defined in the same rounds."""
    own = Bootstrap({"": {"auroc": value}}, {"": {"auroc": rounds}}, {}, of.patients).estimates()[""]["auroc"]
    return Estimate(own.value, own.low, own.high, own.reason, chance)
