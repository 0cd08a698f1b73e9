"""Which studies a folder holds, the order they are put in, and that each is judged as a query is."""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retrieval.datasets.collection import Collection
from retrieval.errors import RadiographError
from retrieval.indexing.build import build_index
from retrieval.notices import Code
from retrieval.reports.worklist_report import worklist_report
from retrieval.searcher import Searcher
from retrieval.worklist.folder_watcher import Watch
from retrieval.worklist.worklist import Entry, find_studies, query_study, ranked, worklist

Squares = Callable[..., Collection]
Square = Callable[..., Path]
EVIL = '"><img src=x onerror="alert(1)">&\u202e'.replace("/", "")
INDEXED = [("ann", "s1", 0, [20, 25]), ("bob", "s2", 0, [40]), ("cid", "s3", 1, [215]), ("dee", "s4", 1, [235, 230])]


@pytest.fixture
def searcher(squares: Squares, model: Path, tmp_path: Path) -> Iterator[Searcher]:
    build_index(squares(INDEXED), tmp_path / "index", model=model)
    with Searcher.open(tmp_path / "index") as opened:
        yield opened


@pytest.fixture
def inbox(square: Square, tmp_path: Path) -> Path:
    """A dark single radiograph, a bright study of two views in a folder, a middling one deeper, and a bad file."""
    square("in/dark.png", 30)
    square("in/bright/pa.png", 220)
    square("in/bright/lateral.png", 225)
    square("in/XR_FINGER/patient00001/study1_positive/image1.png", 128)
    (tmp_path / "in" / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "in" / "notes.txt").write_text("no radiograph")
    return tmp_path / "in"


def test_folders_are_studies_and_so_are_single_files(inbox: Path, square: Square) -> None:
    square("in/.hidden/a.png", 1)
    square("in/.b.png", 1)
    found, unread = find_studies(inbox)
    assert [(one.study, [file.name for file in one.files]) for one in found] == [
        ("XR_FINGER/patient00001/study1_positive", ["image1.png"]),
        ("bad.jpg", ["bad.jpg"]),
        ("bright", ["lateral.png", "pa.png"]),
        ("dark.png", ["dark.png"]),
    ]
    assert unread == []


def test_folders_of_thumbnails_are_no_studies(inbox: Path, square: Square) -> None:
    before, _ = find_studies(inbox)
    square("in/bright/@eaDir/pa.png/SYNOPHOTO_THUMB_M.jpg", 225)
    square("in/Thumbnails/dark.png", 10)
    (inbox / "bright" / "preview").mkdir()
    after, unread = find_studies(inbox)
    assert after == before
    assert [one.study for one in unread] == ["Thumbnails", "bright/@eaDir/pa.png"]
    assert "named like thumbnails" in unread[0].reason


def test_dicom_files_are_known_by_what_they_hold(inbox: Path) -> None:
    (inbox / "ct" / "0001").parent.mkdir()
    (inbox / "ct" / "0001").write_bytes(bytes(128) + b"DICM")  # numbered, as archives write them
    (inbox / "ct" / "DICOMDIR.txt").write_text("no radiograph")
    found, _ = find_studies(inbox)
    assert [[file.name for file in one.files] for one in found if one.study == "ct"] == [["0001"]]


def test_links_that_go_round_end(inbox: Path) -> None:
    (inbox / "bright" / "up").symlink_to(inbox)
    (inbox / "again").symlink_to(inbox / "bright")
    (inbox / "self").symlink_to(inbox / "self")
    (inbox / "nowhere.png").symlink_to(inbox / "gone.png")
    found, _ = find_studies(inbox)
    names = [one.study for one in found]
    assert sum(name in ("bright", "again") for name in names) == 1
    assert len(names) == 5  # and the link to nothing, which is no radiograph


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_said(inbox: Path) -> None:
    (inbox / "bright").chmod(0)
    try:
        found, unread = find_studies(inbox)
    finally:
        (inbox / "bright").chmod(0o700)
    assert len(found) == 3
    assert [one.study for one in unread] == ["bright"]


