"""A value for each detail that a sentence may name; "secret" for those that may name a file, a patient or a case."""

from string import Formatter

from retrieval.notices import Detail
from retrieval.wording import notices

__all__ = ["DETAILS"]

_SECRET = ("case", "patient", "prefix", "reason", "names", "chosen")


def _fields() -> set[str]:
    pairs = [sentence for sentences in notices._OF_STUDY.values() for sentence in sentences]
    texts = [*notices._OF_VIEW.values(), *notices._OF_COLLECTION.values(), *pairs]
    return {name for text in texts for _, name, _, _ in Formatter().parse(text) if name} - {"view"}


DETAILS: dict[str, Detail] = {**dict.fromkeys(_fields(), 7), **dict.fromkeys(_SECRET, "secret")}
