"""Figures kept in an index are shown with its answers, and with no others."""

from dataclasses import replace
from pathlib import Path

from retrieval.decision.kept_evaluation import EvaluatedFigure, KeptEvaluation
from retrieval.wording import evaluation_text
from tests.cli.test_render_answer import ANSWER

KEPT = KeptEvaluation(
    studies=120,
    abnormal=40,
    made="2026-11-30",
    generation=0,
    figures=(
        EvaluatedFigure("classifier", "auroc", 0.911, 0.85, 0.96),
        EvaluatedFigure("knn", "auroc", 0.9, None, None),
        EvaluatedFigure("knn", "sensitivity", None, None, None),
    ),
    index="a",
    model="b",
)


def test_figures_are_kept_for_their_index_and_model_alone(tmp_path: Path) -> None:
    assert KeptEvaluation.read(tmp_path, "a", "b") is None
    KEPT.write(tmp_path)
    assert KeptEvaluation.read(tmp_path, "a", "b") == KEPT
    assert KeptEvaluation.read(tmp_path, "another", "b") is None
    assert KeptEvaluation.read(tmp_path, "a", "another") is None


def test_a_damaged_file_is_no_evaluation(tmp_path: Path) -> None:
    KEPT.write(tmp_path)
    (file,) = tmp_path.iterdir()
    for text in (
        "",
        "[]",
        "{}",
        '{"figures": 1}',
        '{"figures": [[{}]]}',
        file.read_text().replace("120", '"many"')[:-3],
    ):
        file.write_text(text)
        assert KeptEvaluation.read(tmp_path, "a", "b") is None


def test_the_sentence_says_how_good_it_is_and_when_it_no_longer_holds() -> None:
    text = evaluation_text(replace(ANSWER, evaluation=KEPT))
    assert text == (
        "Measured on 120 studies (40 abnormal) of other patients on 2026-11-30: classifier AUROC 0.91 (0.85 to 0.96); "
        "vote AUROC 0.90. Intervals are 95 %."
    )
    assert "the index has changed since" in evaluation_text(replace(ANSWER, evaluation=replace(KEPT, generation=7)))
    assert evaluation_text(ANSWER) == ""
