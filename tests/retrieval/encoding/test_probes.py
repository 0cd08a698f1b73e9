import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from index.case import Case
from retrieval.decision.familiarity import familiarity
from retrieval.decision.fit_rules import learn_rules
from retrieval.decision.rules import Rules
from retrieval.decision.tail_limit import normal_limit
from retrieval.decision.teachers import LabelledStudies
from retrieval.encoding.bundle import APPEARANCE, BUNDLED, Bundle, digest_number
from retrieval.encoding.encoder import Encoder
from retrieval.encoding.probes import NOTHING, Appearance
from retrieval.errors import BundleError
from retrieval.images.radiograph import file_digest, read_radiograph

SHARED = Path(__file__).parents[4] / "shared" / "data"

# Of embeddings of four numbers: the first two are for a hand and a leg, the third for inverted, the last for turned.
LOOKS = Appearance(
    ("hand", "leg", "other_part"), np.eye(5, 4, dtype=np.float32)[[0, 1, 4, 2, 3]] * 4, np.zeros(5, "f4")
)


def embedding(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_margins_by_hand() -> None:
    margins = LOOKS.margins(embedding(1, 0.5, 0.25, -0.25), ["hand"])
    # Log-odds of parts: 4, 2 and 0.
    assert margins[0] == pytest.approx([4 - np.log(np.exp(2) + 1), -1, 1], rel=1e-6)
    both = LOOKS.margins(embedding(1, 0.5, 0.25, -0.25), ["hand", "leg"])
    assert both[0, 0] == pytest.approx(np.log(np.exp(4) + np.exp(2)), rel=1e-6)


@pytest.mark.parametrize("known", [[], ["foot"], ["hand", "leg", "other_part"]])
def test_a_part_is_not_judged_where_there_is_nothing_to_tell_apart(known: list[str]) -> None:
    assert LOOKS.margins(embedding(0, 1, 0, 0), known)[0, 0] == np.inf


def test_what_was_dumped_is_parsed() -> None:
    looks = dataclasses.replace(LOOKS, parts=("hand", "", "a\nb"))
    again = Appearance.parse(looks.dump(), 4)
    assert again.parts == looks.parts
    assert (again.weight == looks.weight).all()
    assert (again.bias == looks.bias).all()


@pytest.mark.parametrize("damage", ["no safetensors", "another dimension", "too few parts"])
def test_layers_that_do_not_fit_are_refused(damage: str) -> None:
    data, dimension = LOOKS.dump(), 4
    if damage == "no safetensors":
        data = data[:20]
    elif damage == "another dimension":
        dimension = 5
    else:
        data = dataclasses.replace(LOOKS, parts=("hand",)).dump()
    with pytest.raises(BundleError, match=r"appearance\.safetensors"):
        Appearance.parse(data, dimension)


def test_a_bundle_holds_its_layers_and_notices_damage(
    model: Path, tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    assert Bundle.open(model).appearance() is None
    folder = make_model(tmp_path / "looks", appearance=Appearance(("hand",), np.ones((3, 2), "f4"), np.ones(3, "f4")))
    assert Encoder.open(folder).appearance is not None
    (folder / APPEARANCE).write_bytes((folder / APPEARANCE).read_bytes()[:-1] + b"\1")
    with pytest.raises(BundleError, match=r"damaged: appearance\.safetensors"):
        Bundle.open(folder)


RULES = Rules(familiarity_limit=0.5, parts=("hand",), appearance_limits=(-1.0, -2.0, -3.0))


@pytest.mark.parametrize(
    ("views", "nearest", "reasons"),
    [
        ([(1, 0, 0, 0)], [0.6], []),
        ([(1, 0, 0, 0)], [0.4], ["nothing indexed is like it (similarity 0.400, limit 0.500)"]),
        ([(0, 1, 0, 0)], [0.6], ["it looks like another body part: leg, not hand"]),
        ([(-1, 0, 0, 0)], [0.6], ["it looks like another body part: other part, not hand"]),
        ([(1, 0, 0.6, 0)], [0.6], ["it looks inverted: black bones on white"]),
        ([(1, 0, 0, 0.8)], [0.6], ["it seems to lie on its side"]),
        ([(1, 0, 0.4, 0.7)], [0.6], []),
        ([(1, 0, 0, 0), (0, 1, 0, 0)], [0.6, 0.4], ["nothing indexed", "it looks like another body part"]),
    ],
)
def test_the_least_familiar_view_decides(
    views: list[tuple[float, ...]], nearest: list[float], reasons: list[str]
) -> None:
    found = familiarity(np.array(views, np.float32), nearest, RULES, LOOKS)
    assert found.familiar is (not reasons)
    assert len(found.reasons) == len(reasons)
    assert all(told.startswith(reason) for told, reason in zip(found.reasons, reasons, strict=True))
    assert found.similarity == min(nearest)


# The same with "none" instead of another part.
WITH_NONE = dataclasses.replace(LOOKS, parts=("hand", "leg", NOTHING))


def test_what_is_no_radiograph_is_not_called_another_part() -> None:
    found = familiarity(embedding(-1, -1, 0, 0), [0.6], RULES, WITH_NONE)
    assert found.reasons == ("it looks like no radiograph of hand",)
    both = dataclasses.replace(RULES, parts=("hand", "leg"))
    assert familiarity(embedding(0, 1, 0, 0), [0.6], both, WITH_NONE).familiar
    found = familiarity(embedding(-1, -1, 0, 0), [0.6], both, WITH_NONE)  # the model knows no other part
    assert found.reasons == ("it looks like no radiograph of hand or leg",)


def test_what_is_no_radiograph_is_never_one_of_the_parts_of_an_index() -> None:
    cases, embeddings, logits = collection(150, part=NOTHING)
    embeddings[:40] = (-0.7, -0.7, 0, 0)
    assert WITH_NONE.part(embeddings[:1]) == [NOTHING]
    rules = learn_rules(LabelledStudies(cases, embeddings, logits), appearance=WITH_NONE)
    assert rules.parts == ("hand",)
    assert WITH_NONE.margins(embeddings[:1], (NOTHING,))[0, 0] == np.inf  # none of what is known can be told apart


def test_without_anything_to_compare_with_nobody_knows() -> None:
    assert familiarity(embedding(1, 0, 0, 0), [None], RULES, LOOKS).familiar is None
    assert familiarity(embedding(0, 1, 0, 0), [0.6], dataclasses.replace(RULES, appearance_limits=()), LOOKS).familiar
    assert familiarity(embedding(0, 1, 0, 0), [0.6], RULES, None).familiar


def collection(studies: int, part: str = "hand") -> tuple[list[Case], np.ndarray, np.ndarray]:
    dice = np.random.default_rng(1)
    cases = [Case(f"c{n}", f"s{n // 2}", f"p{n // 2}", n // 2 % 2, part) for n in range(2 * studies)]
    rows = dice.standard_normal((len(cases), 4)) * 0.1 + (1, 0, 0, 0)
    return cases, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), np.zeros(len(cases), "f4")


def test_each_limit_gets_its_share_of_the_false_alarms() -> None:
    cases, embeddings, logits = collection(150)
    rules = learn_rules(LabelledStudies(cases, embeddings, logits), appearance=LOOKS)
    assert rules.parts == ("hand",)
    worst = LOOKS.margins(embeddings, ("hand",)).reshape(150, 2, 3).min(1)  # two views a study
    assert rules.appearance_limits == pytest.approx([-normal_limit(-own, 0.005 / 4) for own in worst.T], abs=1e-6)
    assert rules.familiarity_limit <= learn_rules(LabelledStudies(cases, embeddings, logits)).familiarity_limit
    nearest = [1.0] * 2
    flagged = [familiarity(embeddings[2 * n : 2 * n + 2], nearest, rules, LOOKS).familiar is False for n in range(150)]
    assert sum(flagged) <= 3  # one for each of three limits
    assert Rules.from_dict(json.loads(json.dumps(rules.to_dict()))) == rules


def test_a_part_is_familiar_by_name_or_by_being_common() -> None:
    cases, embeddings, logits = collection(150, part="knuckle")
    embeddings[:20] = (0, 1, 0, 0)  # radiographs that look like legs: 7 %
    assert learn_rules(LabelledStudies(cases, embeddings, logits), appearance=LOOKS).parts == ("hand", "leg")
    embeddings[:10] = (1, 0, 0, 0)  # 3 %
    assert learn_rules(LabelledStudies(cases, embeddings, logits), appearance=LOOKS).parts == ("hand",)
    named = [dataclasses.replace(case, part="other_part") if n < 2 else case for n, case in enumerate(cases)]
    assert learn_rules(LabelledStudies(named, embeddings, logits), appearance=LOOKS).parts == ("hand", "other_part")


def test_rules_taken_over_know_the_parts_of_the_index() -> None:
    cases, embeddings, logits = collection(10)
    own = dataclasses.replace(RULES, parts=LOOKS.parts)
    rules = learn_rules(LabelledStudies(cases, embeddings, logits), appearance=LOOKS, fallback=own)
    assert rules == dataclasses.replace(own, parts=("hand",))


def test_a_limit_of_some_parts_together_is_not_taken_over_for_fewer() -> None:
    cases, embeddings, logits = collection(10)
    assert len(LOOKS.parts) > 2
    own = dataclasses.replace(RULES, parts=LOOKS.parts[:2])
    rules = learn_rules(LabelledStudies(cases, embeddings, logits), appearance=LOOKS, fallback=own)
    assert rules == dataclasses.replace(own, parts=tuple(part for part in LOOKS.parts if part in {"hand", *own.parts}))


def test_where_all_parts_are_known_the_limit_is_that_of_the_own_part() -> None:
    cases, embeddings, logits = collection(150)
    dice = np.random.default_rng(2)
    kinds = [LOOKS.parts[n // 2 % 3] for n in range(300)]
    cases = [dataclasses.replace(case, part=part) for case, part in zip(cases, kinds, strict=True)]
    embeddings = (
        0.1 * dice.standard_normal((300, 4)) + np.eye(3, 4)[[LOOKS.parts.index(part) for part in kinds]]
    ).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    rules = learn_rules(LabelledStudies(cases, embeddings, logits), appearance=LOOKS)
    assert rules.parts == LOOKS.parts
    own = [LOOKS.margins(embeddings[n : n + 1], [kinds[n]])[0, 0] for n in range(300)]
    limit = -normal_limit(-np.reshape(own, (150, 2)).min(1), 0.005 / 4)
    assert rules.appearance_limits[0] == pytest.approx(limit, abs=1e-6)


@pytest.mark.parametrize(
    "change", [{"parts": "hand"}, {"parts": [1]}, {"appearance_limits": [1.0]}, {"appearance_limits": [1, 2, None]}]
)
def test_rules_of_appearance_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="decision rules"):
        Rules.from_dict({**RULES.to_dict(), **change})


def test_rules_from_before_have_none() -> None:
    former = {name: value for name, value in RULES.to_dict().items() if name not in ("parts", "appearance_limits")}
    assert Rules.from_dict(former) == dataclasses.replace(RULES, parts=(), appearance_limits=())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real radiographs are not here")
def test_the_bundled_model_sees_inverted_arms_and_legs() -> None:
    """Ten radiographs each, of patients that it was not trained on; docs/familiarity.md has the shares of all."""
    from retrieval.datasets.collection import read_collection

    encoder = Encoder.open(BUNDLED)
    rules = Rules.from_dict(encoder.bundle.rules or {})
    rules = dataclasses.replace(rules, parts=("upper_limb",))
    seen = encoder.bundle.seen()

    def unseen(cases: Sequence[Case]) -> list[np.ndarray]:
        new = [Path(case.path) for case in cases if digest_number(file_digest(Path(case.path))) not in seen]
        return [read_radiograph(path).pixels for path in new[:10]]

    arms, legs = (
        unseen(read_collection(SHARED / name, split="valid", part=part).cases)
        for name, part in (("fracatlas-upper-limb", "upper_limb"), ("fracatlas-other-parts", "leg"))
    )

    def flagged(pictures: list[np.ndarray]) -> int:
        embeddings = encoder.encode(pictures).embeddings
        return sum(familiarity(one[None], [1.0], rules, encoder.appearance).familiar is False for one in embeddings)

    assert flagged(arms) <= 1
    assert flagged([255 - pixels for pixels in arms]) >= 5
    assert flagged(legs) >= 5
