from collections import Counter

import numpy as np
import pytest

from index.case import Case
from training.sampler import batches, identity_numbers


def cases() -> list[Case]:
    made = []
    for part, patients in (("finger", 30), ("wrist", 12)):
        for p in range(patients):
            made += [
                Case(f"{part}/{p}/{i}", f"{part}{p}", f"{part}{p}", int(p % 3 == 0), part) for i in range(1 + p % 3)
            ]
    return made


def test_a_batch_has_both_labels_of_its_parts_and_so_many_of_each() -> None:
    table = cases()
    for batch in batches(table, 4, 3, np.random.default_rng(0)):
        counts = Counter((table[i].part, table[i].label) for i in batch)
        assert counts == {("finger", 0): 3, ("finger", 1): 3, ("wrist", 0): 3, ("wrist", 1): 3}


def test_patients_differ_within_an_identity_of_a_batch() -> None:
    table = cases()
    for batch in batches(table, 4, 3, np.random.default_rng(1)):
        patients = Counter(table[i].patient for i in batch)
        assert max(patients.values()) == 1


def test_no_image_comes_again_before_its_identity_is_used_up() -> None:
    table = [Case(str(i), f"s{i}", f"p{i}", i % 2, "finger") for i in range(40)]
    seen: Counter[int] = Counter()
    for batch in batches(table, 2, 4, np.random.default_rng(2)):
        seen.update(batch)
        assert max(seen.values()) - min(seen.get(i, 0) for i in range(40)) <= 1
    assert sum(seen.values()) == 40
    assert set(seen.values()) == {1}


def test_the_same_seed_gives_the_same_epoch_and_another_another() -> None:
    table = cases()
    first, again, other = (list(batches(table, 4, 3, np.random.default_rng(s))) for s in (5, 5, 6))
    assert first == again
    assert first != other


def test_a_part_with_one_label_cannot_be_drawn() -> None:
    table = [Case(str(i), str(i), str(i), 0, "hip") for i in range(9)]
    with pytest.raises(ValueError, match="both labels"):
        next(batches(table, 2, 2, np.random.default_rng(0)))
    table += [Case(f"f{i}", f"f{i}", f"f{i}", i % 2, "finger") for i in range(9)]
    for batch in batches(table, 4, 2, np.random.default_rng(0)):
        assert {table[i].part for i in batch} == {"finger"}
        assert len(batch) == 8


def test_identities_are_part_and_label() -> None:
    table = [Case("a", "a", "a", 1, "wrist"), Case("b", "b", "b", 0, "finger"), Case("c", "c", "c", 1, "wrist")]
    assert identity_numbers(table) == [3, 0, 3]
