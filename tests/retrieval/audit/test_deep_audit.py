"""The deep audit, from files to findings, on small collections with planted errors."""

import csv
import io
import json
import os
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from index.builder import IndexBuilder
from index.case import Case
from retrieval.audit.audit import Audit, audit, deep_audit
from retrieval.audit.deep_audit import EncodedCollection, encode_collection
from retrieval.audit.resume_cache import resume_cache
from retrieval.datasets.collection import Collection
from retrieval.encoding.batches import encoded_batches
from retrieval.encoding.bundle import Bundle
from retrieval.encoding.encoder import Encoder
from retrieval.errors import CollectionError
from retrieval.indexing.build import build_index
from retrieval.reports.audit_report import audit_report
from retrieval.searcher import Searcher

Draw = Callable[..., np.ndarray]
STUDIES = 48
TURNED = "s09"


@pytest.fixture
def planted(tmp_path: Path, texture: Draw) -> Collection:
    """Dark normal and bright abnormal studies; one turned label, a copy of s00 cropped and one of s03 mirrored."""
    dice = np.random.default_rng(0)
    cases: list[Case] = []

    def add(name: str, picture: np.ndarray, label: int, split: str, patient: str) -> None:
        path = tmp_path / f"{name}.png"
        assert cv2.imwrite(str(path), picture)
        cases.append(Case(path.name, name, patient, label, "finger", split=split, path=str(path)))

    for study in range(STUDIES):
        bright = study % 2 == 1
        picture = texture(study, int(dice.integers(150, 180) if bright else dice.integers(70, 100)))
        name = f"s{study:02}"
        add(name, picture, int(bright) ^ (name == TURNED), "train" if study < 36 else "valid", f"p{study // 2}")
        if study == 0:
            add("cropped", picture[3:, :-2], 0, "valid", "q0")
        if study == 3:
            add("mirrored", np.ascontiguousarray(picture[:, ::-1]), 1, "train", "q1")
    (tmp_path / "bad.png").write_text("no picture")
    cases.append(Case("bad.png", "bad", "q2", 0, "finger", split="train", path=str(tmp_path / "bad.png")))
    return Collection(tmp_path, "csv", tuple(cases))


@pytest.fixture
def encoding(planted: Collection, model: Path) -> EncodedCollection:
    return encode_collection(planted, Encoder.open(model))


@pytest.fixture
def findings(planted: Collection, encoding: EncodedCollection) -> Audit:
    return deep_audit(planted, encoding)


def test_planted_errors_are_found_and_nothing_else(findings: Audit) -> None:
    assert findings.deep
    pairs = {(twin.cases, twin.mirrored, twin.across_splits) for twin in findings.deep.near_duplicates}
    assert pairs == {(("s00.png", "cropped.png"), False, True), (("s03.png", "mirrored.png"), True, False)}
    assert [one.study for one in findings.deep.labels.issues] == [TURNED]
    assert findings.deep.labels.studies == STUDIES + 2
    (leak,) = findings.leakage
    assert (leak.split, leak.leaking, leak.by_copy) == ("valid", ("cropped",), 1)
    assert findings.verdict.startswith("Do not trust figures on the valid split")


def test_the_rest_is_what_the_quick_audit_says(planted: Collection, findings: Audit) -> None:
    quick = audit(planted)
    assert quick.deep is None
    assert quick.leakage[0].by_copy is None
    assert replace(findings, deep=None, leakage=quick.leakage, verdict=quick.verdict) == quick
    assert [case for case, _ in findings.unreadable] == ["bad.png"]


def test_as_json(findings: Audit) -> None:
    found = json.loads(json.dumps(findings.to_dict(), allow_nan=False))
    assert found["schema"] == "mura-search/audit/1"
    assert {"duplicates", "patients_in_two_splits", "unreadable"} <= set(found)
    assert found["deep"]["model"] == "squares"
    assert found["deep"]["twins"][0]["cases"] == ["s00.png", "cropped.png"]
    assert found["deep"]["labels"]["issues"][0]["study"] == TURNED
    assert found["deep"]["labels"]["issues"][0]["neighbours"][0]["label"] == "abnormal"
    assert found["leakage"][0]["leaking"] == ["cropped"]


