"""Findings of voting studies, tallied by hand; and what is said of the share of the shown studies."""

from dataclasses import replace

import pytest

from index.case import Case
from index.hits import Hit
from retrieval.answer import VoteAnswer
from retrieval.decision.findings import FindingShare, names_of, tally
from retrieval.wording import findings_text, vote_share
from tests.cli.test_render_answer import ANSWER


def hit(study: str, finding: str = "") -> Hit:
    return Hit(0.9, Case(f"{study}.png", study, study, 1, finding=finding))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        (" ; ;", ()),
        ("fracture", ("fracture",)),
        ("Fracture;  plate \t and screws ; fracture", ("Fracture", "plate and screws")),
    ],
)
def test_a_cell_has_several_findings(text: str, names: tuple[str, ...]) -> None:
    assert names_of(text) == names


def test_a_finding_has_the_weight_of_the_studies_that_have_it() -> None:
    views = [[hit("a", "fracture; plate"), hit("b", "Fracture"), hit("c")], [hit("a", "fracture"), hit("d", "cast")]]
    weights = {"a": 0.4, "b": 0.2, "c": 0.3, "d": 0.1}
    fracture, *others = tally(views, weights)
    assert fracture == replace(fracture, finding="fracture", studies=2)
    assert fracture.weight == pytest.approx(0.6)
    assert others == [FindingShare("plate", 0.4, 1), FindingShare("cast", 0.1, 1)]
    assert tally([], {}) == ()


def test_findings_are_said_with_their_part_of_the_vote() -> None:
    shares = [FindingShare("fracture", 0.61, 5), FindingShare("plate", 0.12, 1)]
    assert findings_text(replace(ANSWER, findings=tuple(shares))) == "fracture 61 %, plate 12 %"
    many = tuple(FindingShare(str(number), 0.5, 1) for number in range(10))
    assert findings_text(replace(ANSWER, findings=many)).endswith("7 50 %, and 2 more")


def test_the_part_of_the_vote_of_the_shown_studies_is_said() -> None:
    vote = VoteAnswer(0.5, False, 0.5, 15, 51)
    cases = tuple(replace(ANSWER.cases[0], weight=weight) for weight in (0.08, 0.06, 0.0))
    answer = replace(ANSWER, knn=vote, cases=cases)
    assert vote_share(answer) == "These 2 of the 51 voting studies carry 14 % of the vote."
    assert vote_share(replace(answer, cases=cases[:1])) == "This one of the 51 voting studies carries 8 % of the vote."
    assert vote_share(replace(answer, knn=replace(vote, studies=2))) == "These are all 2 voting studies."
    assert vote_share(replace(answer, cases=cases[2:])) == ""
