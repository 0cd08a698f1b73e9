"""The sentences and words that every output shares: terminal, HTML, web page, JSON and DICOM.

Data travels as dataclasses with codes; it becomes English here.
"""

from retrieval.wording.answer import (
    DISCLAIMER,
    FINDINGS,
    PROBABILITY,
    THRESHOLD,
    evaluation_text,
    findings_text,
    label_word,
    verdict,
    vote_share,
    vote_title,
)
from retrieval.wording.evaluation import (
    DRIFT_SHORT,
    PREDICTORS,
    drift_sentence,
    estimate_text,
    footnotes,
    metric_title,
    score_title,
    trial_sentence,
)
from retrieval.wording.notices import anonymous_sentence, predicate, sentence, unlike_text, warnings_of_files
from retrieval.wording.text import listed, printable, reason_text

__all__ = [
    "DISCLAIMER",
    "DRIFT_SHORT",
    "FINDINGS",
    "PREDICTORS",
    "PROBABILITY",
    "THRESHOLD",
    "anonymous_sentence",
    "drift_sentence",
    "estimate_text",
    "evaluation_text",
    "findings_text",
    "footnotes",
    "label_word",
    "listed",
    "metric_title",
    "predicate",
    "printable",
    "reason_text",
    "score_title",
    "sentence",
    "trial_sentence",
    "unlike_text",
    "verdict",
    "vote_share",
    "vote_title",
    "warnings_of_files",
]
