"""An index as a table, and an index again."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.errors import IndexBusy, IndexFailure
from index.export import write_parquet
from index.reader import IndexReader
from retrieval.datasets.collection import Collection
from retrieval.indexing.build import build_index
from retrieval.indexing.exchange import import_index, write_csv
from retrieval.searcher import Searcher

Squares = Callable[..., Collection]
STUDIES = [("p1", "s1", 0, [40, 50]), ("p2", "s2", 1, [200]), ("p3", "s3", 0, [60]), ("p4", "s4", 1, [210, 220])]


@pytest.fixture
def place(squares: Squares, model: Path, tmp_path: Path) -> Path:
    build_index(squares(STUDIES, synthetic=True), tmp_path / "index", model=model)
    return tmp_path / "index"


def test_an_imported_index_is_the_exported_one(
    place: Path, model: Path, tmp_path: Path, square: Callable[..., Path]
) -> None:
    with IndexReader.open(place) as reader:
        write_parquet(reader, tmp_path / "all.parquet")
    steps: list[tuple[int, int]] = []
    source, target = tmp_path / "all.parquet", tmp_path / "copy"
    report = import_index(source, target, model=model, progress=lambda *step: steps.append(step))
    assert (report.cases, report.studies, report.patients, report.synthetic) == (6, 4, 4, True)
    assert steps == [(6, 6)]
    with IndexReader.open(place) as first, IndexReader.open(target) as second:
        assert second.verify()
        assert first.cases() == second.cases()
        assert np.array_equal(first.embeddings(), second.embeddings())
        assert np.array_equal(first.logits(), second.logits())
        assert first.all_metadata() == second.all_metadata()
        assert first.thumbnail("s1-1.png") == second.thumbnail("s1-1.png")
    answers = []
    for index in (place, target):
        with Searcher.open(index) as searcher:
            answers.append(searcher.search(square("query.png", 62)))
    assert answers[0].cases == answers[1].cases
    with pytest.raises(IndexBusy, match="--replace"):
        import_index(source, target, model=model)
    assert import_index(source, target, model=model, replace=True).cases == 6


def test_an_export_of_another_model_is_refused(place: Path, tmp_path: Path) -> None:
    with IndexReader.open(place) as reader:
        write_parquet(reader, tmp_path / "all.parquet")
    with pytest.raises(IndexFailure, match="name its model with --model"):
        import_index(tmp_path / "all.parquet", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_index_as_a_table(squares: Squares, model: Path, tmp_path: Path) -> None:
    collection = squares(STUDIES)
    quoted = replace(collection.cases[0], view='=a, "b"')
    build_index(replace(collection, cases=(quoted, *collection.cases[1:])), tmp_path / "index", model=model)
    with IndexReader.open(tmp_path / "index") as reader:
        assert write_csv(reader, tmp_path / "all.csv") == 6
        embeddings, logits = reader.embeddings(), reader.logits()
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == [case.case for case in collection.cases]
    assert [row["label"] for row in rows] == [case.label_name for case in collection.cases]
    assert rows[0]["view"] == '\'=a, "b"'
    assert np.array_equal(np.array([row["logit"] for row in rows], np.float32), logits)
    numbers = [[row[f"e{n}"] for n in range(embeddings.shape[1])] for row in rows]
    assert np.array_equal(np.array(numbers, np.float32), embeddings)
    with IndexReader.open(tmp_path / "index") as reader, pytest.raises(IndexFailure, match="cannot be written"):
        write_csv(reader, tmp_path / "nowhere" / "all.csv")
