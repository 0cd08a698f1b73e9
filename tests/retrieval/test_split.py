from index.case import Case
from retrieval.split import draw, split_by_patient


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


def test_the_draw_is_the_same_on_every_machine() -> None:
    # sha256("0:patient00001") begins with these eight bytes.
    import hashlib

    expected = int(hashlib.sha256(b"0:patient00001").hexdigest()[:16], 16) / 2**64
    assert draw("patient00001", 0) == expected
