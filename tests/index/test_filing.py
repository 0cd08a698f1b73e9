"""What readers change, and can undo: one transaction each, found by the next search, forgotten with its patient."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.case import Case
from index.errors import IndexFailure
from index.filing import FilingWriter
from index.reader import IndexReader

Sample = tuple[list[Case], NDArray[np.float32], list[bytes], NDArray[np.float32]]
Content = dict[str, tuple[Case, bytes, float, bytes]]


def study_of(sample: Sample, name: str = "new", patient: str = "patient99") -> Sample:
    """A study of two cases whose files are not indexed."""
    cases = [
        replace(sample[0][n], case=f"{name}/{n}", study=name, patient=patient, label=1, digest=f"{n + 900:064x}")
        for n in range(2)
    ]
    return cases, sample[1][:2], sample[2][:2], sample[3][:2]


def content(place: Path) -> Content:
    with IndexReader.open(place) as reader:
        assert reader.verify() is True
        rows = [
            (case, vector.tobytes(), float(logit), picture)
            for batch in reader.batches()
            for case, vector, logit, picture in zip(
                batch.cases, batch.embeddings, batch.logits, batch.thumbnails, strict=True
            )
        ]
        assert reader.size()[0] == len(rows)
        return {row[0].case: row for row in rows}


def file_new(writer: FilingWriter, sample: Sample) -> int:
    return writer.file(*study_of(sample), note="plate seen").generation


def correct(writer: FilingWriter, sample: Sample) -> int:
    filed = writer.correct("study3", 0, "second reading")
    assert filed is not None
    assert (filed.former, filed.label, filed.note) == ("abnormal", "normal", "second reading")
    return filed.generation


def set_aside(writer: FilingWriter, sample: Sample) -> int:
    return writer.set_aside("study3", "two patients on one film").generation


CHANGES = pytest.mark.parametrize(
    ("change", "action"), [(file_new, "file"), (correct, "relabel"), (set_aside, "set-aside")]
)


@CHANGES
def test_each_change_is_one_entry_and_undone_leaves_what_was(
    place: Path, sample: Sample, change: Callable[[FilingWriter, Sample], int], action: str
) -> None:
    before = content(place)
    with FilingWriter.open(place) as writer:
        generation = change(writer, sample)
    changed = content(place)
    assert changed != before
    with IndexReader.open(place) as reader:
        assert [entry["action"] for entry in reader.history()] == ["add", action]
        assert [(filed.generation, filed.action) for filed in reader.filed()] == [(generation, action)]
    with FilingWriter.open(place) as writer:
        assert writer.undo().generation == generation
        with pytest.raises(IndexFailure, match="there is nothing to undo"):
            writer.undo()
    assert content(place) == before
    with IndexReader.open(place) as reader:
        assert [entry["action"] for entry in reader.history()] == ["add", action, "undo"]
        assert reader.filed() == []
        assert reader.set_aside() == []


def test_an_open_reader_finds_each_change_in_its_next_search(place: Path, sample: Sample) -> None:
    asked = study_of(sample)[1][:1]
    with IndexReader.open(place) as reader, FilingWriter.open(place) as writer:
        writer.file(*study_of(sample))
        assert "new" in {hit.case.study for hit in reader.search(asked, 50)[0]}
        writer.set_aside("new", "a mistake")
        assert "new" not in {hit.case.study for hit in reader.search(asked, 50)[0]}
        assert [(case.study, reason) for case, reason in reader.set_aside()] == [("new", "a mistake")] * 2
        writer.undo()
        writer.correct("new", 0)
        assert {hit.case.label for hit in reader.search(asked, 50)[0] if hit.case.study == "new"} == {0}


def test_what_is_refused_changes_nothing(place: Path, sample: Sample) -> None:
    before = content(place)
    cases, embeddings, thumbnails, logits = study_of(sample)
    with FilingWriter.open(place) as writer:
        for changed, words in (
            ([replace(case, study="study3") for case in cases], "holds a study study3 already"),
            ([replace(case, digest=sample[0][7].digest) for case in cases], "correct the label of that study"),
        ):
            with pytest.raises(IndexFailure, match=words):
                writer.file(changed, embeddings, thumbnails, logits)
        with pytest.raises(IndexFailure, match="no study nowhere"):
            writer.correct("nowhere", 1)
        with pytest.raises(IndexFailure, match="no study nowhere"):
            writer.set_aside("nowhere", "why")
        assert writer.correct("study3", 1) is None
        with pytest.raises(IndexFailure, match="change 1 cannot be undone"):
            writer.undo(1)
    assert content(place) == before


def test_a_change_is_not_undone_over_a_later_one(place: Path, sample: Sample) -> None:
    with FilingWriter.open(place) as writer:
        first = writer.correct("study3", 0)
        second = writer.correct("study3", 1)
        assert first is not None
        assert second is not None
        with pytest.raises(IndexFailure, match="study study3 was changed since; undo the later change first"):
            writer.undo(first.generation)
        writer.undo(second.generation)
        writer.undo(first.generation)
    assert content(place)["train/study3/image3.png"][0] == sample[0][3]


@pytest.mark.parametrize("where", [{"study": ["zyx-study"]}, {"patient": ["zyx-patient"]}])
def test_nothing_of_a_removed_study_stays_in_what_could_be_undone(
    place: Path, sample: Sample, where: dict[str, list[str]]
) -> None:
    with FilingWriter.open(place) as writer:
        writer.file(*study_of(sample, "zyx-study", "zyx-patient"), note="zyx-note")
        writer.correct("zyx-study", 0, "zyx-note")
        writer.set_aside("zyx-study", "zyx-reason")
        writer.correct("study4", 1)
    with FilingWriter.open(place) as writer:
        assert len(writer.remove(where)) == 2
    with IndexReader.open(place) as reader:
        assert [filed.study for filed in reader.filed()] == ["study4"]
    assert not any(b"zyx" in file.read_bytes() for file in place.rglob("*") if file.is_file())
