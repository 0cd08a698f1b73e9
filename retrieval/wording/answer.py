"""What an answer says: its verdict, its vote, its findings, and what its numbers mean."""

from typing import TYPE_CHECKING

from retrieval.wording.evaluation import PREDICTORS, metric_title

if TYPE_CHECKING:
    from retrieval.answer import Answer, VoteAnswer

__all__ = [
    "DISCLAIMER",
    "FINDINGS",
    "PROBABILITY",
    "THRESHOLD",
    "evaluation_text",
    "findings_text",
    "label_word",
    "verdict",
    "vote_share",
    "vote_title",
]

DISCLAIMER = "Not a medical device: research and teaching only."
FINDINGS = "Findings of the voting studies, by their part of the vote: a list to think of, and not a diagnosis."
PROBABILITY = (
    "Probability of abnormality: of 100 studies at 0.30 about 30 are abnormal, if they are like those that the index "
    "learned from."
)
THRESHOLD = "Threshold: above it a study is predicted abnormal. It was learned on the index's own studies."
_MOST_FINDINGS = 8


def label_word(abnormal: bool | None) -> str:
    """The word for a prediction: "abnormal", "normal", or "unknown" where nothing could predict."""
    return "unknown" if abnormal is None else ("abnormal" if abnormal else "normal")


def verdict(answer: "Answer") -> str:
    """What an answer says, in one line without a full stop."""
    classifier, vote = label_word(answer.classifier.abnormal), label_word(answer.knn.abnormal)
    if answer.agreement is None:
        return f"{classifier}: by the classifier alone; no study could vote"
    if answer.agreement:
        return f"{classifier}: classifier and vote agree"
    return f"undecided: the classifier says {classifier}, the vote says {vote}"


def findings_text(answer: "Answer") -> str:
    """The heaviest findings of the voting studies: "fracture 61 %, plate 12 %"; "" if there are none."""
    more = len(answer.findings) - _MOST_FINDINGS
    shown = [f"{share.finding} {share.weight:.0%}".replace("%", " %") for share in answer.findings[:_MOST_FINDINGS]]
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")


def evaluation_text(answer: "Answer") -> str:
    """How good index and model are on other patients, in a sentence; "" if it was not measured."""
    kept = answer.evaluation
    if kept is None:
        return ""
    words = []
    for predictor in dict.fromkeys(figure.predictor for figure in kept.figures):
        measured = [figure for figure in kept.figures if figure.predictor == predictor and figure.value is not None]
        figures = [f"{metric_title(each.metric)} {_interval(each.value, each.low, each.high)}" for each in measured]
        words.append(f"{PREDICTORS.get(predictor, predictor)} {', '.join(figures)}")
    changed = "" if kept.generation == answer.index.generation else "; the index has changed since"
    return (
        f"Measured on {kept.studies} studies ({kept.abnormal} abnormal) of other patients on {kept.made}{changed}: "
        f"{'; '.join(words)}. Intervals are 95 %."
    )


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    """A figure with two digits, and its interval if it has one: "0.91 (0.85 to 0.96)"."""
    return f"{value:.2f}" + ("" if low is None or high is None else f" ({low:.2f} to {high:.2f})")


def vote_title(vote: "VoteAnswer") -> str:
    """What a vote is called in a table: of how many studies, all views together."""
    count = vote.studies or vote.k
    return f"vote of {count} {'study' if count == 1 else 'studies'}"


def vote_share(answer: "Answer") -> str:
    """How much of the vote the shown studies carry, in a sentence; "" if none of them votes."""
    voting = [case for case in answer.cases if case.weight]
    if not voting or not answer.knn.studies:
        return ""
    share = f"{sum(case.weight for case in voting):.0%}".replace("%", " %")
    if len(voting) == answer.knn.studies:
        return f"These are all {len(voting)} voting studies." if len(voting) > 1 else "This is the only voting study."
    which = "This one" if len(voting) == 1 else f"These {len(voting)}"
    carry = "carries" if len(voting) == 1 else "carry"
    return f"{which} of the {answer.knn.studies} voting studies {carry} {share} of the vote."
