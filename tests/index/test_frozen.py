"""An index as it was: a frozen reader answers as the reader did, whatever is changed later."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.builder import IndexBuilder
from index.case import Case
from index.errors import IndexBusy
from index.frozen import FrozenReader
from index.reader import IndexReader
from index.sqlite.reader import Batch
from index.writer import IndexWriter

Sample = tuple[list[Case], NDArray[np.float32], list[bytes], NDArray[np.float32]]


def change(place: Path, sample: Sample) -> None:
    """Remove a study, relabel another, and add a case."""
    cases, embeddings, thumbnails, logits = sample
    with IndexWriter.open(place) as writer:
        writer.remove({"study": [cases[0].study]})
        writer.relabel(cases[-1].study, 1 - cases[-1].label)
        new = replace(cases[0], case="new", study="new", patient="new", digest="")
        writer.add([new], embeddings[:1], thumbnails[:1], logits[:1])


def test_it_answers_as_the_reader_did(place: Path, sample: Sample) -> None:
    change(place, sample)  # so that the generation has removed rows, and rows that vectors.faiss lacks
    queries = sample[1][:20]
    with IndexReader.open(place) as reader:
        frozen = FrozenReader(reader)
        answers, cases = reader.search(queries, 5), reader.cases()
        thumbnails = {case.case: reader.thumbnail(case.case) for case in cases}
        logits, embeddings = reader.logits(), reader.embeddings()
        with IndexWriter.open(place) as writer:
            writer.remove({"patient": [case.patient for case in sample[0][:10]]})
        assert reader.search(queries, 5) != answers
        assert frozen.search(queries, 5) == answers
        assert frozen.cases() == cases
        assert {case.case: frozen.thumbnail(case.case) for case in cases} == thumbnails
        assert np.array_equal(frozen.logits(), logits)
        assert np.array_equal(frozen.embeddings(), embeddings)
        assert not frozen.refresh()
        assert not frozen.replaced()
        assert frozen.size() == (len(cases), len({case.study for case in cases}))


def test_vectors_in_milvus_are_frozen_too(tmp_path: Path, model: Path, sample: Sample) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    cases, embeddings, thumbnails, logits = sample
    place = tmp_path / "index"
    with IndexBuilder.start(place, model=model, dimension=8, fingerprint="f") as build:
        build.add(cases, embeddings, thumbnails, logits)
        build.set_metadata("store", {"kind": "milvus", "uri": str(tmp_path / "vectors.db")})
        build.finish()
    queries = embeddings[:20]
    with IndexReader.open(place) as reader:
        frozen = FrozenReader(reader)
        answers = frozen.search(queries, 5)
        found = [[hit.case.study for hit in answer] for answer in answers]
        assert found == [[hit.case.study for hit in answer] for answer in reader.search(queries, 5)]
    with IndexWriter.open(place) as writer:
        writer.remove({"patient": [case.patient for case in cases[:10]]})
    assert frozen.search(queries, 5) == answers
    assert frozen.cases() == cases


def test_a_filter_is_refused(place: Path) -> None:
    with IndexReader.open(place) as reader:
        frozen = FrozenReader(reader)
        query = reader.embeddings()[:1]
        assert frozen.search(query, 1, exclude_patients=[set()])
        for options in ({"where": {"part": ["hand"]}}, {"exclude_patients": [{"p"}]}):
            with pytest.raises(ValueError, match="no filters"):
                frozen.search(query, 1, **options)


def test_an_index_that_changes_all_the_time(place: Path, monkeypatch: pytest.MonkeyPatch, sample: Sample) -> None:
    with IndexReader.open(place) as reader:
        batches = reader.batches

        def changed_meanwhile() -> Iterator[Batch]:
            yield from batches()
            with IndexWriter.open(place) as writer:
                writer.relabel(sample[0][-1].study, 1 - reader.cases()[-1].label)

        monkeypatch.setattr("index.frozen.ATTEMPTS", 2)
        monkeypatch.setattr(reader, "batches", changed_meanwhile)
        with pytest.raises(IndexBusy, match="faster than it can be read"):
            FrozenReader(reader)
