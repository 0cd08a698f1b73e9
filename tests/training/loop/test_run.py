import csv
import json
import signal
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index.case import Case
from retrieval.encoding.bundle import Bundle, digest_number
from retrieval.encoding.encoder import Encoder
from training.data.dataset import TrainingSet
from training.errors import TrainingError
from training.loop.run import Division, RunOptions, Trained, recorded_recipe, train
from training.recipe import Recipe


def finished(trained: Trained | None) -> Trained:
    assert trained is not None
    return trained


def same_answers(a: Path, b: Path, data: TrainingSet) -> None:
    taken, _ = data.take(range(6))
    pictures = list(np.broadcast_to(taken, (*taken.shape[:3], 3)))
    one, two = (Encoder.open(folder).encode_prepared(pictures) for folder in (a, b))
    np.testing.assert_allclose(one.embeddings, two.embeddings, atol=1e-6)
    np.testing.assert_allclose(one.logits, two.logits, atol=1e-6)


@pytest.fixture(scope="module")
def whole(blobs: TrainingSet, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run that nothing interrupted."""
    return finished(train(blobs, replace(recipe, classification=1.0), tmp_path_factory.mktemp("run") / "whole"))


@pytest.mark.usefixtures("real_export")
def test_a_run_gives_a_bundle_that_answers_as_torch_did(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    trained = finished(train(blobs, recipe, tmp_path / "run", RunOptions(name="blobs", provenance={"synthetic": True})))
    assert trained.export_difference <= 1e-4
    bundle = Bundle.open(trained.model)
    assert (bundle.name, bundle.backbone, bundle.dimension) == ("blobs", recipe.backbone, 128)
    assert bundle.synthetic
    assert bundle.provenance["pretrained"] is False
    assert bundle.preprocessing == recipe.preprocessing
    # What the bundle says it has seen are the training patients' files and no others.
    seen = bundle.seen()
    owners = {case.patient for case in blobs.cases if digest_number(case.digest) in seen}
    assert seen == {digest_number(case.digest) for case in blobs.cases if case.patient in owners}
    assert 15 <= len(owners) < 30
    with (tmp_path / "run" / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    assert all(np.isfinite(float(row["triplet"])) for row in rows)
    assert ET.parse(tmp_path / "run" / "metrics.svg").getroot().tag.endswith("svg")
    record = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert record["recipe"] == recipe.to_dict()
    assert record["precision"] in ("float32", "bf16")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_run_interrupted_within_an_epoch_ends_as_an_uninterrupted_one(
    blobs: TrainingSet, recipe: Recipe, whole: Trained, tmp_path: Path, number: signal.Signals
) -> None:
    recipe = replace(recipe, classification=1.0)

    def interrupt(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "train" and done == 6:  # one step into the second epoch; it stops after the next
            assert total == 10
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        train(blobs, recipe, tmp_path / "parts", report=interrupt)
    assert (tmp_path / "parts" / "checkpoint.pt").exists()
    steps: list[int] = []
    resumed = finished(
        train(
            blobs,
            recipe,
            tmp_path / "parts",
            RunOptions(resume=True),
            report=lambda stage, done, total, figures: steps.append(done) if stage == "train" else None,
        )
    )
    assert steps == [8, 9, 10]
    assert [dict(epoch) for epoch in resumed.epochs] == [dict(epoch) for epoch in whole.epochs]
    same_answers(whole.model, resumed.model, blobs)


def test_a_run_of_two_stages_goes_on_wherever_it_is_interrupted(
    blobs: TrainingSet, recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(recipe, crop_epochs=2, crop=64, patience=0)
    told: list[tuple[str, int]] = []

    def note(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        told.append((stage, done))

    whole = finished(train(blobs, recipe, tmp_path / "whole", report=note))
    last = max(done for stage, done in told if stage == "train")
    # Within the crops, between the stages, in the first step and in the last on whole pictures, and after all.
    places = [("train", 2), ("epoch", 2), ("train", last // 2 + 1), ("train", last - 1), ("epoch", 4)]
    for place in places:

        def interrupt(stage: str, done: int, total: int, figures: Mapping[str, float], at: object = place) -> None:
            if (stage, done) == at:
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(KeyboardInterrupt):
            train(blobs, recipe, tmp_path / "parts", RunOptions(resume=True), report=interrupt)
    resumed = finished(train(blobs, recipe, tmp_path / "parts", RunOptions(resume=True)))
    assert len(resumed.epochs) == 4
    assert resumed.epochs == whole.epochs
    assert (resumed.model / "head.safetensors").read_bytes() == (whole.model / "head.safetensors").read_bytes()


def test_a_run_killed_without_warning_goes_on_after_its_last_epoch(
    blobs: TrainingSet, recipe: Recipe, whole: Trained, tmp_path: Path
) -> None:
    recipe = replace(recipe, classification=1.0)

    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "train" and done == 6:
            raise Killed

    with pytest.raises(Killed):
        train(blobs, recipe, tmp_path / "parts", report=kill)
    resumed = finished(train(blobs, recipe, tmp_path / "parts", RunOptions(resume=True)))
    assert resumed.epochs == whole.epochs
    same_answers(whole.model, resumed.model, blobs)


def test_figures_are_there_after_each_epoch_and_time_adds_up(
    blobs: TrainingSet, recipe: Recipe, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "epoch":
            raise Killed

    with pytest.raises(Killed):
        train(blobs, recipe, tmp_path, report=kill)
    (tmp_path / "metrics.svg").unlink()
    (row,) = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    record = json.loads((tmp_path / "recipe.json").read_text())
    assert record["seconds"] > 0
    (tmp_path / "recipe.json").write_text(json.dumps({**record, "seconds": 1000.0}))
    with pytest.raises(Killed):
        train(blobs, recipe, tmp_path, RunOptions(resume=True), report=kill)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    assert (len(rows), rows[0]) == (2, row)
    assert ET.parse(tmp_path / "metrics.svg").getroot().tag.endswith("svg")
    assert finished(train(blobs, recipe, tmp_path, RunOptions(resume=True))).seconds > 1000


def test_a_run_goes_on_with_as_many_processes(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "train":
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(blobs, recipe, tmp_path, report=interrupt)
    record = json.loads((tmp_path / "recipe.json").read_text())
    assert record["processes"] == 1
    (tmp_path / "recipe.json").write_text(json.dumps({**record, "processes": 4}))
    with pytest.raises(TrainingError, match="holds a run of 4 processes; continue with as many"):
        train(blobs, recipe, tmp_path, RunOptions(resume=True))


def test_a_folder_of_another_run_is_not_touched(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": {}, "data_sha256": "other"}))
    with pytest.raises(TrainingError, match="another recipe"):
        train(blobs, recipe, tmp_path, RunOptions(resume=True))
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.json"]


def test_what_is_there_is_gone_on_with_only_when_asked(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, epochs=1)
    done = finished(train(blobs, recipe, tmp_path))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    with pytest.raises(TrainingError, match="holds a finished run of this recipe"):
        train(blobs, recipe, tmp_path)
    again = finished(train(blobs, recipe, tmp_path, RunOptions(resume=True)))
    assert (again.epochs, again.rules, again.model) == (done.epochs, done.rules, done.model)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before
    assert recorded_recipe(tmp_path) == recipe
    with pytest.raises(TrainingError, match="no run to continue"):
        recorded_recipe(tmp_path / "nowhere")


def test_whole_pictures_of_one_part_and_crops_of_all(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    cases = tuple(replace(c, part="hand" if int(c.patient[1:]) % 4 < 2 else "finger") for c in blobs.cases)
    mixed = replace(blobs, cases=cases)
    division = Division.of_cases(cases, replace(recipe, part="hand"))
    learning = mixed.rows(np.array(division.learning))
    assert {case.part for case in learning.cases} == {"hand", "finger"}
    assert {cases[row].part for row in division.holdout} == {"hand"}
    assert not {case.patient for case in learning.cases} & {cases[row].patient for row in division.holdout}
    told: list[tuple[int, int]] = []
    own = replace(recipe, part="hand", crop_epochs=1, crop=64, epochs=1)

    def report(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage == "train":
            told.append((done, total))

    trained = finished(train(mixed, own, tmp_path / "run", report=report))
    hands = len(learning.of_part("hand").cases)
    steps = len(learning.cases) // own.batch + hands // own.batch
    assert told == [(step, steps) for step in range(1, steps + 1)]
    assert len(Bundle.open(trained.model).seen()) == len(learning.cases)  # crops were seen as well
    with pytest.raises(TrainingError, match="no radiograph of foot to learn from; there are: finger, hand"):
        Division.of_cases(cases, replace(recipe, part="foot"))


def test_few_abnormal_patients_are_on_both_sides_and_counted(recipe: Recipe) -> None:
    for name in range(20):
        cases = [Case(f"{p}", f"s{p}", f"{name}-{p}", int(p < 2)) for p in range(40)]
        division = Division.of_cases(cases, replace(recipe, holdout=0.2))
        assert sum(cases[row].label for row in division.holdout) == 1
        assert sorted(division.learning + division.holdout) == list(range(40))
        learned, held = len(division.learning), len(division.holdout)
        assert division.text(cases) == (
            f"learning from {learned - 1} normal and 1 abnormal radiographs of {learned} patients; held out for "
            f"validation and calibration: {held - 1} normal and 1 abnormal radiographs of {held} patients"
        )
    parted = [replace(case, part="hand" if case.label else "foot") for case in cases]
    with pytest.raises(TrainingError, match="no part has radiographs of both labels"):
        Division.of_cases(parted, recipe)
    cases[1] = replace(cases[1], label=0)
    with pytest.raises(TrainingError, match=r"no abnormal radiograph .* 1 of 40 patients"):
        Division.of_cases(cases, recipe)


def test_one_label_cannot_be_learned(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    normal = blobs.rows(np.flatnonzero([case.label == 0 for case in blobs.cases]))
    with pytest.raises(TrainingError, match="0 of 15 patients"):
        train(normal, recipe, tmp_path)


SHUFFLED = pytest.param({"sampling": "shuffled", "triplet": 0.0}, marks=pytest.mark.slow)


@pytest.mark.parametrize("change", [{"second_stage": False}, SHUFFLED])
def test_it_learns_what_a_blob_is(
    blobs: TrainingSet, recipe: Recipe, tmp_path: Path, change: Mapping[str, object]
) -> None:
    longer = replace(recipe, epochs=12, classification=1.0, learning_rate=1e-3, patience=0, **change)  # type: ignore[arg-type]
    trained = finished(train(blobs, longer, tmp_path))
    assert trained.epochs[-1]["classification"] < 0.6 * trained.epochs[0]["classification"]
    # The bundle's own classifier tells patients apart on whom the network was not trained.
    encoder = Encoder.open(trained.model)
    seen = encoder.bundle.seen()
    rows = [i for i, case in enumerate(blobs.cases) if digest_number(case.digest) not in seen]
    pictures, _ = blobs.take(rows)
    logits = encoder.encode_prepared(list(np.broadcast_to(pictures, (*pictures.shape[:3], 3)))).logits
    labels = np.array([blobs.cases[i].label for i in rows])
    wins = (logits[labels == 1][:, None] > logits[labels == 0]).mean()
    assert wins > 0.8


def test_patience_keeps_the_best_epoch_and_stops(blobs: TrainingSet, recipe: Recipe, tmp_path: Path) -> None:
    patient = replace(recipe, epochs=30, patience=1, learning_rate=1e-12, head_learning_rate=1e-12)
    trained = finished(train(blobs, patient, tmp_path))
    # Nothing is learned at such rates, so the second epoch is not better than the first.
    assert len(trained.epochs) == 2


def test_a_run_that_was_recorded_before_a_field_existed_is_the_same_run(
    blobs: TrainingSet, recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(recipe, epochs=1)
    done = finished(train(blobs, recipe, tmp_path))
    record = json.loads((tmp_path / "recipe.json").read_text())
    del record["recipe"]["shown"]
    (tmp_path / "recipe.json").write_text(json.dumps(record))
    assert finished(train(blobs, recipe, tmp_path, RunOptions(resume=True))).epochs == done.epochs
    with pytest.raises(TrainingError, match="another recipe"):
        train(blobs, replace(recipe, shown=32), tmp_path, RunOptions(resume=True))
    del record["recipe"]["epochs"]  # 1, and the default is another
    (tmp_path / "recipe.json").write_text(json.dumps(record))
    with pytest.raises(TrainingError, match="another recipe"):
        train(blobs, recipe, tmp_path, RunOptions(resume=True))


def test_what_is_shown_smaller_in_training_is_encoded_at_its_full_size(
    blobs: TrainingSet, recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(recipe, epochs=1, shown=32)
    trained = finished(train(blobs, recipe, tmp_path))
    assert Bundle.open(trained.model).preprocessing.size == recipe.size == 64
    assert trained.export_difference <= 1e-4
