"""P x K batches: P identities, K images of each."""

from collections.abc import Iterator, Sequence

import numpy as np

from index.case import Case

__all__ = ["batches", "identity_numbers"]


def identity_numbers(cases: Sequence[Case]) -> list[int]:
    """The identity of each case: 2 * (number of its part) + label. A positive shares part and label with the anchor."""
    parts = {part: number for number, part in enumerate(sorted({case.part for case in cases}))}
    return [2 * parts[case.part] + case.label for case in cases]


def batches(cases: Sequence[Case], P: int, K: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """One epoch: len(cases) // (P * K) batches of row numbers, at least one.

    Each batch takes P / 2 parts (drawn by the number of images of their rarer label, of which they can teach that much;
    both labels of each, so that every anchor has a negative of its own part) and K images of each label. Images come in
    random order without replacement until an identity is used up, then again; within a batch patients differ as long
    as there are enough.
    """
    pools: dict[tuple[str, int], _Pool] = {}
    for part in sorted({case.part for case in cases}):
        rows = [[i for i, c in enumerate(cases) if c.part == part and c.label == label] for label in (0, 1)]
        if all(rows):  # a part with one label has no negatives of its own
            for label in (0, 1):
                pools[part, label] = _Pool(rows[label], [cases[i].patient for i in rows[label]], rng)
    parts = sorted({part for part, _ in pools})
    if not parts:
        raise ValueError("no part has images of both labels")
    sizes = np.array([min(len(pools[part, label].rows) for label in (0, 1)) for part in parts], float)
    count = min(P // 2, len(parts))
    for _ in range(max(1, len(cases) // (P * K))):
        drawn = rng.choice(len(parts), count, replace=False, p=sizes / sizes.sum())
        per_label = K * (P // 2) // count  # with fewer parts than wanted, the batch keeps its size
        yield [row for d in drawn for label in (0, 1) for row in pools[parts[d], label].take(per_label)]


class _Pool:
    """The rows of one identity, handed out in random order."""

    def __init__(self, rows: Sequence[int], patients: Sequence[str], rng: np.random.Generator) -> None:
        self.rows, self.rng = list(rows), rng
        self.patient = dict(zip(rows, patients, strict=True))
        self.queue: list[int] = []

    def take(self, count: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < count:
            if not self.queue:
                self.queue = [self.rows[i] for i in self.rng.permutation(len(self.rows))]
            used = {self.patient[row] for row in taken}
            fresh = next((i for i, row in enumerate(self.queue) if self.patient[row] not in used), 0)
            taken.append(self.queue.pop(fresh))
        return taken
