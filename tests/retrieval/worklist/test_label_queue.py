"""The order in which labels teach most, on studies whose order can be seen."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.datasets.case_table import read_casetable
from retrieval.datasets.collection import Collection
from retrieval.errors import RadiographError
from retrieval.indexing.build import build_index
from retrieval.searcher import Searcher
from retrieval.worklist.label_queue import ORDERS, Teaching, label_queue, teaching_order


def circle(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack((np.cos(angles), np.sin(angles)), 1).astype(np.float32)


FAR = Teaching(
    embeddings=circle(0, 90, 180, 270),
    classifier=np.array([0.9, 0.5, 0.1, 0.2]),
    vote=np.array([0.1, 0.45, 0.1, 0.2]),
    nearest=np.array([0.9, 0.8, 0.1, 0.9]),
)


@pytest.mark.parametrize(("order", "first"), [("disagreement", 0), ("borderline", 0), ("unlike", 2)])
def test_each_order_begins_with_the_study_that_has_most_of_it(order: str, first: int) -> None:
    ranked = teaching_order(FAR, order)
    assert ranked[0].row == first  # the mean of 0.9 and 0.1 is one half
    assert order in ranked[0].reasons
    assert sorted(item.row for item in ranked) == [0, 1, 2, 3]


def test_the_mixed_order_is_by_the_mean_of_all_three() -> None:
    # Parts of the studies that have no more: disagreement 1, 3/4, 2/4, 2/4; borderline 1, 3/4, 1/4, 2/4; unlike
    # 2/4, 3/4, 1, 2/4. Each lies a quarter turn, or a half, from the others, so that one chosen before halves the next.
    first, second = teaching_order(FAR, "mixed", most=2)
    assert [first.row, second.row] == [0, 2]
    assert [first.score, second.score] == pytest.approx([(1 + 1 + 2 / 4) / 3, (2 / 4 + 1 / 4 + 1) / 3 * 2 / (2 + 1)])
    assert [item.row for item in teaching_order(FAR, "mixed")][2:] == [1, 3]


def test_near_copies_are_not_asked_about_twice() -> None:
    copies = Teaching(
        embeddings=circle(0, 0.01, 0.02, 40, 80),
        classifier=np.array([0.9, 0.9, 0.9, 0.7, 0.6]),
        vote=np.array([0.1, 0.1, 0.1, 0.3, 0.5]),
        nearest=np.full(5, 0.5),
    )
    ranked = teaching_order(copies, "disagreement")
    assert [item.row for item in ranked[:3]] == [0, 3, 4]
    assert all("alike" in item.reasons for item in ranked[3:])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("count", [0, 1])
def test_few_studies(order: str, count: int) -> None:
    few = Teaching(*(values[:count] for values in (FAR.embeddings, FAR.classifier, FAR.vote, FAR.nearest)))
    assert [item.row for item in teaching_order(few, order)] == list(range(count))


def test_a_folder_becomes_a_table_to_fill_in(
    squares: Callable[..., Collection], square: Callable[..., Path], model: Path, tmp_path: Path
) -> None:
    studies = [("ann", "s1", 0, [20]), ("bob", "s2", 0, [40]), ("cid", "s3", 1, [215]), ("dee", "s4", 1, [235])]
    collection = squares(studies)
    build_index(collection, tmp_path / "index", model=model)
    for number, brightness in enumerate((22, 128, 129, 233)):
        square(f"in/study{number}/a.png", brightness, number)
    square("in/study1/b.png", 127, 50)
    (tmp_path / "in" / "known").mkdir()
    (tmp_path / "in" / "known" / "a.png").write_bytes(Path(collection.cases[0].path).read_bytes())
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    with Searcher.open(tmp_path / "index") as searcher:
        queue = label_queue(searcher, tmp_path / "in", "mixed")
        with pytest.raises(RadiographError, match="has no unlabelled study that can be read"):
            label_queue(searcher, tmp_path / "in" / "known")
    assert {queued.study for queued in queue.studies[:2]} <= {"study1", "study2"} | {"study0", "study3"}
    assert queue.studies[0].study in ("study1", "study2")
    assert [skipped.study for skipped in queue.skipped] == ["bad.png", "known"]
    table = tmp_path / "in" / "labels.csv"
    lines = queue.to_csv().splitlines()
    table.write_text("\n".join([lines[0], *(line.replace(",,", ",abnormal,", 1) for line in lines[1:])]))
    cases, _ = read_casetable(table)
    assert [(case.study, case.label) for case in cases] == [
        (queued.study, 1) for queued in queue.studies for _ in queued.files
    ]
