"""Near duplicates in the index of what is judged: planted ones are found; figures without them are the others'."""

import csv
import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from index.case import Case
from retrieval.datasets.collection import Collection, read_collection
from retrieval.encoding.bundle import BUNDLED, Bundle, write_bundle
from retrieval.evaluation.evaluate import evaluate
from retrieval.evaluation.tables import figure_table
from retrieval.indexing.build import build_index
from retrieval.reports.evaluation_report import evaluation_report
from retrieval.searcher import Searcher
from retrieval.synthetic.dataset import write_collection

CHANGES: Sequence[Callable[[np.ndarray], np.ndarray]] = (
    lambda pixels: pixels,  # encoded anew
    lambda pixels: cv2.resize(pixels, (pixels.shape[1] - 5, pixels.shape[0] - 7), interpolation=cv2.INTER_AREA),
)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "MURA-v1.1"
    write_collection(folder, patients=12, seed=3, valid=0.4)
    return folder


@pytest.fixture(scope="module")
def searcher(phantoms: Path, model: Path) -> Iterator[Searcher]:
    build_index(read_collection(phantoms, split="train"), phantoms.parent / "index", model=model)
    with Searcher.open(phantoms.parent / "index") as opened:
        yield opened


def copied(phantoms: Path, folder: Path) -> tuple[list[Case], dict[str, str]]:
    """A changed JPEG of a radiograph of each of two training studies, and of which it is one by the copy's study."""
    folder.mkdir()
    cases = read_collection(phantoms, split="train").cases
    chosen = [next(case for case in cases if case.label == label) for label in (0, 1)]
    made, sources = [], {}
    for number, (case, change) in enumerate(zip(chosen, CHANGES, strict=True)):
        path = folder / f"copy{number}.jpg"
        pixels = change(np.asarray(cv2.imread(case.path, cv2.IMREAD_GRAYSCALE)))
        assert cv2.imwrite(str(path), pixels, (cv2.IMWRITE_JPEG_QUALITY, 60))
        study = f"copied {number}"
        made.append(dataclasses.replace(case, case=path.name, study=study, patient=study, split="", path=str(path)))
        sources[study] = case.case
    return made, sources


def test_planted_copies_are_found_and_the_figures_without_them_are_those_of_the_others(
    searcher: Searcher, phantoms: Path, tmp_path: Path
) -> None:
    others = read_collection(phantoms, split="valid")
    copies, sources = copied(phantoms, tmp_path / "copies")
    both = Collection(tmp_path, "csv", (*copies, *others.cases), synthetic=True)
    found = evaluate(searcher, both, rounds=30)
    assert {study: found.leakage.indexed_cases(study) for study in found.leakage.studies} == {
        study: (source,) for study, source in sources.items()
    }
    alone = evaluate(searcher, dataclasses.replace(both, cases=others.cases), rounds=30)
    assert (alone.leakage.studies, alone.leakage.pairs, alone.leakage.without) == ((), (), None)
    without = found.leakage.without
    assert without
    assert (without.studies, without.abnormal, without.images) == (alone.studies, alone.abnormal_studies, alone.images)
    assert without.study == alone.study
    assert without.image == alone.image
    assert found.study != alone.study

    told = json.loads(json.dumps(found.to_dict()["copies"], allow_nan=False))
    assert told["studies"] == list(sources)
    assert [(pair["study"], pair["case"], pair["indexed_case"]) for pair in told["pairs"]] == [
        ("copied 0", "copy0.jpg", sources["copied 0"]), ("copied 1", "copy1.jpg", sources["copied 1"])
    ]  # fmt: skip
    assert told["without"]["classifier"]["auroc"] == alone.to_dict()["study"]["classifier"]["auroc"]  # type: ignore[index]
    assert alone.to_dict()["copies"] == {"studies": [], "pairs": [], "without": None}

    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert {row["study"]: row["indexed_copy"] for row in rows if row["indexed_copy"]} == sources
    figures = {(row["level"], row["part"], row["reader"], row["figure"]): row["value"]
               for row in csv.DictReader(io.StringIO(figure_table(found)))}  # fmt: skip
    kappa = alone.study["knn"]["kappa"].value
    assert kappa is not None
    assert figures["study", "", "knn without copies", "kappa"] == f"{kappa:.6f}"

    page = evaluation_report(found, searcher)
    count = f"Studies with a near duplicate in the index: 2 of {found.studies}. Figures without them stand below."
    assert count in page
    for study, source in sources.items():
        assert f'alt="evaluated radiograph copy{study[-1]}.jpg of study {study}"' in page
        assert f'alt="indexed radiograph {source} of study' in page
    assert 'id="near-duplicates"' in page
    assert 'id="near-duplicates"' not in evaluation_report(alone, searcher)


def test_where_every_study_has_a_copy_no_figures_are_left(searcher: Searcher, phantoms: Path, tmp_path: Path) -> None:
    copies, sources = copied(phantoms, tmp_path / "copies")
    found = evaluate(searcher, Collection(tmp_path, "csv", tuple(copies), synthetic=True), rounds=5)
    assert found.leakage.studies == tuple(sources)
    assert found.leakage.without is None
    assert found.to_dict()["copies"]["without"] is None  # type: ignore[index]
    assert 'id="near-duplicates"' in evaluation_report(found, searcher)


@pytest.mark.data
@pytest.mark.slow
def test_those_of_fracatlas_are_found(tmp_path: Path) -> None:
    """With a copy of the bundled model that calls itself untrained: radiographs that taught it may be judged here."""
    data = Path(__file__).parents[3] / ".." / "shared" / "data" / "fracatlas-upper-limb"
    if not data.is_dir():
        pytest.skip("no real radiographs beside the checkout")
    shutil.copytree(BUNDLED, tmp_path / "model")
    bundle = Bundle.open(BUNDLED)
    about = {"name": "untrained", "backbone": bundle.backbone, "dimension": bundle.dimension, "provenance": {}}
    write_bundle(tmp_path / "model", about=about, preprocessing=bundle.preprocessing, rules=bundle.rules, seen=[])
    named = ("run0264-s1", "run0272-s1", "run0282-s1", "run0413-s2", "run0414-s1", "run0450-s1")  # docs/fracatlas.md
    sources = ("run0420", "run0427", "run0439", "run0257", "run0256", "run0403")
    sides = []
    for split, patients in (("train", set(sources)), ("valid", {study.split("-")[0] for study in named})):
        whole = read_collection(data, split=split)
        patients.update([*dict.fromkeys(case.patient for case in whole.cases)][:20])
        sides.append(dataclasses.replace(whole, cases=tuple(c for c in whole.cases if c.patient in patients)))
    build_index(sides[0], tmp_path / "index", model=tmp_path / "model")
    with Searcher.open(tmp_path / "index") as searcher:
        found = evaluate(searcher, sides[1], rounds=5)
    assert found.leakage.studies == named
    assert {twin.studies[1].split("-")[0] for twin in found.leakage.pairs} == set(sources)
    assert found.leakage.without
    assert found.leakage.without.studies == found.studies - 6 > 10
