import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from index.errors import IndexBusy, IndexMissing
from index.reader import IndexReader
from retrieval.datasets.collection import Collection
from retrieval.decision.rules import DEFAULTS, Rules
from retrieval.encoding.batches import EncodingOptions, encoded_batches, thumbnail, usable
from retrieval.encoding.bundle import Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.encoding.picture_hash import picture_hashes
from retrieval.errors import BundleError, CollectionError
from retrieval.images.radiograph import file_digest, read_radiograph
from retrieval.indexing.build import BuildOptions, build_index, fingerprint
from retrieval.indexing.update import add_to_index
from retrieval.notices import Code, Notice
from retrieval.searcher import Searcher
from retrieval.synthetic.dataset import draw_study
from retrieval.wording import sentence

Squares = Callable[..., Collection]
TWO = [("p1", "s1", 0, [40, 50]), ("p2", "s2", 1, [200])]


def many(patients: int = 50) -> list[tuple[str, str, int, list[int]]]:
    """Dark normal and bright abnormal studies, of one or two views, none quite like another."""
    return [
        (f"p{n:03}", f"s{n:03}", n % 2, [40 + n % 37 + 100 * (n % 2), 50 + n % 41 + 100 * (n % 2)][: 1 + n % 3 % 2])
        for n in range(patients)
    ]