def test_each_is_judged_as_a_query_is_and_the_order_is_that_of_the_mean(searcher: Searcher, inbox: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = worklist(searcher, inbox, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [entry.study for entry in result.entries] == ["bright", "XR_FINGER/patient00001/study1_positive", "dark.png"]
    for entry in result.entries:
        asked = searcher.search(inbox / entry.study)
        assert entry.answer.classifier == asked.classifier
        assert entry.answer.knn == asked.knn
        assert entry.answer.familiarity == asked.familiarity
        assert entry.answer.cases == asked.cases[:1]
        assert asked.knn.probability is not None
        assert entry.mean == (asked.classifier.probability + asked.knn.probability) / 2
    assert [one.study for one in result.skipped] == ["bad.jpg"]


def test_ties_go_by_name_and_without_a_vote_the_classifier_decides(searcher: Searcher, square: Square) -> None:
    for name in ("b.png", "a.png"):
        square(f"in/{name}", 200)
    result = worklist(searcher, square("in/c.png", 100).parent)
    assert [entry.study for entry in result.entries] == ["a.png", "b.png", "c.png"]
    (first, *_) = result.entries
    silent = dataclasses.replace(first.answer, knn=dataclasses.replace(first.answer.knn, probability=None))
    assert Entry("x", silent).mean == silent.classifier.probability


def test_a_bad_view_is_left_out_of_its_study(searcher: Searcher, inbox: Path) -> None:
    alone = worklist(searcher, inbox).entries[0]
    (inbox / "bright" / "x.png").write_bytes(b"no picture")
    result = worklist(searcher, inbox)
    entry = result.entries[0]
    assert entry.answer.classifier == alone.answer.classifier
    assert any("left out" in text and "x.png" in text for text in entry.warnings)
    assert "left out: " in worklist_report(result, searcher)


def test_that_an_index_is_synthetic_is_said_once(squares: Squares, model: Path, inbox: Path, tmp_path: Path) -> None:
    build_index(squares(INDEXED, "phantoms", synthetic=True), tmp_path / "synthetic", model=model)
    with Searcher.open(tmp_path / "synthetic") as opened:
        result = worklist(opened, inbox)
        assert worklist_report(result, opened).count("synthetic radiographs") == 1
    assert all(
        [n.code for n in entry.answer.notices] == [Code.SYNTHETIC] and not entry.warnings for entry in result.entries
    )


def test_nothing_to_do_is_an_error(searcher: Searcher, tmp_path: Path) -> None:
    with pytest.raises(RadiographError, match="is no folder"):
        worklist(searcher, tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RadiographError, match="no radiograph in this folder"):
        worklist(searcher, tmp_path / "empty")
    (tmp_path / "empty" / "a.png").write_bytes(b"no picture")
    with pytest.raises(RadiographError, match="none of the 1 studies"):
        worklist(searcher, tmp_path / "empty")


def test_table_and_json_say_the_same(searcher: Searcher, inbox: Path) -> None:
    result = worklist(searcher, inbox)
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert told["schema"] == "mura-search/worklist/1"
    assert len(told["studies"]) == 3
    assert [(row["rank"], row["study"], row["mean"]) for row in rows[3:]] == [("", "bad.jpg", "")]
    assert "bad.jpg" in rows[3]["reason"]
    for row, study in zip(rows[:3], told["studies"], strict=True):
        assert row["reason"] == ""
        assert (row["rank"], row["study"]) == (str(study["rank"]), study["study"])
        assert float(row["mean"]) == pytest.approx(study["mean"], abs=1e-6)
        assert float(row["classifier"]) == pytest.approx(study["classifier"]["probability"], abs=1e-6)
        assert float(row["vote"]) == pytest.approx(study["knn"]["probability"], abs=1e-6)
        assert (row["vote_call"] == "abnormal") == study["knn"]["abnormal"]
        assert (row["agreement"] == "yes") == study["agreement"]
        assert row["nearest_study"] == study["nearest"]["study"]
        assert (row["familiar"] == "yes") == study["familiarity"]["familiar"]
    assert [one["study"] for one in told["skipped"]] == ["bad.jpg"]


def test_the_page_shows_them_and_escapes_their_names(searcher: Searcher, inbox: Path, square: Square) -> None:
    square(f"in/{EVIL}.png", 210)
    searcher.rules = dataclasses.replace(searcher.rules, familiarity_limit=0.99)
    result = worklist(searcher, inbox)
    page = worklist_report(result, searcher)
    for entry in result.entries:
        assert f"{entry.mean:.3f}" in page
        assert f"{entry.answer.cases[0].similarity:.3f}" in page
    strange = sum(entry.answer.familiarity.familiar is False for entry in result.entries)
    assert 0 < strange < len(result.entries)
    assert page.count(">unfamiliar<") == strange
    marks = [entry.unfamiliar for entry in result.entries]
    assert marks == sorted(marks, reverse=True)
    assert page.index("Unlike the index") < page.index("Like the index, the most probably abnormal first")
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert page.count("<img") == page.count('src="data:image/jpeg;base64,') == 2 * len(result.entries)
    assert page.count('alt="first radiograph of study ') == len(result.entries)
    assert "Studies that could not be read: 1. Look at them yourself." in page
    assert "http" not in page.replace("http-equiv", "")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_watching_waits_until_a_file_is_at_rest(tmp_path: Path, square: Square) -> None:
    clock, folder = Clock(), tmp_path / "in"
    folder.mkdir()
    watch = Watch(folder, settle=2, clock=clock)
    whole = square("other.png", 100).read_bytes()

    def names() -> list[str]:
        return [one.study for one in watch.look()[0]]

    assert names() == []
    (folder / "a.png").write_bytes(whole[:50])
    assert names() == []
    clock.now = 1.9
    (folder / "a.png").write_bytes(whole)  # still being written
    assert names() == []
    clock.now = 3.8
    assert names() == []
    clock.now = 3.9
    assert names() == ["a.png"]
    clock.now = 10
    assert names() == []  # given once
    square("in/b/1.png", 100)
    assert names() == []
    clock.now = 12
    square("in/b/2.png", 100)  # a second view of the study arrives
    assert names() == []
    clock.now = 14
    assert names() == ["b"]
    square("in/b/3.png", 100)
    assert names() == []
    clock.now = 16
    assert names() == ["b"]  # again, since it is another study now
    square("in/c.png", 100)
    (found,) = (one for one in find_studies(folder)[0] if one.study == "c.png")
    watch.give(found)  # which somebody has read already
    clock.now = 18
    assert names() == []
    clock.now = 20
    assert names() == []
    (folder / "a.png").unlink()
    (folder / "c.png").unlink()
    assert watch.look() == ([], {"a.png", "c.png"})
    assert watch.look() == ([], set())
    (folder / "b").rename(tmp_path / "b")
    folder.rmdir()
    with pytest.raises(RadiographError, match="is no folder"):
        watch.look()
    folder.mkdir()
    (tmp_path / "b").rename(folder / "b")
    assert watch.look() == ([], set())  # as it was: the folder was only away


def test_what_is_read_again_takes_its_new_place(searcher: Searcher, square: Square, tmp_path: Path) -> None:
    square("in/a.png", 210)
    square("in/b.png", 30)
    read = {one.study: query_study(searcher, one) for one in find_studies(tmp_path / "in")[0]}
    square("in/b.png", 240)
    read["b.png"] = query_study(searcher, next(one for one in find_studies(tmp_path / "in")[0] if one.study == "b.png"))
    result = ranked(searcher, tmp_path / "in", read.values(), 0.0)
    assert [entry.study for entry in result.entries] == ["b.png", "a.png"]