def test_as_csv(findings: Audit) -> None:
    rows = list(csv.DictReader(io.StringIO(findings.to_csv())))
    assert list(rows[0]) == Audit.columns.split()
    by_kind = [(row["finding"], row["case"] or row["study"], row["other_case"]) for row in rows]
    assert by_kind == [
        ("unreadable", "bad.png", ""),
        ("near duplicate", "s00.png", "cropped.png"),
        ("near duplicate", "s03.png", "mirrored.png"),
        ("suspect label", f"{TURNED}.png", ""),
        ("leaking study", "cropped", ""),
    ]
    assert (rows[1]["across_splits"], rows[1]["mirrored"], rows[2]["mirrored"]) == ("yes", "no", "yes")
    assert (rows[3]["label"], rows[3]["seconded"]) == ("normal", "yes")


def test_as_a_page(planted: Collection, findings: Audit) -> None:
    text = audit_report(findings, planted)
    assert text.count("data:image/jpeg;base64,") == 2 * 2 + 1 + 5  # two pairs, the suspect, its neighbours
    assert 'src="http' not in text
    assert "<script" not in text
    assert "radiograph cropped.png, labelled normal" in text
    assert findings.verdict in text
    assert text.index("s00.png") < text.index("s03.png")


def test_a_name_cannot_become_code(planted: Collection, findings: Audit) -> None:
    evil = "<img src=x onerror=alert(1)>"
    assert findings.deep
    twin = replace(findings.deep.near_duplicates[0], cases=(evil, "cropped.png"))
    renamed = tuple(replace(case, case=evil) if case.case == "s00.png" else case for case in planted.cases)
    deep = replace(findings.deep, near_duplicates=(twin,))
    text = audit_report(replace(findings, deep=deep), replace(planted, cases=renamed))
    assert evil not in text
    assert "&lt;img src=x" in text


def test_a_picture_that_has_gone_leaves_a_blank(planted: Collection, findings: Audit) -> None:
    Path(planted.cases[0].path).unlink()
    assert "radiograph s00.png, labelled normal, can no longer be read" in audit_report(findings, planted)


