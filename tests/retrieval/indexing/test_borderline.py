import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval.datasets.collection import Collection
from retrieval.decision.borderline import Borderline, width
from retrieval.decision.fit_rules import learn_rules
from retrieval.decision.rules import DEFAULTS, Rules
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.encoder import Encoded, Encoder
from retrieval.images.radiograph import read_radiograph
from retrieval.indexing.borderline import with_borderline

Squares = Callable[..., Collection]


def test_a_width_is_the_68th_percentile_of_the_shifts_that_are_numbers() -> None:
    shifts = np.array([-0.4, 0.1, np.nan, 0.2, 0.3, np.inf, 0.0])
    assert width(shifts) == pytest.approx(np.quantile([0.0, 0.1, 0.2, 0.3, 0.4], 0.68), abs=1e-4)
    assert width(np.array([])) == 0
    assert width(np.random.default_rng(0).normal(0, 0.1, 20_000)) == pytest.approx(0.1, rel=0.03)  # a deviation


@pytest.mark.parametrize("widths", [{"classifier": 0.1}, {"classifier": 2, "knn": 0, "similarity": 0}, [0.1], "x"])
def test_invalid_widths_are_refused(widths: object) -> None:
    with pytest.raises(ValueError, match="widths of borderline"):
        Borderline.from_dict(widths)


def test_rules_keep_the_widths_and_older_rules_have_none() -> None:
    rules = dataclasses.replace(DEFAULTS, borderline=Borderline(0.1, 0.2, 0.01))
    assert Rules.from_dict(rules.to_dict()) == rules
    older = {name: value for name, value in rules.to_dict().items() if name != "borderline"}
    assert Rules.from_dict(older).borderline is None


def grey_studies(count: int) -> list[tuple[str, str, int, list[int]]]:
    """A patient a study; the brighter, the more often abnormal."""
    generator = np.random.default_rng(3)
    levels = generator.integers(30, 226, count)
    return [(f"p{n}", f"s{n}", int(generator.random() < level / 255), [int(level)]) for n, level in enumerate(levels)]


def learned(collection: Collection, model: Path, **options: object) -> tuple[Rules, Rules]:
    """The rules without the widths, and with them."""
    encoder = Encoder.open(model)
    encoded = encoder.encode([read_radiograph(Path(case.path)).pixels for case in collection.cases])
    studies = LabelledStudies(collection.cases, encoded.embeddings, encoded.logits)
    rules = learn_rules(studies)
    return rules, with_borderline(rules, studies, encoder=encoder, **options)  # type: ignore[arg-type]


def test_the_widths_are_those_that_changes_of_grey_levels_bring(squares: Squares, model: Path) -> None:
    """The model sees the mean grey alone: of the mild changes, gamma, window and contrast move it by up to 0.05."""
    before, after = learned(squares(grey_studies(80)), model)
    assert before.borderline is None
    assert after.borderline is not None
    assert dataclasses.replace(after, borderline=None) == before
    assert 0 < after.borderline.classifier < 0.1
    assert 0 < after.borderline.knn < 0.1
    assert after.borderline.similarity < 0.01


def test_the_same_studies_give_the_same_widths(squares: Squares, model: Path) -> None:
    collection = squares(grey_studies(60))
    assert learned(collection, model)[1] == learned(collection, model, workers=1)[1]


def test_no_more_radiographs_are_encoded_than_the_budget(
    squares: Squares, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection, encoder = squares(grey_studies(60)), Encoder.open(model)
    encoded = encoder.encode([read_radiograph(Path(case.path)).pixels for case in collection.cases])
    studies = LabelledStudies(collection.cases, encoded.embeddings, encoded.logits)
    rules = learn_rules(studies)
    sizes: list[int] = []
    encode = Encoder.encode_prepared

    def counted(self: Encoder, pictures: list[np.ndarray]) -> Encoded:
        sizes.append(len(pictures))
        return encode(self, pictures)

    monkeypatch.setattr(Encoder, "encode_prepared", counted)
    assert with_borderline(rules, studies, encoder=encoder, budget=30).borderline
    assert sum(sizes) == 30


def test_rules_stay_where_studies_or_files_are_too_few(squares: Squares, model: Path) -> None:
    few = learned(squares(grey_studies(12), "few"), model)
    assert few[1] is few[0]
    gone = squares(grey_studies(80), "gone")
    before, after = learned(gone, model, paths={case.case: case.path + ".gone" for case in gone.cases})
    assert after is before
