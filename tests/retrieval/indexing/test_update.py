import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from index.errors import IndexFailure
from index.reader import IndexReader
from index.writer import IndexWriter
from retrieval.datasets.collection import Collection
from retrieval.errors import CollectionError
from retrieval.evaluation.evaluate import evaluate
from retrieval.indexing.build import build_index
from retrieval.indexing.update import add_to_index, require_same_key, update_index
from retrieval.searcher import Searcher

Squares = Callable[..., Collection]
FIRST = [("p1", "s1", 0, [40, 50]), ("p2", "s2", 1, [200])]
SECOND = [("p3", "s3", 0, [60]), ("p4", "s4", 1, [210, 220])]


@pytest.fixture
def first(squares: Squares) -> Collection:
    return squares(FIRST)


@pytest.fixture
def place(first: Collection, model: Path, tmp_path: Path) -> Path:
    build_index(first, tmp_path / "index", model=model)
    return tmp_path / "index"


def held(place: Path) -> list[tuple[str, str, int]]:
    with IndexReader.open(place) as folder:
        folder.verify()
        return [(case.case, case.study, case.label) for case in folder.cases()]


def test_an_index_that_grew_is_the_one_that_was_built_at_once(squares: Squares, model: Path, tmp_path: Path) -> None:
    whole = squares(FIRST + SECOND, "whole")
    build_index(whole, tmp_path / "at once", model=model)
    build_index(replace(whole, cases=whole.cases[:3]), tmp_path / "grown", model=model)
    seen: list[tuple[int, int]] = []
    report = add_to_index(whole, tmp_path / "grown", progress=lambda done, total: seen.append((done, total)))
    assert (report.added, len(report.known), report.refused) == (3, 3, ())
    assert seen[-1] == (6, 6)
    assert held(tmp_path / "grown") == held(tmp_path / "at once")
    with IndexReader.open(tmp_path / "grown") as grown, IndexReader.open(tmp_path / "at once") as built:
        assert grown.embeddings() == pytest.approx(built.embeddings(), abs=1e-6)
        assert grown.logits() == pytest.approx(built.logits(), abs=1e-5)
        assert grown.metadata("rules") == built.metadata("rules")  # too few studies to learn others


def test_what_is_added_is_found(squares: Squares, place: Path, square: Callable[..., Path]) -> None:
    add_to_index(squares(SECOND, "new"), place)
    with Searcher.open(place) as searcher:
        assert searcher.search(square("query.png", 62)).cases[0].study == "s3"


def test_the_same_bytes_are_not_added_twice(first: Collection, place: Path) -> None:
    before = held(place)
    copies = tuple(replace(case, case=f"copy/{case.case}", study="copy") for case in first.cases)
    for collection in (first, replace(first, cases=copies)):
        report = add_to_index(collection, place)
        assert report.added == 0
        assert [indexed for _, indexed in report.known] == ["s1-1.png", "s1-2.png", "s2-1.png"]
    assert held(place) == before
    with IndexReader.open(place) as folder:
        assert folder.info()["generation"] == 1


def test_two_equal_files_of_one_collection_are_added_once(squares: Squares, place: Path) -> None:
    new = squares([("p3", "s3", 0, [60])], "new")
    twin = replace(new.cases[0], case="twin.png", study="twin")
    report = add_to_index(replace(new, cases=(*new.cases, twin)), place)
    assert (report.added, report.known) == (1, (("twin.png", "s3-1.png"),))


def test_what_cannot_be_added_is_refused_and_the_others_go_on(squares: Squares, place: Path) -> None:
    new = squares([("p3", "s3", 0, [60, 70, 80, 90])], "new")
    first, second, third, fourth = new.cases
    Path(second.path).write_bytes(b"not a picture")
    cases = (
        first,
        second,
        replace(third, case="s1-1.png"),
        replace(fourth, study="s2", patient="p2", label=0),
        replace(first, case="gone.png", path="/nowhere/gone.png"),
    )
    report = add_to_index(replace(new, cases=cases), place)
    assert report.added == 1
    refused = dict(report.refused)
    assert set(refused) == {"s3-2.png", "s1-1.png", "s3-4.png", "gone.png"}
    assert "of this name is indexed" in refused["s1-1.png"]
    assert "study s2 is indexed as abnormal" in refused["s3-4.png"]
    assert "No such file" in refused["gone.png"]
    assert [case for case, _, _ in held(place)] == ["s1-1.png", "s1-2.png", "s2-1.png", "s3-1.png"]