def test_long_pages_are_cut(planted: Collection, findings: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.reports.audit_report.MOST", 1)
    text = audit_report(findings, planted)
    assert "The first 1 of 2 are shown" in text
    assert "mirrored.png" not in text


def test_what_an_index_holds_is_not_encoded_again(
    planted: Collection, encoding: EncodedCollection, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "index"
    build_index(replace(planted, cases=planted.cases[:30]), place, model=model)
    asked: list[str] = []

    def spied(cases, *rest, **more):  # type: ignore[no-untyped-def]
        asked.extend(case.case for case in cases)
        return encoded_batches(cases, *rest, **more)

    monkeypatch.setattr("retrieval.encoding.batches.encoded_batches", spied)
    steps: list[tuple[int, int]] = []
    with Searcher.open(place) as searcher:
        again = encode_collection(planted, searcher, progress=lambda *at: steps.append(at))
        assert again.rules == searcher.rules
    assert asked == [case.case for case in planted.cases[30:]]
    assert again.reused == 30
    assert steps[-1] == (STUDIES + 3, STUDIES + 3)
    assert again.cases == encoding.cases
    assert np.allclose(again.embeddings, encoding.embeddings, atol=1e-6)
    assert np.allclose(again.logits, encoding.logits, atol=1e-5)
    assert [case for case, _ in again.unreadable] == ["bad.png"]


def stop(done: int, total: int) -> None:
    raise KeyboardInterrupt


def test_an_interruption_says_what_is_lost(planted: Collection, model: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="16 of 51 radiographs are encoded and lost; start again"):
        encode_collection(planted, Encoder.open(model), progress=stop)


def test_what_was_encoded_before_an_interruption_is_kept(
    planted: Collection, texture: Draw, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = planted.root / planted.cases[0].path
    first.write_bytes(cv2.imencode(".jpg", texture(0, 80))[1].tobytes()[:-40])  # cut short: read with a warning
    encoder = Encoder.open(model)
    expected = encode_collection(planted, encoder)
    assert [notice.view for notice in expected.notices] == [planted.cases[0].case]

    place = tmp_path / "cache" / "audit" / "one"
    with (
        pytest.raises(KeyboardInterrupt, match="16 of 51 radiographs are done; the same command continues from there"),
        resume_cache(place, planted, encoder.bundle) as cache,
    ):
        encode_collection(planted, encoder, cache=cache, progress=stop)
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700

    asked: list[str] = []

    def spied(cases, *rest, **more):  # type: ignore[no-untyped-def]
        asked.extend(case.case for case in cases)
        return encoded_batches(cases, *rest, **more)

    monkeypatch.setattr("retrieval.encoding.batches.encoded_batches", spied)
    with resume_cache(place, planted, encoder.bundle) as cache:
        again = encode_collection(planted, encoder, cache=cache)
        with resume_cache(place, planted, encoder.bundle) as other:
            assert other is None  # somebody else is at it
    assert asked == [case.case for case in planted.cases[16:]]
    assert list(place.parent.iterdir()) == []
    assert again.reused == 0
    assert (again.cases, again.thumbnails, again.unreadable) == (
        expected.cases,
        expected.thumbnails,
        expected.unreadable,
    )
    assert again.notices == expected.notices
    assert np.allclose(again.embeddings, expected.embeddings, atol=1e-6)
    assert np.allclose(again.logits, expected.logits, atol=1e-5)


def test_a_batch_that_was_not_added_is_warned_of_once(
    planted: Collection, texture: Draw, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = planted.root / planted.cases[0].path
    first.write_bytes(cv2.imencode(".jpg", texture(0, 80))[1].tobytes()[:-40])
    encoder, place = Encoder.open(model), tmp_path / "cache" / "one"

    class Killed(Exception):
        pass

    def kill(*rest: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(IndexBuilder, "add", kill)
        with pytest.raises(Killed), resume_cache(place, planted, encoder.bundle) as cache:
            encode_collection(planted, encoder, cache=cache)
    with resume_cache(place, planted, encoder.bundle) as cache:
        assert cache is not None
        assert cache.metadata("notices")
        found = encode_collection(planted, encoder, cache=cache)
    assert [notice.view for notice in found.notices] == [planted.cases[0].case]


@pytest.mark.parametrize("change", ["file", "table"])
def test_what_was_kept_of_something_else_is_not_used(
    planted: Collection, model: Path, tmp_path: Path, change: str
) -> None:
    encoder, place = Encoder.open(model), tmp_path / "cache" / "one"
    with pytest.raises(KeyboardInterrupt), resume_cache(place, planted, encoder.bundle) as cache:
        encode_collection(planted, encoder, cache=cache, progress=stop)
    if change == "file":
        Path(planted.cases[0].path).write_bytes(Path(planted.cases[1].path).read_bytes())
    else:
        planted = replace(planted, cases=planted.cases[1:])
    with resume_cache(place, planted, encoder.bundle) as cache:
        assert cache is not None
        assert cache.done() == set()


def test_where_nothing_can_be_kept_the_audit_goes_on(planted: Collection, model: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with resume_cache(tmp_path / "cache" / "one", planted, Bundle.open(model)) as cache:
        assert cache is None


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk that is full as soon as a file is so large; Python ignores SIGXFSZ, so writing fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [90_000, 120_000])
def test_a_disk_that_becomes_full_does_not_end_the_audit(
    planted: Collection, encoding: EncodedCollection, model: Path, tmp_path: Path, size: int
) -> None:
    encoder, place = Encoder.open(model), tmp_path / "cache" / "one"
    with resume_cache(place, planted, encoder.bundle) as cache:
        assert cache is not None
        with files_no_larger_than(size):
            found = encode_collection(planted, encoder, cache=cache)
        assert len(cache.done()) < len(encoding.cases)
    assert (found.cases, found.unreadable) == (encoding.cases, encoding.unreadable)
    assert list(place.parent.iterdir()) == []


def test_a_name_that_is_no_text_is_not_kept_and_not_indexed(planted: Collection, model: Path, tmp_path: Path) -> None:
    first, *rest = planted.cases
    path = tmp_path / os.fsdecode(b"\xff.png")
    Path(first.path).rename(path)
    named = replace(planted, cases=(replace(first, case=path.name, path=str(path)), *rest))
    encoder = Encoder.open(model)
    with resume_cache(tmp_path / "cache" / "one", named, encoder.bundle) as cache:
        assert cache is None
    assert encode_collection(named, encoder).cases[0].case == path.name
    with pytest.raises(CollectionError, match=r"the path of \?\.png has bytes that are not UTF-8 text, .*; rename it"):
        build_index(named, tmp_path / "index", model=model)


def test_nothing_readable(planted: Collection, model: Path) -> None:
    with pytest.raises(CollectionError, match="none of the 1 radiographs could be read"):
        encode_collection(replace(planted, cases=planted.cases[-1:]), Encoder.open(model))
