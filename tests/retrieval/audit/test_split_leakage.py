"""What one split holds of another, by hand."""

from index.case import Case
from retrieval.audit.split_leakage import Leakage, leakages, verdict


def case(name: str, split: str, patient: str = "") -> Case:
    return Case(name, f"study {name}", patient or f"patient {name}", 0, split=split)


CASES = [
    case("a", "train"),
    case("b", "train", "both"),
    case("c", "valid", "both"),
    case("d", "valid"),
    case("e", "valid"),
    case("f", "valid"),
]


def test_each_way_is_counted_and_every_study_once() -> None:
    found = leakages(CASES, [("a", "c")], [("a", "d"), ("e", "f")])
    assert found == (Leakage("valid", 4, ("study c", "study d"), by_patient=1, by_file=1, by_copy=1),)
    assert verdict(found) == (
        "Do not trust figures on the valid split as they are: 2 of its 4 studies (50.0%) are tied to another split "
        "(1 by a patient, 1 by a file, 1 by a near duplicate)."
    )


def test_nothing_shared() -> None:
    clean = [one for one in CASES if one.patient != "both"]
    found = leakages(clean, [("e", "f")], [])
    assert found == (Leakage("valid", 3, (), 0, 0, 0),)
    assert verdict(found).startswith("Figures on the valid split can be trusted as far as this audit sees")


def test_copies_that_nobody_looked_for_are_not_said_to_be_absent() -> None:
    (one,) = leakages([case("a", "train"), case("b", "valid")], [], None)
    assert one.by_copy is None
    assert verdict([one]).endswith("Near duplicates were not searched: use --deep.")


def test_without_splits_nothing_leaks() -> None:
    for cases in ([case("a", ""), case("b", "")], [case("a", "train"), case("b", "train")]):
        assert leakages(cases, [("a", "b")], []) == ()
    assert verdict(()) == "Fewer than two splits are named, so there is no leakage between splits."


def test_two_splits_to_be_judged() -> None:
    cases = [case("a", "train"), case("b", "valid"), case("c", "test")]
    found = leakages(cases, [("b", "c")], [])
    assert [(one.split, one.leaking) for one in found] == [("test", ("study c",)), ("valid", ("study b",))]
    assert verdict(found).startswith("Do not trust figures on the test split and the valid split as they are: 1 of")