def test_an_interrupted_addition_goes_on(squares: Squares, place: Path) -> None:
    new = squares([(f"p{n}", f"s{n}", n % 2, [n]) for n in range(100, 150)], "new")

    def interrupt(done: int, _: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"16 of 50 radiographs are done; the same command continues"):
        add_to_index(new, place, progress=interrupt)
    report = add_to_index(new, place)
    assert (report.added, len(report.known)) == (34, 16)
    assert len(held(place)) == 53


def test_an_open_searcher_notices_what_changes(
    squares: Squares, place: Path, model: Path, square: Callable[..., Path]
) -> None:
    query = square("query.png", 62)
    with Searcher.open(place) as searcher:
        assert searcher.search(query).cases[0].study == "s1"
        encoder = searcher.encoder
        add_to_index(squares(SECOND, "new"), place)
        answer = searcher.search(query)
        assert (answer.cases[0].study, answer.index.cases) == ("s3", 6)
        with IndexWriter.open(place) as edit:
            edit.remove({"patient": ["p3"]})
        answer = searcher.search(query, patient="p3")
        assert answer.cases[0].study == "s1"
        assert "the index holds no patient p3" in answer.warnings
        assert searcher.encoder is encoder
        build_index(squares([("p9", "s9", 1, [190])], "other"), place, model=model, replace=True)
        answer = searcher.search(query)
        assert ([case.study for case in answer.cases], answer.index.cases) == (["s9"], 1)
        shutil.rmtree(place)
        assert [case.study for case in searcher.search(query).cases] == ["s9"]  # it still has what it opened


def test_indexes_of_two_site_keys_are_not_mixed() -> None:
    require_same_key({"site": "a"}, {"site": "a"})
    require_same_key({}, {"layout": "mura"})
    for other in ({"site": "b"}, {}):
        with pytest.raises(CollectionError, match="different site keys"):
            require_same_key({"site": "a"}, other)


def test_an_index_that_synthetic_radiographs_were_added_to_says_so(
    squares: Squares, place: Path, model: Path, tmp_path: Path, square: Callable[..., Path]
) -> None:
    with Searcher.open(place) as searcher:
        assert not searcher.source.synthetic
        add_to_index(squares(SECOND, "drawn", synthetic=True), place)
        answer = searcher.search(square("query.png", 62))
        assert answer.index.synthetic
        assert any("holds synthetic radiographs" in warning for warning in answer.warnings)
        assert searcher.layout == "csv"  # all else that is known of the collection stays
    shutil.rmtree(place)
    build_index(squares(FIRST, "again"), place, model=model)
    build_index(squares(SECOND, "others", synthetic=True), tmp_path / "other", model=model)
    assert CliRunner().invoke(app, ["index", "merge", str(tmp_path / "other"), "--index", str(place)]).exit_code == 0
    with Searcher.open(place) as searcher:
        assert searcher.source.synthetic


def test_a_patient_of_a_merged_hospital_is_left_out_under_either_name(
    squares: Squares, place: Path, model: Path, tmp_path: Path, square: Callable[..., Path]
) -> None:
    build_index(
        squares([("p1", "north 1", 0, [61]), ("p9", "north 9", 1, [220])], "north"), tmp_path / "n", model=model
    )
    with IndexReader.open(tmp_path / "n") as north, IndexWriter.open(place) as edit:
        edit.merge(north, "north/")
    with Searcher.open(place) as searcher:
        assert searcher.prefixes == ["north/"]
        answer = searcher.search(square("query.png", 62), patient="p1")
        assert answer.query.excluded_patients == ("north/p1", "p1")
        assert "patient north/p1 is left out, who may be the same: merged with the prefix north/" in answer.warnings
        assert {case.study for case in answer.cases} == {"s2", "north/north 9"}
        others = squares([("p7", "s7", 0, [70]), ("p8", "s8", 1, [230])], "others")
        assert any(
            "merged with a prefix" in note and note.endswith("(north/)")
            for note in evaluate(searcher, others, rounds=5).notes
        )


def corrected(collection: Collection, study: str, **changes: object) -> Collection:
    cases = (replace(case, **changes) if case.study == study else case for case in collection.cases)  # type: ignore[arg-type]
    return replace(collection, cases=tuple(cases))


def test_known_radiographs_whose_records_differ_are_named(first: Collection, place: Path) -> None:
    before = held(place)
    wrong = corrected(first, "s1", label=1, patient="Jane", view="")
    report = add_to_index(wrong, place)
    assert (report.added, len(report.known)) == (0, 3)
    words = "patient is p1 in the index, Jane here; label is normal in the index, abnormal here"
    assert report.differing == (("s1-1.png", words), ("s1-2.png", words))
    assert report.to_dict()["differing"] == [{"case": case, "difference": words} for case, words in report.differing]
    assert held(place) == before


