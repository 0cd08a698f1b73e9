"""A search by study gives what the definition says, whatever is filtered, excluded, and changed meanwhile."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.case import Case
from index.errors import IndexBusy
from index.generation import Generation
from index.hits import Hit
from index.reader import IndexReader
from index.sqlite.reader import CaseReader
from index.writer import IndexWriter
from tests.index.contents import Sample, oracle

Write = Callable[[Path, Sample], Path]


filters = st.fixed_dictionaries(
    {},
    optional={
        "part": st.lists(st.sampled_from(["finger", "wrist", "élbow", "knee"]), max_size=3),
        "view": st.lists(st.sampled_from(["pa", "lateral", ""]), max_size=3),
        "label": st.lists(st.sampled_from(["normal", "abnormal"]), max_size=2),
        "study": st.lists(st.integers(0, 30).map("study{}".format), min_size=1, max_size=20),
        "case": st.lists(st.just("train/study0/image0.png"), min_size=1, max_size=1),
    },
)


# A patient of the index, or one it does not know.
patients = st.sets(st.integers(0, 20).map("patient{}".format), max_size=8)


@given(st.data(), st.integers(1, 40), filters)
@settings(max_examples=200, deadline=None)
def test_search_gives_the_definition(
    template: Path, sample: Sample, data: st.DataObject, k: int, where: dict[str, list[str]]
) -> None:
    Q = data.draw(st.integers(0, 4))
    rows = data.draw(st.lists(st.integers(0, 59), min_size=Q, max_size=Q))
    queries = sample[1][rows]
    excluded = data.draw(st.none() | st.lists(patients, min_size=Q, max_size=Q))
    with IndexReader.open(template) as folder:
        found = folder.search(queries, k, where=where, exclude_patients=excluded)
    assert found == [
        oracle(sample, query, k, where, patients)
        for query, patients in zip(queries, excluded or [set[str]()] * Q, strict=True)
    ]


@pytest.mark.parametrize("N", [0, 1, 2])
def test_tiny_indexes(tmp_path: Path, write_index: Write, sample: Sample, N: int) -> None:
    cases, embeddings, thumbnails, logits = sample
    few = cases[:N], embeddings[:N], thumbnails[:N], logits[:N]
    with IndexReader.open(write_index(tmp_path / "few", few)) as folder:
        assert folder.search(embeddings[:3], 5) == [oracle(few, query, 5, {}, set()) for query in embeddings[:3]]
        assert folder.embeddings().shape == (N, 8)
        assert folder.info()["cases"] == N
        assert folder.info()["labels"] == {"normal": (N + 1) // 2, "abnormal": N // 2}


def test_ties_go_by_the_order_of_indexing_and_a_study_is_found_once(tmp_path: Path, write_index: Write) -> None:
    rows = [("c1", "s2", 0.6), ("c2", "s10", 0.6), ("c3", "s2", 0.6), ("c4", "s3", 0.8), ("c5", "s10", 0.0)]
    cases = [Case(case, study, f"p{study}", 1) for case, study, _ in rows]
    vectors = np.array([[x, np.sqrt(1 - x * x)] for _, _, x in rows], dtype=np.float32)
    place = write_index(tmp_path / "i", (cases, vectors, [b"x"] * 5, np.zeros(5, np.float32)))
    with IndexReader.open(place) as folder:
        (found,) = folder.search(np.array([[1, 0]], dtype=np.float32), 9)
    assert [(hit.case.case, round(hit.similarity, 6)) for hit in found] == [("c4", 0.8), ("c1", 0.6), ("c2", 0.6)]


def test_wrong_questions_are_refused(template: Path, sample: Sample) -> None:
    query = sample[1][:1]
    with IndexReader.open(template) as folder:
        for wrong in (query[0], query[:, :7], 2 * query, np.nan * query):
            with pytest.raises(ValueError, match="embedding"):
                folder.search(wrong, 5)
        with pytest.raises(ValueError, match="at least 1"):
            folder.search(query, 0)
        with pytest.raises(ValueError, match="no field 'colour'"):
            folder.search(query, 5, where={"colour": ["grey"]})
        with pytest.raises(ValueError, match="collection of strings"):
            folder.search(query, 5, where={"part": "finger"})
        with pytest.raises(ValueError, match="normal or abnormal"):
            folder.search(query, 5, where={"label": ["positive"]})
        wrong_exclusions: list[Sequence[Collection[str]]] = [[], [[], []], ["patient1"]]
        for exclusions in wrong_exclusions:
            with pytest.raises(ValueError, match="1 collections of patients"):
                folder.search(query, 5, exclude_patients=exclusions)


def test_several_threads_may_read(template: Path, sample: Sample) -> None:
    cases, embeddings, thumbnails, _ = sample
    with IndexReader.open(template) as folder, ThreadPoolExecutor(8) as pool:

        def ask(row: int) -> tuple[list[Hit], bytes | None]:
            hits = folder.search(embeddings[row : row + 1], 4, where={"label": [cases[row].label_name]})
            return hits[0], folder.thumbnail(cases[row].case)

        found = list(pool.map(ask, [*range(60)] * 4))
    expected = [
        (oracle(sample, embeddings[row], 4, {"label": [cases[row].label_name]}, set()), thumbnails[row])
        for row in range(60)
    ]
    assert found == expected * 4


@pytest.mark.parametrize("few", [0, 3, 1000])
def test_however_many_are_excluded(template: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """A few are asked for and left out afterwards, more are masked: the answers are the same."""
    monkeypatch.setattr("index.generation.FEW", few)
    cases, embeddings = sample[:2]
    rng = np.random.default_rng(few)
    known = sorted({case.patient for case in cases})
    with IndexReader.open(template) as folder:
        for row in range(60):
            excluded = {*rng.choice(known, rng.integers(0, 16)).tolist(), "nobody"}
            for where in ({}, {"part": ["finger", "wrist"]}):
                (found,) = folder.search(embeddings[row : row + 1], 5, where=where, exclude_patients=[excluded])
                assert found == oracle(sample, embeddings[row], 5, where, excluded)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("remembered", [False, True])
def test_a_change_in_the_midst_of_a_search(
    place: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch, when: str, remembered: bool
) -> None:
    """A search finds the whole state of the moment at which it last asks cases.sqlite; the next finds the newest."""
    query, other = sample[1][:1], [["nobody"]]
    with IndexReader.open(place) as folder:
        (before,) = folder.search(query, 25, exclude_patients=other)
        if not remembered:
            folder._generation.shown.clear()
        gone = before[0].case.study
        rows_of = CaseReader.rows_of

        def changed(reader: CaseReader, patients: Collection[str]) -> tuple[int, list[int]]:
            monkeypatch.undo()
            found = rows_of(reader, patients) if when == "after" else None
            with IndexWriter.open(place) as edit:
                edit.remove({"study": [gone]})
            return found or rows_of(reader, patients)

        monkeypatch.setattr(CaseReader, "rows_of", changed)
        (found,) = folder.search(query, 25, exclude_patients=other)
        (after,) = folder.search(query, 25, exclude_patients=other)
        assert gone not in {hit.case.study for hit in after}
        assert len(after) == len(before) - 1
        assert found == (before if when == "after" and remembered else after)


def test_an_index_that_changes_in_every_search_is_busy(
    place: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of, labels = CaseReader.rows_of, iter([0, 1] * 40)

    def changed(reader: CaseReader, patients: Collection[str]) -> tuple[int, list[int]]:
        with IndexWriter.open(place) as writer:
            writer.relabel("study1", next(labels))
        return rows_of(reader, patients)

    with IndexReader.open(place) as reader:
        monkeypatch.setattr(CaseReader, "rows_of", changed)
        with pytest.raises(IndexBusy, match="changes faster than it can be searched"):
            reader.search(sample[1][:1], 3, exclude_patients=[["nobody"]])


def test_what_is_kept_in_memory_is_bounded(template: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.hits.REMEMBERED", 5)
    monkeypatch.setattr("index.generation.MASKS", 2)
    with IndexReader.open(template) as reader:
        for row in range(60):
            where = {"study": [f"study{row % 25}", "study3"], "part": ["finger", "wrist", "élbow"][: 1 + row % 3]}
            (found,) = reader.search(sample[1][row : row + 1], 4, where=where)
            assert found == oracle(sample, sample[1][row], 4, where, set())
            assert len(reader._generation.shown) <= 5 + 4
            assert isinstance(reader._generation, Generation)
            assert len(reader._generation._masks) <= 2
