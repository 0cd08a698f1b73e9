import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.frozen import FrozenReader
from index.reader import IndexReader
from index.sqlite.reader import CaseReader
from index.writer import IndexWriter
from tests.index.contents import Sample

Write = Callable[[Path, Sample], Path]


def test_everything_comes_back_as_it_was_added(template: Path, sample: Sample, model: Path) -> None:
    cases, embeddings, thumbnails, logits = sample
    with IndexReader.open(template) as folder:
        assert folder.cases() == cases
        assert folder.embeddings().tobytes() == embeddings.tobytes()
        assert folder.logits().tobytes() == logits.tobytes()
        assert [folder.thumbnail(case.case) for case in cases] == thumbnails
        assert folder.thumbnail("no such case") is None
        np.testing.assert_array_equal([folder.embedding(case.case) for case in cases], embeddings)
        assert folder.embedding("no such case") is None
        assert folder.find_digest(cases[3].digest) == [cases[3], cases[58]]
        assert folder.find_digest("0") == folder.find_digest("") == []
        assert folder.metadata("rules") == {"k": 15, "source": "a sentence"}
        assert folder.metadata("never set") is None
        assert folder.path == template
        for name in ("model.json", "parts/encoder.onnx"):
            assert (folder.model / name).read_bytes() == (model / name).read_bytes()


def test_info(template: Path, sample: Sample) -> None:
    cases = sample[0]
    with IndexReader.open(template) as folder:
        info = folder.info()
    assert str(info.pop("created")).endswith("+00:00")
    parts = [case.part for case in cases]
    assert info == {
        "cases": 60,
        "studies": 25,
        "patients": 15,
        "parts": {part: parts.count(part) for part in ("finger", "wrist", "élbow")},
        "labels": {"normal": 60 - sum(c.label for c in cases), "abnormal": sum(c.label for c in cases)},
        "quarantined": 0,
        "store": {"kind": "faiss-flat", "dimension": 8, "vectors": 60, "exact": True},
        "generation": 1,
        "schema": 5,
        "sealed": True,
    }


def test_labels(place: Path, sample: Sample) -> None:
    with IndexReader.open(place) as reader:
        assert reader.labels() == FrozenReader(reader).labels() == ("normal", "abnormal")
        with IndexWriter.open(place) as writer:
            writer.remove({"study": [case.study for case in sample[0] if not case.label]})
        assert reader.labels() == FrozenReader(reader).labels() == ("abnormal",)


def test_reading_changes_nothing(place: Path, sample: Sample) -> None:
    before = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in place.rglob("*")}
    with IndexReader.open(place) as folder:
        folder.search(sample[1], 3)
        folder.thumbnail(sample[0][0].case)
        folder.info()
    assert before == {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in place.rglob("*")
    }


def test_a_picture_whose_case_is_removed_at_this_moment_is_none(
    tmp_path: Path, write_index: Write, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, case = write_index(tmp_path / "index", sample), sample[0][0]
    with IndexReader.open(place) as folder:
        found = iter([CaseReader.rows_where(folder._database, "case", [case.case]), np.array([], np.int64)] * 2)
        with IndexWriter.open(place) as edit:
            edit.remove({"case": [case.case]})
        monkeypatch.setattr(CaseReader, "rows_where", lambda *_: next(found))
        assert folder.thumbnail(case.case) is None
        assert folder.embedding(case.case) is None


def test_a_closed_reader_is_a_mistake_of_the_caller(template: Path) -> None:
    reader = IndexReader.open(template)
    reader.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        reader.counts("part")
