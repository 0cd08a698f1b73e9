"""The sentences and words that every output shares: terminal, HTML, web page, JSON and DICOM.

Data travels as dataclasses with codes; it becomes English here.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.answer import Answer
    from retrieval.evaluation.metrics import Estimate

__all__ = ["DISCLAIMER", "estimate_text", "label_word", "printable", "verdict"]

DISCLAIMER = "Not a medical device: research and teaching only."


def printable(text: str) -> str:
    r"""Untrusted text with each character that is not printable replaced, so that it cannot steer a terminal or a page.

    >>> printable("a\x1b[31mb")
    'a\ufffd[31mb'
    """
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


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


def estimate_text(estimate: "Estimate", digits: int = 3, sign: bool = False) -> str:
    """An estimate with its interval: "0.659 (0.571 to 0.741)"; the reason where there is no value."""
    form = f"{'+' if sign else ''}.{digits}f"
    if estimate.value is None:
        return estimate.reason
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"
