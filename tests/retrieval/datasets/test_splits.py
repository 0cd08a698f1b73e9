import pytest

from index.case import Case
from retrieval.datasets.splits import draw, held_out_patients, patient_folds, split_by_patient


def cases(patients: int) -> list[Case]:
    return [Case(f"{p}/{i}", f"s{p}", f"p{p}", p % 2) for p in range(patients) for i in range(2)]


def test_patients_stay_on_one_side_whoever_joins() -> None:
    few = {c.case: c.split for c in split_by_patient(cases(50))}
    many = {c.case: c.split for c in split_by_patient(cases(500))}
    assert all(many[case] == split for case, split in few.items())
    sides: dict[str, set[str]] = {}
    for case in split_by_patient(cases(500)):
        sides.setdefault(case.patient, set()).add(case.split)
    assert all(len(s) == 1 for s in sides.values())


def test_the_share_is_about_what_was_asked_and_the_seed_matters() -> None:
    valid = [c for c in split_by_patient(cases(2000), share=0.3) if c.split == "valid"]
    assert abs(len(valid) / 4000 - 0.3) < 0.04
    assert {c.case for c in valid} != {
        c.case for c in split_by_patient(cases(2000), share=0.3, seed=1) if c.split == "valid"
    }


@pytest.mark.parametrize(("patients", "abnormal"), [(2, 0), (4, 2), (30, 4), (40, 4), (60, 5), (100, 10), (100, 19)])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.3, 0.5])
def test_few_patients_of_a_label_are_divided_by_their_share(patients: int, abnormal: int, share: float) -> None:
    for name in range(50):
        table = [
            Case(f"{p}/{i}", f"s{p}/{i}", f"{name}-{p}", int(p < abnormal and i == 1))
            for p in range(patients)
            for i in range(2)
        ]
        held = held_out_patients(table, share, seed=1)
        ill = {case.patient for case in table if case.label}
        for stratum in (ill, {case.patient for case in table} - ill):
            if 2 <= len(stratum) < 20:
                expected = min(max(round(share * len(stratum)), 1), len(stratum) - 1)
                assert len(held & stratum) == expected
            elif len(stratum) >= 20:
                assert 0 < len(held & stratum) < len(stratum)
    alone = [Case("a", "a", "ill", 1), *(Case(f"{p}", f"{p}", f"p{p}", 0) for p in range(30))]
    assert "ill" not in held_out_patients(alone, 0.3)  # one patient cannot be on both sides


def test_the_draw_is_the_same_on_every_machine() -> None:
    # sha256("0:patient00001") begins with these eight bytes.
    import hashlib

    expected = int(hashlib.sha256(b"0:patient00001").hexdigest()[:16], 16) / 2**64
    assert draw("patient00001", 0) == expected


@pytest.mark.parametrize("k", [2, 3, 5])
def test_folds_keep_patients_together_and_spread_the_abnormal_ones(k: int) -> None:
    # A third of the patients is abnormal, each with a normal study as well.
    table = [
        Case(f"{p}/{i}", f"s{p}/{i}", f"p{p}", int(i == 1 and p % 3 == 0)) for p in range(61) for i in range(1 + p % 4)
    ]
    fold = patient_folds(table, k, seed=4)
    owners: dict[str, set[int]] = {}
    for case, number in zip(table, fold, strict=True):
        owners.setdefault(case.patient, set()).add(number)
    assert all(len(folds) == 1 for folds in owners.values())
    assert set(fold) == set(range(k))
    ill = {case.patient for case in table if case.label}
    for patients in (ill, set(owners)):
        counts = [sum(owners[p] == {number} for p in patients) for number in range(k)]
        assert max(counts) - min(counts) <= 1 + (patients == set(owners))
    assert patient_folds(list(reversed(table)), k, seed=4) == list(reversed(fold))
    assert patient_folds(table, k, seed=5) != fold


def test_one_fold_is_none() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        patient_folds(cases(3), 1)