def test_two_rows_of_the_same_bytes_that_differ_are_named(squares: Squares, place: Path) -> None:
    new = squares([("p3", "s3", 0, [60])], "new")
    again = replace(new.cases[0], case="again.png", label=1)
    report = add_to_index(replace(new, cases=(*new.cases, again)), place)
    assert (report.added, report.known) == (1, (("again.png", "s3-1.png"),))
    assert report.differing == (("again.png", "label is normal in the index, abnormal here"),)


def test_corrections_are_taken_over_without_encoding(
    first: Collection, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("retrieval.encoding.encoder.Encoder.open", lambda *_: pytest.fail("nothing is encoded"))
    moved = tmp_path / "moved"
    shutil.copytree(first.root, moved)
    cases = tuple(replace(case, path=str(moved / case.case), view="", part="") for case in first.cases)
    new = corrected(replace(first, root=moved, cases=cases), "s1", label=1, laterality="left", split="train")
    report = update_index(new, place)
    assert (report.updated, report.same, report.refused) == (3, 0, ())
    again = update_index(new, place)
    assert (again.updated, again.same) == (0, 3)
    with IndexReader.open(place) as reader:
        assert reader.verify()
        one, _, last = reader.cases()
        assert (one.label, one.laterality, one.split, one.path) == (1, "left", "train", str(moved / "s1-1.png"))
        assert (one.view, one.part) == ("view 1", "finger")  # an empty field changes nothing
        assert (last.label, last.path) == (1, str(moved / "s2-1.png"))
        assert [entry["action"] for entry in reader.history()] == ["add", "update"]


def test_a_table_without_patients_and_studies_does_not_change_them(first: Collection, place: Path) -> None:
    """Such a table names each radiograph's study and patient after its file."""
    cases = tuple(replace(case, study=case.case, patient=case.case, label=0) for case in first.cases)
    report = update_index(replace(first, cases=cases), place)
    assert (report.updated, report.same) == (1, 2)
    assert [case.study for case in IndexReader.open(place).cases()] == ["s1", "s1", "s2"]


def test_corrections_that_cannot_be_taken_over(squares: Squares, first: Collection, place: Path) -> None:
    one, two, three = first.cases
    Path(three.path).unlink()  # it is known by its name
    unknown = squares([("p9", "s9", 0, [99])], "new").cases[0]
    rows = (one, two, replace(three, label=0), replace(one, case="copy.png", view="other"), unknown)
    report = update_index(replace(first, cases=rows), place)
    assert (report.updated, report.same) == (1, 2)
    assert [case for case, _ in report.refused] == ["copy.png", "s9-1.png"]
    with pytest.raises(IndexFailure, match="correct all radiographs of that study"):
        update_index(replace(first, cases=(replace(two, patient="Jane"),)), place)
    assert update_index(
        replace(first, cases=(replace(one, label=1, case="s1-1.png"), replace(two, label=1))), place
    ).updated


def test_an_index_that_holds_a_file_twice(first: Collection, place: Path, model: Path, tmp_path: Path) -> None:
    with IndexWriter.open(place) as writer, IndexReader.open(place) as reader:
        (batch,) = reader.batches()
        twice = replace(batch.cases[0], case="twice.png")
        writer.add([twice], batch.embeddings[:1], batch.thumbnails[:1], batch.logits[:1])
    other = replace(first.cases[0], case="elsewhere.png", view="other")
    report = update_index(replace(first, cases=(other,)), place)
    assert report.refused == (("elsewhere.png", "the index holds it 2 times, under other names"),)
    assert update_index(replace(first, cases=(replace(other, case="twice.png"),)), place).updated == 1


def test_corrections_of_a_merged_index_keep_its_prefix(
    squares: Squares, place: Path, model: Path, tmp_path: Path
) -> None:
    """Two hospitals use the same names for different people."""
    north = squares([("p1", "s1", 0, [60, 65])], "north")
    build_index(north, tmp_path / "other", model=model)
    with IndexWriter.open(place) as writer, IndexReader.open(tmp_path / "other") as other:
        writer.merge(other, "north/")
    assert add_to_index(north, place).differing == ()
    assert update_index(corrected(north, "s1", label=1), place).updated == 2
    with IndexReader.open(place) as reader:
        labels = {(case.study, case.patient): case.label for case in reader.cases()}
    assert labels == {("s1", "p1"): 0, ("s2", "p2"): 1, ("north/s1", "north/p1"): 1}
