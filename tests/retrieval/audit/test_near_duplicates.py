"""Near duplicates: sieves against plain loops, and small collections whose copies are known."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest

from index.case import Case
from retrieval.audit import near_duplicates as near_duplicates_module
from retrieval.audit.near_duplicates import NearDuplicate, joined_patients, near_duplicates, similarity_limit
from retrieval.audit.perceptual_hash import ORIENTATIONS, perceptual_hashes

Draw = Callable[..., np.ndarray]


def unit(vectors: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, float)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def case(name: str, patient: str = "", label: int = 0, split: str = "", digest: str = "") -> Case:
    return Case(name, f"study {name}", patient or name, label, split=split, digest=digest)


def found(cases: Sequence[Case], pictures: Sequence[np.ndarray], limit: float | None = None) -> list[NearDuplicate]:
    embeddings = unit(np.ones((len(cases), 3)))
    return near_duplicates(cases, embeddings, [png(picture) for picture in pictures], limit)


def cropped(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture[4:, :-3])


def test_copies_are_found_and_what_they_cross(texture: Draw) -> None:
    one = texture(1)
    cases = [
        case("a", "p", 0, "train"),
        case("b", "q", 0, "train"),
        case("c", "p", 1, "valid"),
        case("d", "r", 0, "train"),
    ]
    pictures = [one, texture(2), cropped(one), (one * 0.8 + 10).astype(np.uint8)]
    pairs = {twin.cases: twin for twin in found(cases, pictures)}
    assert list(pairs) == [("a", "c"), ("a", "d"), ("c", "d")]
    crossed = {
        names: (twin.across_splits, twin.across_patients, twin.across_studies, twin.across_labels)
        for names, twin in pairs.items()
    }
    assert crossed == {
        ("a", "c"): (True, False, True, True),
        ("a", "d"): (False, True, True, False),
        ("c", "d"): (True, True, True, True),
    }
    assert pairs["a", "d"].bits <= 2
    assert pairs["a", "d"].match > 0.98
    assert pairs["a", "d"].similarity == pytest.approx(1)
    assert not any(twin.mirrored for twin in pairs.values())


def test_a_mirror_image_is_found(texture: Draw) -> None:
    (twin,) = found([case("a"), case("b")], [texture(1), np.ascontiguousarray(texture(1)[:, ::-1])])
    assert twin.mirrored
    assert twin.bits <= 1


CHANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], dict[str, object]]] = {
    "inverted": (lambda picture: 255 - picture, {"inverted": True}),
    "turned": (np.rot90, {"turned": 90}),
    "turned right": (lambda picture: np.rot90(picture, -1), {"turned": 270}),
    "upside down": (lambda picture: picture[::-1, ::-1], {"turned": 180}),
    "flipped": (lambda picture: picture[::-1], {"turned": 180, "mirrored": True}),
    "inverted and turned": (lambda picture: 255 - np.rot90(picture), {"inverted": True, "turned": 90}),
    "black border": (lambda picture: np.pad(picture, 20), {"border": True}),
    "white border": (lambda picture: np.pad(picture, ((0, 30), (15, 0)), constant_values=255), {"border": True}),
    "letterboxed": (lambda picture: np.pad(picture, ((0, 0), (30, 30))), {"border": True}),
    "border, then inverted": (lambda picture: 255 - np.pad(picture, 20), {"border": True, "inverted": True}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_radiograph_is_found_with_its_change(texture: Draw, change: str) -> None:
    """The embeddings of the two say nothing: a turned or inverted radiograph has another one."""
    changed, fields = CHANGES[change]
    pictures = [texture(1), texture(2), np.ascontiguousarray(changed(texture(1))), texture(3)]
    embeddings = unit(np.eye(4))
    pairs = near_duplicates([case(name) for name in "abcd"], embeddings, [png(picture) for picture in pictures], 0.9)
    (pair,) = pairs
    assert pair.cases == ("a", "c")
    plain: dict[str, object] = {"mirrored": False, "turned": 0, "inverted": False, "border": False}
    assert {name: getattr(pair, name) for name in plain} == plain | fields


def test_the_same_frame_around_two_radiographs_makes_no_near_duplicate(texture: Draw) -> None:
    framed = [np.pad(texture(seed), ((30, 20), (10, 40)), constant_values=255) for seed in (1, 2, 3)]
    assert found([case("a"), case("b"), case("c")], framed) == []
    assert [pair.cases for pair in found([case("a"), case("b")], [framed[0]] * 2)] == [("a", "b")]


def test_files_that_are_the_same_are_not_listed_again(texture: Draw) -> None:
    cases = [case("a", digest="1"), case("b", digest="1"), case("c", digest="2")]
    assert [twin.cases for twin in found(cases, [texture(1)] * 3)] == [("a", "c"), ("b", "c")]


def test_copies_elsewhere_are_all_that_is_looked_for(texture: Draw) -> None:
    cases, thumbnails = [case(name) for name in "abcde"], [png(texture(seed)) for seed in (1, 1, 2, 1, 2)]
    thumbnails[0] = png(np.zeros((50, 40), np.uint8))  # is like anything, and left out
    twins_of = near_duplicates(cases, unit(np.ones((5, 3))), thumbnails, None, asked=3)
    assert [twin.cases for twin in twins_of] == [("b", "d"), ("c", "e")]


def test_what_is_no_picture_is_like_nothing(texture: Draw) -> None:
    cases, thumbnails = [case(name) for name in "abcd"], [b"", png(texture(1)), b"no picture", png(texture(1))]
    for asked in (None, 2):
        twins_of = near_duplicates(cases, unit(np.ones((4, 3))), thumbnails, None, asked=asked)
        assert [twin.cases for twin in twins_of] == [("b", "d")]


def test_blank_pictures_are_no_copies_of_each_other() -> None:
    blank = np.zeros((50, 40), np.uint8)
    assert found([case("a"), case("b")], [blank, blank]) == []


def test_pictures_not_near_by_hash_need_alike_embeddings(texture: Draw) -> None:
    pictures = [texture(1), cropped(texture(1))]
    hashes = [perceptual_hashes(picture) for picture in pictures]
    assert hashes[0]
    assert hashes[1]
    assert near_duplicates_module.SURE < (hashes[0][0] ^ hashes[1][0]).bit_count() <= near_duplicates_module.NEAR
    cases, thumbnails = [case("a"), case("b")], [png(picture) for picture in pictures]
    for vectors, count in (([[1, 0.1], [1, 0]], 1), ([[1, 0], [0, 1]], 0)):
        assert len(near_duplicates(cases, unit(np.array(vectors)), thumbnails, 0.9)) == count


@pytest.mark.parametrize("limit", [None, 0.2])
@pytest.mark.parametrize("asked", [None, 8])
def test_candidates_are_those_of_a_plain_loop(
    texture: Draw, monkeypatch: pytest.MonkeyPatch, limit: float | None, asked: int | None
) -> None:
    monkeypatch.setattr("retrieval.audit.near_duplicates.CLOSEST", 99)
    monkeypatch.setattr("retrieval.audit.near_duplicates.CLOSEST_ELSEWHERE", 99)
    monkeypatch.setattr("retrieval.audit.perceptual_hash._CHUNK", 20)
    pictures = [texture(seed) for seed in range(10)]
    pictures += [cropped(picture) for picture in pictures[:5]] + [np.ascontiguousarray(pictures[7][:, ::-1])]
    pictures += [np.ascontiguousarray(np.rot90(pictures[0])), 255 - pictures[1]]
    embeddings = unit(np.random.default_rng(0).normal(size=(len(pictures), 3)))
    embeddings[10:13] = embeddings[:3]
    hashes = [perceptual_hashes(picture) or () for picture in pictures]
    wanted = set()
    for two in range(len(pictures)):
        for one in range(two):
            if asked is not None and not one < asked <= two:
                continue
            alike = limit is None or float(embeddings[one] @ embeddings[two]) >= limit
            for number, orientation in enumerate(ORIENTATIONS):
                bits = (hashes[one][number] ^ hashes[two][0]).bit_count()
                upright = alike and not orientation.turns and (bits <= near_duplicates_module.NEAR or number == 0)
                changed = near_duplicates_module.CHANGED
                if bits <= (changed if orientation.turns else near_duplicates_module.SURE) or upright:
                    wanted.add((one, two, orientation, False))
                if 64 - bits <= changed:
                    wanted.add((one, two, orientation, True))
    got = near_duplicates_module._candidates([png(picture) for picture in pictures], embeddings, limit, asked)
    assert {(pair.first, pair.second, pair.orientation, pair.inverted) for pair in got} == wanted
    pairs = {(pair.first, pair.second) for pair in got}
    assert {(0, 10), (1, 11), (2, 12), (7, 15), (0, 16), (1, 17)} <= pairs


def test_only_the_closest_are_compared(texture: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.audit.near_duplicates.CLOSEST", 1)
    embeddings = unit([[1, 0], [1, 0.5], [1, 0.4], [1, 0.1]])
    thumbnails = [png(cropped(texture(1))), *[png(texture(1))] * 3]
    got = near_duplicates_module._candidates(thumbnails, embeddings, None)
    assert (0, 3) in {(pair.first, pair.second) for pair in got}  # nearest to the first
    assert (0, 1) not in {(pair.first, pair.second) for pair in got}


def test_progress_is_told(texture: Draw) -> None:
    steps: list[tuple[int, int]] = []
    thumbnails = [png(texture(1))] * 3
    near_duplicates(
        [case(name) for name in "abc"], unit(np.ones((3, 2))), thumbnails, None, progress=lambda *at: steps.append(at)
    )
    assert steps == [(3, 3)]


def test_the_limit_by_hand() -> None:
    cases = [case("a", "p"), case("b", "p"), case("c", "q")]
    of = similarity_limit(cases, unit([[1, 0], [0, 1], [1, 0]]))
    assert of.limit == pytest.approx(0.9)  # between patients: 0 and 1, and a straight line between them
    assert of.within == 0  # the cosine of a and b is 0


def test_one_patient_has_no_limit() -> None:
    of = similarity_limit([case("a", "p"), case("b", "p")], unit([[1, 0], [0, 1]]))
    assert (of.limit, of.within) == (None, None)


def test_a_sample_settles_the_limit_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case(f"{row}", f"p{row // 2}") for row in range(200)]
    embeddings = unit(np.random.default_rng(1).normal(size=(200, 8)))
    exact = similarity_limit(cases, embeddings)
    monkeypatch.setattr("retrieval.audit.near_duplicates._PAIRS", 10_000)
    sampled = similarity_limit(cases, embeddings)
    assert exact.limit
    assert sampled.limit == pytest.approx(exact.limit, abs=0.02)


def test_patients_who_share_a_radiograph_are_one() -> None:
    cases = [case("a", "p"), case("b", "q"), case("c", "r"), case("d", "s"), case("e", "q")]
    owners = joined_patients(cases, [("a", "b"), ("c", "e")])
    assert owners[0] == owners[1] == owners[2] == owners[4]
    assert owners[3] == "s"
    assert joined_patients(cases, []) == ["p", "q", "r", "s", "q"]
