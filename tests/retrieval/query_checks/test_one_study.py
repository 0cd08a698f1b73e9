"""Radiographs of several studies are not taken for one, and a view given twice counts once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import RadiographError
from retrieval.notices import Code
from retrieval.searcher import Searcher


def test_views_are_averaged_and_the_least_familiar_counts(searcher: Searcher, square: Callable[..., Path]) -> None:
    paths = [square("one.png", 50), square("two.png", 250)]
    both, (one, two) = searcher.search(paths), (searcher.search(path) for path in paths)
    assert both.query.views == 2
    assert both.classifier.probability == pytest.approx((one.classifier.probability + two.classifier.probability) / 2)
    assert one.knn.probability is not None
    assert two.knn.probability is not None
    assert both.knn.probability == pytest.approx((one.knn.probability + two.knn.probability) / 2)
    assert [view.file for view in both.views] == list(map(str, paths))
    assert [view.knn for view in both.views] == [one.knn.probability, two.knn.probability]
    assert one.familiarity.similarity is not None
    assert two.familiarity.similarity is not None
    assert both.familiarity.similarity == min(one.familiarity.similarity, two.familiarity.similarity)
    assert both.cases[0].similarity == max(one.cases[0].similarity, two.cases[0].similarity)


def test_one_bad_view_of_several_is_left_out_and_said(searcher: Searcher, square: Callable[..., Path]) -> None:
    good, bad = square("good.png", 100), square("bad.png", 100)
    bad.write_text("not a radiograph")
    answer = searcher.search([bad, good])
    assert answer.query.files == (str(good),)
    assert any(warning.startswith("left out:") and "bad.png" in warning for warning in answer.warnings)
    with pytest.raises(RadiographError, match=r"bad\.png"):
        searcher.search(bad)


def test_a_folder_of_many_studies_is_questioned(searcher: Searcher, square: Callable[..., Path]) -> None:
    for number in range(21):
        folder = square(f"many/{number}.png", 100 + number).parent
    assert any("21 radiographs" in warning for warning in searcher.search(folder).warnings)


def test_a_view_given_twice_counts_once(searcher: Searcher, square: Callable[..., Path], tmp_path: Path) -> None:
    one, two = square("pa.png", 60), square("lateral.png", 220)
    expected = searcher.search([one, two])
    copy = tmp_path / "copy.png"
    shutil.copy(one, copy)
    answer = searcher.search([one, one, copy, two])
    assert (answer.query.files, answer.classifier, answer.knn) == (
        expected.query.files,
        expected.classifier,
        expected.knn,
    )
    assert [(n.code, n.view) for n in answer.notices if n.code == Code.REPEATED_VIEW] == [
        (Code.REPEATED_VIEW, str(one)),
        (Code.REPEATED_VIEW, str(copy)),
    ]
    assert searcher.search([np.zeros((9, 9), np.uint8)] * 2).query.views == 1


def test_studies_of_mura_are_not_one_study(searcher: Searcher, square: Callable[..., Path]) -> None:
    one = square("XR_HAND/patient00090/study1_positive/image1.png", 60)
    two = square("XR_HAND/patient00090/study2_negative/image1.png", 220)
    other = square("XR_HAND/patient00091/study1_negative/image1.png", 230)
    with pytest.raises(RadiographError, match="of 2 studies: ask about one study at a time"):
        searcher.search([one, two])
    with pytest.raises(RadiographError, match="of 2 patients: ask about one study at a time"):
        searcher.search([one, other])
    answer = searcher.search([one, other], one_study=True)
    assert Code.SEVERAL_PATIENTS in [notice.code for notice in answer.notices]
    assert searcher.search([one, square("XR_HAND/patient00090/study1_positive/image2.png", 61)]).query.views == 2


def test_indexed_radiographs_of_two_patients_are_not_one_study(searcher: Searcher, tmp_path: Path) -> None:
    files = sorted((tmp_path / "data").glob("*.png"))
    own = {case.patient: file for file in files for case in searcher.index.find("case", [file.name])}
    with pytest.raises(RadiographError, match="of 2 patients"):
        searcher.search(list(own.values())[:2])