def test_what_is_stored(squares: Squares, model: Path, tmp_path: Path) -> None:
    collection = squares(TWO, synthetic=True)
    seen: list[tuple[int, int]] = []
    report = build_index(
        collection, tmp_path / "index", model=model, progress=lambda done, total: seen.append((done, total))
    )
    assert (report.cases, report.studies, report.patients, report.quarantined, report.resumed) == (3, 2, 2, (), 0)
    assert seen[-1] == (3, 3)
    encoder = Encoder.open(model)
    with IndexReader.open(tmp_path / "index") as index:
        cases = index.cases()
        assert [case.case for case in cases] == [case.case for case in collection.cases]
        for row, case in enumerate(cases):
            pixels = read_radiograph(Path(case.path)).pixels
            encoded = encoder.encode([pixels])
            assert index.embeddings()[row] == pytest.approx(encoded.embeddings[0], abs=1e-6)
            assert index.logits()[row] == pytest.approx(encoded.logits[0], abs=1e-5)
            assert case.digest == file_digest(Path(case.path))
        assert index.metadata("rules") == report.rules.to_dict() == DEFAULTS.to_dict()
        stored = index.metadata("collection")
        assert stored == {"root": str(collection.root), "layout": "csv", "notes": [], "synthetic": True}
        picture = cv2.imdecode(np.frombuffer(index.thumbnail("s2-1.png") or b"", np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture is not None
        assert picture.mean() == pytest.approx(200, abs=1)
        assert Encoder.open(index.model).bundle.sha256 == encoder.bundle.sha256


def test_rules_are_learned_and_stored(squares: Squares, model: Path, tmp_path: Path) -> None:
    report = build_index(squares(many()), tmp_path / "index", model=model)
    assert "learned on 50 studies (25 abnormal) of 50 patients" in report.rules.source
    with IndexReader.open(tmp_path / "index") as index:
        assert index.metadata("rules") == report.rules.to_dict()


def test_the_bundles_rules_hold_where_too_little_teaches(
    squares: Squares, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    stored = Rules(k=7, source="learned with the model").to_dict()
    rules = Rules(k=7, source="the model's own, learned with the model")
    model = make_model(tmp_path / "model", rules=stored)
    assert build_index(squares(TWO), tmp_path / "index", model=model).rules == rules
    # So they do where the model was trained on what is indexed.
    collection = squares(many(), "many")
    seen = [file_digest(Path(case.path)) for case in collection.cases]
    model = make_model(tmp_path / "seen", rules=stored, seen=seen)
    assert build_index(collection, tmp_path / "other", model=model).rules == rules
    # And where its training radiographs are indexed in other bytes.
    pictures = [phantom.pixels for study in range(50) for phantom in draw_study(0, study, abnormal=False)]
    for case, pixels in zip(collection.cases, pictures, strict=False):
        cv2.imwrite(case.path, pixels)
    model = make_model(tmp_path / "pictures", rules=stored, hashes=picture_hashes(map(thumbnail, pictures)))
    assert build_index(collection, tmp_path / "third", model=model).rules == rules


def test_rules_of_another_version_are_refused_before_anything_is_encoded(
    squares: Squares, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", rules={"k": 3})
    with pytest.raises(BundleError, match="decision rules"):
        build_index(squares(TWO), tmp_path / "index", model=model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model"]


def test_unreadable_radiographs_are_set_aside(squares: Squares, model: Path, tmp_path: Path) -> None:
    collection = squares(TWO)
    Path(collection.cases[0].path).write_bytes(b"")
    Path(collection.cases[1].path).unlink()
    report = build_index(collection, tmp_path / "index", model=model)
    assert report.cases == 1
    reasons = dict(report.quarantined)
    assert set(reasons) == {"s1-1.png", "s1-2.png"}
    assert "empty" in reasons["s1-1.png"]
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["schema"] == "mura-search/build/1"
    assert {one["case"] for one in content["quarantined"]} == set(reasons)


def test_a_radiograph_that_ends_early_is_indexed_with_a_warning(squares: Squares, model: Path, tmp_path: Path) -> None:
    collection = squares(TWO)
    path = tmp_path / "whole.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    assert cv2.imwrite(str(path), noise)
    Path(collection.cases[0].path).write_bytes(path.read_bytes()[:-20])
    report = build_index(collection, tmp_path / "index", model=model)
    assert report.cases == 3
    ((case, warning),) = report.warnings
    assert case == "s1-1.png"
    assert "ends early" in warning
    content = json.loads(json.dumps(report.to_dict()))
    assert content["warnings"] == [{"case": case, "warning": warning}]
    (notice,) = content["notices"]
    assert (notice["code"], notice["view"]) == ("ends-early", case)


def test_an_index_keeps_no_name_of_a_missing_file(squares: Squares, model: Path, tmp_path: Path) -> None:
    """It would stay there when the patient's radiographs are removed."""
    missing = Notice(Code.LISTED_MISSING, detail={"count": 1, "names": "train/XR_FINGER/patient00007/image9.png"})
    collection = dataclasses.replace(squares(TWO), notices=(missing,))
    report = build_index(collection, tmp_path / "index", model=model)
    assert "patient00007" in sentence(report.notices[0])
    with IndexReader.open(tmp_path / "index") as index:
        stored = index.metadata("collection")
    assert isinstance(stored, dict)
    assert stored["notes"] == ["images that image_paths.csv lists and that are missing: 1"]
    assert not any(b"patient00007" in file.read_bytes() for file in (tmp_path / "index").rglob("*") if file.is_file())


def test_nothing_readable_is_an_error_and_no_index(squares: Squares, model: Path, tmp_path: Path) -> None:
    collection = squares(TWO)
    kept = {case.path: Path(case.path).read_bytes() for case in collection.cases}
    for path in kept:
        Path(path).write_bytes(b"text")
    with pytest.raises(CollectionError, match="none of the 3 radiographs could be read"):
        build_index(collection, tmp_path / "index", model=model)
    with pytest.raises(IndexMissing):
        IndexReader.open(tmp_path / "index")
    # Once the files are back, the same build succeeds.
    for path, data in kept.items():
        Path(path).write_bytes(data)
    report = build_index(collection, tmp_path / "index", model=model)
    assert (report.cases, report.quarantined) == (3, ())


def test_an_interrupted_build_goes_on_and_says_so(squares: Squares, model: Path, tmp_path: Path) -> None:
    collection = squares(many())

    def interrupt(done: int, total: int) -> None:
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"32 of 67 radiographs are done; the same command continues"):
        build_index(collection, tmp_path / "index", model=model, progress=interrupt)
    with pytest.raises(IndexMissing):
        IndexReader.open(tmp_path / "index")
    report = build_index(collection, tmp_path / "index", model=model)
    assert report.resumed == 32
    assert report.cases == len(collection.cases)
    whole = build_index(collection, tmp_path / "whole", model=model)
    assert whole.rules == report.rules
    with IndexReader.open(tmp_path / "index") as one, IndexReader.open(tmp_path / "whole") as other:
        assert one.cases() == other.cases()
        assert np.array_equal(one.embeddings(), other.embeddings())


def test_another_table_or_model_begins_anew(
    squares: Squares, model: Path, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    one = squares(TWO)
    relabelled = dataclasses.replace(one, cases=tuple(dataclasses.replace(case, label=1) for case in one.cases))
    other = make_model(tmp_path / "model", seen=["0" * 64])
    for collection, with_model, resumed in ((one, model, 3), (relabelled, model, 0), (one, other, 0)):
        with pytest.raises(KeyboardInterrupt):
            build_index(one, tmp_path / "index", model=model, replace=True, progress=interrupt)
        assert build_index(collection, tmp_path / "index", model=with_model, replace=True).resumed == resumed


def test_an_index_of_another_model_can_take_the_place_and_answers(
    squares: Squares, model: Path, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    collection = squares(TWO)
    build_index(collection, tmp_path / "index", model=model)
    other = make_model(tmp_path / "model", seen=["0" * 64])
    for own in (other, model, other):
        build_index(collection, tmp_path / "index", model=own, replace=True)
        with Searcher.open(tmp_path / "index") as searcher:
            assert searcher.encoder.bundle.sha256 == Bundle.open(own).sha256
            assert searcher.search(np.full((64, 64), 90, np.uint8)).cases


def test_an_index_is_replaced_only_when_asked(squares: Squares, model: Path, tmp_path: Path) -> None:
    build_index(squares(TWO), tmp_path / "index", model=model)
    other = squares([*TWO, ("p3", "s3", 0, [90])], "other")
    with pytest.raises(IndexBusy):
        build_index(other, tmp_path / "index", model=model)
    assert build_index(other, tmp_path / "index", model=model, replace=True).cases == 4
    with IndexReader.open(tmp_path / "index") as index:
        assert index.info()["cases"] == 4


def test_threads_change_nothing(squares: Squares, model: Path) -> None:
    collection = squares(many(70))
    encoder = Encoder.open(model)
    one, four = (list(encoded_batches(collection.cases, encoder, EncodingOptions(workers=n), size=8)) for n in (1, 4))
    assert [[case.case for case in batch.cases] for batch in one] == [[c.case for c in batch.cases] for batch in four]
    assert all(np.array_equal(a.embeddings, b.embeddings) for a, b in zip(one, four, strict=True))
    assert [case.case for batch in one for case in batch.cases] == [case.case for case in collection.cases]
    assert all(len(batch.cases) == 8 for batch in one[:-1])


def test_a_radiograph_that_the_model_makes_nothing_of_is_set_aside(
    squares: Squares, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.open(model)
    true = encoder.head.apply

    def broken(maps: np.ndarray) -> object:
        pooled = true(maps)
        pooled.embeddings[0] = np.nan
        pooled.embeddings[1] = 0
        return pooled

    monkeypatch.setattr("retrieval.encoding.head.Head.apply", lambda self, maps: broken(maps))
    (batch,) = encoded_batches(squares(TWO).cases, encoder)
    assert [case.case for case in batch.cases] == ["s2-1.png"]
    assert [case.case for case, _ in batch.unreadable] == ["s1-1.png", "s1-2.png"]
    assert usable(encoder.encode([np.zeros((32, 32), np.uint8)] * 3)).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((320, 640), (80, 160)), ((640, 100), (160, 25)), ((50, 40), (50, 40)), ((3000, 4, 3), (160, 1, 3))],
)
def test_thumbnails_keep_the_shape_and_stay_small(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    decoded = cv2.imdecode(np.frombuffer(thumbnail(np.full(shape, 77, np.uint8)), np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert decoded.shape == wanted
    assert abs(int(decoded.mean()) - 77) <= 1


def test_a_file_that_changed_during_an_interruption_is_encoded_again(
    squares: Squares, square: Callable[..., Path], model: Path, tmp_path: Path
) -> None:
    collection = squares(many())

    def interrupt(done: int, total: int) -> None:
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(collection, tmp_path / "index", model=model, progress=interrupt)
    changed, missing = collection.cases[3], collection.cases[4]
    square(str(Path(changed.path).relative_to(tmp_path)), 222, mark=7)
    Path(missing.path).unlink()  # it was read then
    report = build_index(collection, tmp_path / "index", model=model)
    assert (report.cases, report.resumed) == (len(collection.cases), 31)
    with IndexReader.open(tmp_path / "index") as index:
        assert index.verify()
        assert {case.case for case in index.cases()} == {case.case for case in collection.cases}
        (case,) = index.find("case", [changed.case])
        assert case.digest == file_digest(Path(changed.path))
        embedding = index.embedding(changed.case)
    alone = build_index(dataclasses.replace(collection, cases=(changed,)), tmp_path / "alone", model=model)
    assert alone.cases == 1
    with IndexReader.open(tmp_path / "alone") as index:
        again = index.embedding(changed.case)
        assert embedding is not None
        assert again is not None
        assert np.array_equal(again, embedding)


def write_blank(collection: Collection) -> None:
    """The first file black, the second black but for a mark."""
    black = np.zeros((90, 90), np.uint8)
    assert cv2.imwrite(collection.cases[0].path, black)
    black[:9, :9] = 255
    assert cv2.imwrite(collection.cases[1].path, black)


def test_blank_radiographs_are_listed_and_do_not_vote(squares: Squares, model: Path, tmp_path: Path) -> None:
    collection = squares([(f"p{number}", f"s{number}", number % 2, [60 + 9 * number]) for number in range(6)])
    write_blank(collection)
    report = build_index(collection, tmp_path / "index", model=model)
    names = [case.case for case in collection.cases]
    assert [case for case, _ in report.quarantined] == names[:2]
    assert all("blank" in reason for _, reason in report.quarantined)
    with IndexReader.open(tmp_path / "index") as index:
        assert [case.case for case in index.cases()] == names[2:]
    added = add_to_index(collection, tmp_path / "index")
    assert (added.added, [case for case, _ in added.refused]) == (0, names[:2])
    assert build_index(collection, tmp_path / "all", options=BuildOptions(keep_blank=True), model=model).cases == 6
    assert add_to_index(collection, tmp_path / "index", keep_blank=True).added == 2
    bundle = Bundle.open(model)
    kept, left_out = (fingerprint(collection, bundle, BuildOptions(keep_blank=keep)) for keep in (True, False))
    assert kept != left_out


def test_missing_files_are_listed(squares: Squares, model: Path, tmp_path: Path) -> None:
    collection = squares(TWO)
    Path(collection.cases[0].path).unlink()
    report = build_index(collection, tmp_path / "index", model=model)
    assert report.cases == len(collection.cases) - 1
    assert [case for case, _ in report.quarantined] == [collection.cases[0].case]
