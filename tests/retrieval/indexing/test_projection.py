"""The map of an index: where studies lie, what is kept with each, and what changes with the index."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.errors import IndexFailure, MissingExtra
from index.filing import FilingWriter
from index.reader import IndexReader
from index.writer import IndexWriter
from retrieval.datasets.collection import Collection
from retrieval.indexing import projection
from retrieval.indexing.build import build_index
from retrieval.indexing.projection import project_index, project_rows, stored_places
from retrieval.searcher import Searcher

STUDIES = [
    ("ann", "s1", 0, [20, 25]),
    ("bob", "s2", 0, [40]),
    ("cid", "s3", 1, [215]),
    ("dee", "s4", 1, [235]),
    ("eve", "s5", 0, [30]),
]


@pytest.fixture
def place(squares: Callable[..., Collection], model: Path, tmp_path: Path) -> Path:
    build_index(squares(STUDIES), tmp_path / "index", model=model)
    return tmp_path / "index"


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_groups_stay_apart_and_a_seed_gives_the_same_map(method: str) -> None:
    if method == "tsne":
        pytest.importorskip("openTSNE", reason="openTSNE is not installed")
    rng = np.random.default_rng(1)
    groups = np.repeat([0, 1], 40)
    rows = (rng.normal(0, 0.1, (80, 60)) + groups[:, None] * np.ones(60)).astype(np.float32)
    places = project_rows(rows, method)
    assert places.shape == (80, 2)
    assert (places.min(), places.max()) == (0, 1)
    near = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(near, np.inf)
    assert np.mean(groups[near.argmin(1)] == groups) == 1
    assert np.array_equal(places, project_rows(rows, method))


def test_the_plane_of_points_in_a_plane_is_that_plane() -> None:
    flat = np.zeros((4, 5), np.float32)
    flat[:, 1], flat[:, 3] = [0, 6, 0, 6], [0, 0, 2, 2]
    places = project_rows(flat)
    assert np.allclose(np.sort(places, axis=0), [[0, 0], [0, 0], [1, 1], [1, 1]])


@pytest.mark.parametrize("count", [1, 2])
def test_few_or_equal_rows_lie_in_the_middle(count: int) -> None:
    assert np.array_equal(project_rows(np.ones((count, 3), np.float32)), np.full((count, 2), 0.5, np.float32))


def test_an_unknown_method() -> None:
    with pytest.raises(ValueError, match="a method is one of tsne, pca, not umap"):
        project_rows(np.ones((3, 3), np.float32), "umap")


def test_t_sne_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    with pytest.raises(MissingExtra, match="openTSNE"):
        project_rows(np.eye(5, dtype=np.float32), "tsne")


def test_each_study_has_a_place_with_its_probabilities(place: Path) -> None:
    made = project_index(place, method="pca")
    assert (made.studies, made.method) == (5, "pca")
    with Searcher.open(place) as searcher:
        places = stored_places(searcher.index)
        assert searcher.index.verify()
        assert searcher.index.history()[-1]["action"] == "project"
        for study in ("s1", "s3"):
            cases = searcher.index.find("study", [study])
            answer = searcher.search([Path(case.path) for case in cases])
            assert places[study].classifier == pytest.approx(answer.classifier.probability, abs=1e-6)
            assert places[study].vote == pytest.approx(answer.knn.probability, abs=1e-6)
    apart = {study: abs(places[study].x - places["s1"].x) for study in places}
    assert max(apart["s2"], apart["s5"]) < min(apart["s3"], apart["s4"])  # dark ones beside dark ones


def test_what_is_added_has_no_place_and_what_is_removed_none_any_more(
    place: Path, squares: Callable[..., Collection]
) -> None:
    from retrieval.indexing.update import add_to_index

    project_index(place, method="pca")
    add_to_index(squares([("fay", "s6", 1, [200])], "more"), place)
    with IndexWriter.open(place) as writer:
        writer.remove({"study": ["s2"]})
    with FilingWriter.open(place) as filing:
        filing.set_aside("s4", "why")
        filing.undo()
    with IndexReader.open(place) as reader:
        assert set(stored_places(reader)) == {"s1", "s3", "s4", "s5"}


def test_a_change_meanwhile_is_noticed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = projection.project_rows

    def change(embeddings: "projection.Floats", method: str, *others: object) -> "projection.Floats":
        with IndexWriter.open(place) as writer:
            writer.relabel("s1", 1)
        return whole(embeddings, method)

    monkeypatch.setattr(projection, "project_rows", change)
    with pytest.raises(IndexFailure, match=r"changed (meanwhile|while its map was made)"):
        project_index(place, method="pca")


def test_an_interruption_leaves_the_index_as_it_was(place: Path) -> None:
    pytest.importorskip("openTSNE", reason="openTSNE is not installed")
    seen: list[tuple[str, int, int]] = []

    def interrupt(*done: object) -> None:
        seen.append(done)  # type: ignore[arg-type]  # what a progress function gets
        if len(seen) == 30:
            raise KeyboardInterrupt

    with IndexReader.open(place) as reader:
        before = reader.generation
    with pytest.raises(KeyboardInterrupt):
        project_index(place, method="tsne", progress=interrupt)
    assert seen[0] == ("placing", 10, 750)
    assert seen[-1] == ("placing", 300, 750)
    with IndexReader.open(place) as reader:
        assert stored_places(reader) == {}
        assert reader.generation == before
