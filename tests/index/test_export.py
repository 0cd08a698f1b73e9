from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.case import Case
from index.errors import IndexFailure
from index.export import write_parquet
from index.reader import IndexReader
from index.writer import IndexWriter

Sample = tuple[list[Case], NDArray[np.float32], list[bytes], NDArray[np.float32]]


def test_another_program_reads_what_was_indexed(place: Path, sample: Sample, tmp_path: Path) -> None:
    """Pandas is the other program."""
    import pandas

    cases, embeddings, _, logits = sample
    with IndexWriter.open(place) as edit:
        edit.remove({"patient": ["patient3"]})
    kept = [n for n, case in enumerate(cases) if case.patient != "patient3"]
    seen: list[tuple[int, int]] = []
    with IndexReader.open(place) as folder:
        count = write_parquet(folder, tmp_path / "all.parquet", progress=lambda done, total: seen.append((done, total)))
    table = pandas.read_parquet(tmp_path / "all.parquet")
    assert count == len(table) == len(kept)
    assert seen[-1] == (count, count)
    for name in ("case", "study", "patient", "label", "part", "view", "split", "path", "digest"):
        assert table[name].tolist() == [getattr(cases[n], name) for n in kept]
    assert np.stack(table["embedding"].to_list()).tobytes() == embeddings[kept].tobytes()
    assert table["logit"].to_numpy().tobytes() == logits[kept].tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "index"]


def test_a_place_that_cannot_be_written(template: Path, tmp_path: Path) -> None:
    with IndexReader.open(template) as folder, pytest.raises(IndexFailure, match="cannot be written"):
        write_parquet(folder, tmp_path / "nowhere" / "all.parquet")
    assert list(tmp_path.iterdir()) == []
