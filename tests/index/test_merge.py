"""One index merged into another."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from index.builder import IndexBuilder
from index.merge import Merged
from index.reader import IndexReader
from index.writer import IndexWriter
from tests.index.contents import Sample, assert_holds, chosen, everything_in

Write = Callable[[Path, Sample], Path]


def test_two_indexes_become_one(tmp_path: Path, write_index: Write, sample: Sample) -> None:
    north = write_index(tmp_path / "north", chosen(sample, [*range(30)]))
    south = write_index(tmp_path / "south", chosen(sample, [*range(25, 55)]))  # the first five are in both
    before = everything_in(south)
    with IndexReader.open(south) as other, IndexWriter.open(north) as edit:
        merged = edit.merge(other)
        added, known = merged.added, merged.known
    assert (added, known) == (25, [(case.case, case.case) for case in sample[0][25:30]])
    assert everything_in(south) == before
    assert_holds(north, chosen(sample, [*range(55)]))


def test_merging_twice_adds_nothing(tmp_path: Path, write_index: Write, sample: Sample) -> None:
    north = write_index(tmp_path / "north", chosen(sample, [*range(30)]))
    south = write_index(tmp_path / "south", chosen(sample, [*range(30, 55)]))
    for expected in ((25, 0), (0, 25)):
        with IndexReader.open(south) as other, IndexWriter.open(north) as edit:
            merged = edit.merge(other)
        added, known = merged.added, merged.known
        assert (added, len(known)) == expected
    assert_holds(north, chosen(sample, [*range(55)]))


def test_a_prefix_keeps_two_hospitals_apart(tmp_path: Path, write_index: Write, sample: Sample) -> None:
    cases, embeddings, thumbnails, logits = chosen(sample, [*range(20)])
    others = [replace(case, digest=f"{n + 500:064x}") for n, case in enumerate(cases)]  # other people, the same names
    north = write_index(tmp_path / "north", (cases, embeddings, thumbnails, logits))
    south = write_index(tmp_path / "south", (others, -embeddings, thumbnails, logits))
    with IndexReader.open(south) as other, IndexWriter.open(north) as edit:
        with pytest.raises(ValueError, match="already"):
            edit.merge(other)
        assert edit.cases() == cases
        assert edit.merge(other, "south/") == Merged(20, [], [])
        renamed = [
            replace(c, case=f"south/{c.case}", study=f"south/{c.study}", patient=f"south/{c.patient}") for c in others
        ]
        assert edit.cases() == [*cases, *renamed]
    with IndexReader.open(north) as folder:
        folder.verify()
        (found,) = folder.search(-embeddings[:1], 1, exclude_patients=[[cases[0].patient]])
        assert found[0].case.case.startswith("south/")


def test_embeddings_of_two_models_are_not_mixed(tmp_path: Path, place: Path, sample: Sample) -> None:
    cases, embeddings, thumbnails, logits = chosen(sample, [0])
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "model.json").write_text('{"another": 1}')
    south = tmp_path / "south"
    with IndexBuilder.start(south, model=tmp_path / "another", dimension=8, fingerprint="f") as build:
        build.add(cases, embeddings, thumbnails, logits)
        build.finish()
    with IndexReader.open(south) as other, IndexReader.open(place) as itself, IndexWriter.open(place) as edit:
        for wrong, says in ((other, "another model"), (itself, "with itself")):
            with pytest.raises(ValueError, match=says):
                edit.merge(wrong)
        assert edit.cases() == sample[0]


def test_an_index_with_a_synthetic_case_says_so(tmp_path: Path, write_index: Write, sample: Sample) -> None:
    north, south = (
        write_index(tmp_path / "north", chosen(sample, [0])),
        write_index(tmp_path / "south", chosen(sample, [1])),
    )
    with IndexWriter.open(south) as writer:
        writer.mark_synthetic()
    with IndexReader.open(south) as other, IndexWriter.open(north) as writer:
        writer.merge(other)
    with IndexReader.open(north) as reader:
        assert reader.metadata("collection") == {"synthetic": True}
    with IndexReader.open(south) as reader:
        assert reader.history()[-1]["action"] == "synthetic"


def test_a_merge_names_the_records_that_differ(tmp_path: Path, place: Path, write_index: Write, sample: Sample) -> None:
    cases, embeddings, thumbnails, logits = chosen(sample, list(range(20)))
    other = [replace(case, label=1 - case.label) if case.study == cases[0].study else case for case in cases]
    south = write_index(tmp_path / "south", (other, embeddings, thumbnails, logits))
    with IndexReader.open(south) as reader, IndexWriter.open(place) as writer:
        merged = writer.merge(reader)
        assert writer.cases() == sample[0]
    expected = [case.case for case in cases if case.study == cases[0].study]
    assert (merged.added, len(merged.known)) == (0, 20)
    assert [case for case, _ in merged.differing] == expected
    assert "label is" in merged.differing[0][1]
