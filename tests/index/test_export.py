import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.case import Case
from index.errors import IndexFailure
from index.export import read_parquet, write_parquet
from index.reader import IndexReader
from index.sqlite.reader import Batch, CaseReader
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


def test_an_export_is_read_again(place: Path, sample: Sample, tmp_path: Path) -> None:
    cases, embeddings, thumbnails, logits = sample
    with IndexReader.open(place) as reader:
        write_parquet(reader, tmp_path / "all.parquet")
        model = reader.model_files()
    about, count, batches = read_parquet(tmp_path / "all.parquet")
    (batch,) = batches
    assert (about["model"], about["generation"], count) == (model, 1, 60)
    assert about["values"] == {"rules": {"k": 15, "source": "a sentence"}}
    assert (batch.cases, batch.thumbnails) == (cases, thumbnails)
    assert batch.embeddings.tobytes() == embeddings.tobytes()
    assert batch.logits.tobytes() == logits.tobytes()


@pytest.mark.parametrize("content", ["nothing", "of pandas", "text", "half"])
def test_a_file_that_is_no_export(place: Path, tmp_path: Path, content: str) -> None:
    import pandas

    file = tmp_path / "all.parquet"
    if content == "of pandas":
        pandas.DataFrame({"case": ["a"]}).to_parquet(file)
    elif content == "text":
        file.write_text("case,label\n")
    elif content == "half":
        with IndexReader.open(place) as reader:
            write_parquet(reader, file)
        file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(IndexFailure, match=r"all\.parquet cannot be imported"):
        read_parquet(file)


def test_an_index_that_changes_during_an_export(
    place: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change is made at once; the file holds one generation, the later one."""
    labels, batches = iter([0]), CaseReader.batches

    def changed(reader: CaseReader, dimension: int) -> Iterator[Batch]:
        for batch in batches(reader, dimension, 7):
            for label in labels:
                with IndexWriter.open(place) as writer:
                    assert writer.relabel("study7", label) > 0
            yield batch

    monkeypatch.setattr(CaseReader, "batches", changed)
    with IndexReader.open(place) as reader:
        assert write_parquet(reader, tmp_path / "all.parquet") == 60
    about, _, read = read_parquet(tmp_path / "all.parquet")
    assert about["generation"] == 2
    assert {case.label for batch in read for case in batch.cases if case.study == "study7"} == {0}


def test_texts_and_extras_go_with_their_case(place: Path, sample: Sample, tmp_path: Path) -> None:
    cases, embeddings, thumbnails, logits = sample
    named = [
        replace(cases[n], case=f"new/{n}", digest=f"new{n}", finding="fracture; plate", report="A line.\n")
        for n in (0, 1)
    ]
    target = shutil.copytree(place, tmp_path / "target")
    with IndexWriter.open(place) as writer:
        extras = {"measures": [b"m0", b""], "projection": [b"p0", b"p1"]}
        writer.add(named, embeddings[:2], thumbnails[:2], logits[:2], extras)
        writer.put("regions", {"new/1": b"r1", cases[0].case: b"r0"})
    with IndexReader.open(place) as reader:
        assert reader.verify()
        assert reader.cases()[-2:] == named
        assert reader.extra("measures") == [b""] * 60 + [b"m0", b""]
        assert reader.extra("regions") == [b"r0"] + [b""] * 60 + [b"r1"]
        write_parquet(reader, tmp_path / "all.parquet")
        with IndexWriter.open(target) as writer:
            writer.merge(reader)
    (batch,) = read_parquet(tmp_path / "all.parquet")[2]
    assert batch.cases[-2:] == named
    assert {table: data[-2:] for table, data in batch.extras.items()} == {
        "measures": [b"m0", b""],
        "regions": [b"", b"r1"],
        "projection": [b"p0", b"p1"],
        "previews": [b"", b""],
    }
    with IndexReader.open(target) as reader:
        assert reader.verify()
        assert reader.cases()[-2:] == named
        assert reader.extra("measures")[-2:] == [b"m0", b""]
        assert reader.extra("projection")[-2:] == [b"", b""]
    with IndexWriter.open(place) as writer:
        writer.remove({"case": ["new/1"]})
    with IndexReader.open(place) as reader:
        assert reader.extra("regions") == [b"r0"] + [b""] * 60
