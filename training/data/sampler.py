"""P x K batches: P identities, K images of each."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from index.case import Case
from training.errors import TrainingError

__all__ = ["batches", "identity_numbers"]


def identity_numbers(cases: Sequence[Case]) -> list[int]:
    """The identity of each case: 2 * (number of its part) + label. A positive shares part and label with the anchor."""
    parts = {part: number for number, part in enumerate(sorted({case.part for case in cases}))}
    return [2 * parts[case.part] + case.label for case in cases]


def batches(cases: Sequence[Case], P: int, K: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """One epoch: len(cases) // (P * K) batches of row numbers, at least one.

    A batch takes P / 2 parts and of each part K images of each label, so that every anchor has a negative of its own
    part. Parts that have one label only are left out. The parts of a batch differ; they are drawn with probabilities
    proportional to the number of images of their rarer label, of which they can teach that much. With fewer parts than
    P / 2 all of them come, with more images of each: P * K in all, or a few less where that does not divide evenly.

    Without replacement: an identity's images come in random order, and none comes again before all of them have come.
    Images of a part's rarer label come more often, since labels are balanced. Within a batch the patients of an
    identity differ as far as those still to come allow, and an image comes twice only if its identity has fewer than
    the batch needs. Several processes draw the same batches from equal generators, and take every n-th of them. Raises
    TrainingError if no part has both labels.
    """
    rows: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row, case in enumerate(cases):
        rows[case.part, case.label].append(row)
    parts = sorted(part for part, label in rows if label == 0 and (part, 1) in rows)
    if not parts:
        raise TrainingError("no part has radiographs of both labels, so no batch can be drawn; give more data")
    pools = {(part, label): _Pool(rows[part, label], cases, rng) for part in parts for label in (0, 1)}
    sizes = np.array([min(len(rows[part, label]) for label in (0, 1)) for part in parts], float)
    count = min(P // 2, len(parts))
    per_label = K * (P // 2) // count
    for _ in range(max(1, len(cases) // (P * K))):
        drawn = rng.choice(len(parts), count, replace=False, p=sizes / sizes.sum())
        yield [row for d in drawn for label in (0, 1) for row in pools[parts[d], label].take(per_label)]


class _Pool:
    """The rows of one identity, handed out in random order, round after round."""

    def __init__(self, rows: Sequence[int], cases: Sequence[Case], rng: np.random.Generator) -> None:
        self.rows, self.cases, self.rng = rows, cases, rng
        self.queue: list[int] = []  # what is left of this round

    def take(self, count: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < count:
            if not self.queue:
                self.queue = self.rng.permutation(self.rows).tolist()
            patients = {self.cases[row].patient for row in taken}
            fresh = (i for i, row in enumerate(self.queue) if self.cases[row].patient not in patients)
            untaken = (i for i, row in enumerate(self.queue) if row not in taken)
            taken.append(self.queue.pop(next(chain(fresh, untaken, [0]))))
        return taken
