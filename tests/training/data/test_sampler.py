from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.case import Case
from training.data.sampler import batches, identity_numbers
from training.errors import TrainingError


def cases() -> list[Case]:
    made = []
    for part, patients in (("finger", 30), ("wrist", 12)):
        for p in range(patients):
            made += [
                Case(f"{part}/{p}/{i}", f"{part}{p}", f"{part}{p}", int(p % 3 == 0), part) for i in range(1 + p % 3)
            ]
    return made


def plain(part: str, label: int, images: int) -> list[Case]:
    """Images of as many patients."""
    names = [f"{part}{label}/{i}" for i in range(images)]
    return [Case(name, name, name, label, part) for name in names]


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


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=60),
    st.sampled_from([2, 4, 6]),
    st.integers(2, 5),
    st.integers(0, 99),
)
def test_batches_of_any_table(records: list[tuple[int, int, int]], P: int, K: int, seed: int) -> None:
    table = [Case(str(i), f"s{i}", f"p{p}", label, f"part{part}") for i, (part, label, p) in enumerate(records)]
    rows: dict[tuple[str, int], list[int]] = {}
    for i, case in enumerate(table):
        rows.setdefault((case.part, case.label), []).append(i)
    both = {part for part, _ in rows if {(part, 0), (part, 1)} <= rows.keys()}
    if not both:
        with pytest.raises(TrainingError, match="both labels"):
            next(batches(table, P, K, np.random.default_rng(seed)))
        return
    epoch = list(batches(table, P, K, np.random.default_rng(seed)))
    assert len(epoch) == max(1, len(table) // (P * K))
    seen = Counter(i for batch in epoch for i in batch)
    for batch in epoch:
        identities = Counter((table[i].part, table[i].label) for i in batch)
        assert {part for part, _ in identities} <= both
        assert len(identities) == min(P, 2 * len(both))
        assert len(set(identities.values())) == 1
        assert P * K - len(identities) < len(batch) <= P * K
        for identity, count in identities.items():
            own = [i for i in batch if i in rows[identity]]
            assert len(set(own)) == min(count, len(rows[identity]))  # twice in a batch only where there are too few
    for own in rows.values():
        counts = [seen.get(i, 0) for i in own]
        assert max(counts) - min(counts) <= 1


def test_a_patient_alone_gives_different_images_to_a_batch() -> None:
    table = [Case(str(i), "s", "p", 0, "finger") for i in range(3)] + plain("finger", 1, 13)
    for seed in range(10):
        for batch in batches(table, 2, 2, np.random.default_rng(seed)):  # 2 of 3, across the ends of rounds
            assert len(set(batch)) == 4


def test_parts_are_drawn_by_the_images_of_their_rarer_label() -> None:
    table = plain("finger", 0, 300) + plain("finger", 1, 30) + plain("wrist", 0, 10) + plain("wrist", 1, 660)
    drawn = Counter(table[batch[0]].part for s in range(20) for batch in batches(table, 2, 2, np.random.default_rng(s)))
    n = drawn.total()
    assert n == 5000
    assert drawn["wrist"] / n == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / n) ** 0.5)


def test_processes_that_take_every_nth_batch_share_an_epoch() -> None:
    table = plain("finger", 0, 40) + plain("finger", 1, 40)
    shares = [list(islice(batches(table, 2, 5, np.random.default_rng(7)), rank, None, 2)) for rank in range(2)]
    assert [len(share) for share in shares] == [4, 4]
    assert sorted(i for share in shares for batch in share for i in batch) == list(range(80))


def test_the_same_seed_gives_the_same_epoch_and_another_another() -> None:
    table = cases()
    first, again, other = (list(batches(table, 4, 3, np.random.default_rng(s))) for s in (5, 5, 6))
    assert first == again
    assert first != other


def test_a_part_with_one_label_cannot_be_drawn() -> None:
    table = [Case(str(i), str(i), str(i), 0, "hip") for i in range(9)]
    with pytest.raises(TrainingError, match="both labels"):
        next(batches(table, 2, 2, np.random.default_rng(0)))
    table += [Case(f"f{i}", f"f{i}", f"f{i}", i % 2, "finger") for i in range(9)]
    for batch in batches(table, 4, 2, np.random.default_rng(0)):
        assert {table[i].part for i in batch} == {"finger"}
        assert len(batch) == 8


def test_identities_are_part_and_label() -> None:
    table = [Case("a", "a", "a", 1, "wrist"), Case("b", "b", "b", 0, "finger"), Case("c", "c", "c", 1, "wrist")]
    assert identity_numbers(table) == [3, 0, 3]
