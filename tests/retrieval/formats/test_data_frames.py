"""Tables from Excel, Parquet and pandas, and results as DataFrames and in a notebook."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from retrieval import IndexTable, VoteClassifier
from retrieval.audit.audit import audit
from retrieval.datasets.collection import Collection, read_collection
from retrieval.errors import CollectionError
from retrieval.evaluation.evaluate import evaluate
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher
from retrieval.worklist.worklist import worklist

Squares = Callable[..., Collection]
STUDIES = [(f"0{n + 1}", f"s{n}", n % 2, [20 + 19 * n, 25 + 19 * n]) for n in range(8)]


def frame_of(collection: Collection) -> pd.DataFrame:
    """A table with identifiers that spreadsheets like to change: leading zeros, numbers beside gaps."""
    rows = [
        {"path": case.case, "label": case.label_name, "patient": case.patient, "study": case.study, "part": "finger"}
        for case in collection.cases
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def collection(squares: Squares) -> Collection:
    return squares(STUDIES)


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet"])
def test_excel_and_parquet_are_read_as_csv_is(collection: Collection, suffix: str) -> None:
    frame, root = frame_of(collection), collection.root
    frame.to_csv(root / "table.csv", index=False)
    file = root / f"table{suffix}"
    frame.to_excel(file, index=False) if suffix == ".xlsx" else frame.to_parquet(file)
    assert read_collection(file).cases == read_collection(root / "table.csv").cases


def test_numbers_beside_gaps_stay_whole(collection: Collection) -> None:
    """A column of numbers with an empty cell: 12 must not become 12.0."""
    frame = frame_of(collection)
    frame["patient"] = pd.array([*(int(name) + 9 for name in frame["patient"][:-2]), None, None], dtype="Int64")
    for file in (collection.root / "table.xlsx", collection.root / "table.parquet"):
        frame.to_excel(file, index=False) if file.suffix == ".xlsx" else frame.to_parquet(file)
        patients = [case.patient for case in read_collection(file).cases]
        assert patients[:2] == ["10", "10"]
        assert patients[-1] == "s7"


def test_a_data_frame_is_a_collection(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(collection.root)
    given = read_collection(frame_of(collection))
    assert [(case.case, case.label, case.patient) for case in given.cases] == [
        (case.case, case.label, case.patient) for case in collection.cases
    ]
    with pytest.raises(CollectionError, match="no column 'label'"):
        read_collection(frame_of(collection).drop(columns="label"))


def test_a_data_frame_names_kinds_of_lesions(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(collection.root)
    frame = frame_of(collection)
    frame["lesion"] = ["Fracture", None, *[""] * (len(frame) - 2)]
    assert read_collection(frame).lesions() == {collection.cases[0].case: "fracture"}


@pytest.mark.parametrize("suffix", [".xlsx", ".parquet"])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(b"no table")
    with pytest.raises(CollectionError, match=f"broken{suffix} cannot be read as a table"):
        read_collection(file)


def test_every_result_is_a_frame_and_shows_itself(
    collection: Collection, squares: Squares, model: Path, tmp_path: Path
) -> None:
    build_index(collection, tmp_path / "index", model=model)
    unseen = squares([("<b>new</b>", "u1", 0, [35]), ("other", "u2", 1, [140])], "unseen")
    with Searcher.open(tmp_path / "index") as searcher:
        answer = searcher.search(unseen.cases[0].path)
        evaluation = evaluate(searcher, unseen, rounds=20)
        ranked = worklist(searcher, unseen.root)
    table = IndexTable.open(tmp_path / "index")
    for result, rows in (
        (answer, len(answer.cases)),
        (evaluation, 2),
        (ranked, 2),
        (table, 16),
        (audit(collection), 0),
    ):
        frame = result.to_frame()
        assert (len(frame), list(frame.columns)) == (rows, result.columns.split())
        assert result._repr_html_().startswith("<p>")
        assert "<b>new" not in result._repr_html_()
    assert answer.verdict.capitalize() in answer._repr_html_() or "Unlike" in answer._repr_html_()
    assert evaluation.to_frame()["classifier"].dtype == np.float64
    figures = evaluation.figures_frame()
    kappa = figures[(figures["level"] == "study") & (figures["reader"] == "knn") & (figures["figure"] == "kappa")]
    assert kappa["value"].iloc[0] == evaluation.study["knn"]["kappa"].value
    assert set(table.to_frame()["label"]) == {"normal", "abnormal"}


def test_pandas_waits_until_it_is_called(collection: Collection) -> None:
    script = "import sys; from retrieval import IndexTable, Searcher; import retrieval.answer, retrieval.audit.audit"
    checked = "; Searcher, IndexTable; print({'pandas', 'sklearn', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script + checked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_vote_of_an_index_is_a_classifier(collection: Collection, model: Path, tmp_path: Path) -> None:
    build_index(collection, tmp_path / "index", model=model)
    fitted = VoteClassifier.from_index(tmp_path / "index")
    with Searcher.open(tmp_path / "index") as searcher:
        rules, embeddings = searcher.rules, searcher.index.embeddings()
        hits = searcher.index.search(embeddings, rules.k, exclude_patients=[{case.patient} for case in fitted.cases_])
    assert list(fitted.classes_) == ["abnormal", "normal"]
    patients = [case.patient for case in fitted.cases_]
    distances, rows = fitted.kneighbors(embeddings, groups=patients)
    for query, own in enumerate(hits):
        names = [hit.case.study for hit in own]
        assert [fitted.cases_[row].study for row in rows[query] if row >= 0] == names
        assert 1 - distances[query][: len(own)] == pytest.approx([hit.similarity for hit in own], abs=1e-5)
    probabilities = fitted.predict_proba(embeddings, groups=patients)
    weights = np.exp(np.array([hit.similarity for hit in hits[0]]) / rules.temperature)
    abnormal = np.array([hit.case.label for hit in hits[0]])
    assert probabilities[0, 0] == pytest.approx(weights @ abnormal / weights.sum(), abs=1e-4)
