"""The sentences and words that every output shares: terminal, HTML, web page, JSON and DICOM.

Data travels as dataclasses with codes; it becomes English here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from retrieval.notices import Code, Detail, Notice, Unlike

if TYPE_CHECKING:
    from retrieval.answer import Answer, VoteAnswer
    from retrieval.decision.local_classifier import ClassifierTrial
    from retrieval.evaluation.drift import Drift
    from retrieval.evaluation.metrics import Estimate

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

PREDICTORS = {"classifier": "classifier", "knn": "vote", "mean": "mean of both"}
"""The predictors of an evaluation, and what people call them."""

_METRICS = {
    "f1": "F1",
    "npv": "NPV",
    "auroc": "AUROC",
    "brier": "Brier score",
    "calibration_error": "expected calibration error",
    "map_at_r": "mAP at R",
}
DISCLAIMER = "Not a medical device: research and teaching only."
FINDINGS = "Findings of the voting studies, by their part of the vote: a list to think of, and not a diagnosis."
PROBABILITY = (
    "Probability of abnormality: of 100 studies at 0.30 about 30 are abnormal, if they are like those that the index "
    "learned from."
)
THRESHOLD = "Threshold: above it a study is predicted abnormal. It was learned on the index's own studies."
_MOST_FINDINGS = 8


def printable(text: str) -> str:
    r"""Untrusted text with each character that is not printable replaced, so that it cannot steer a terminal or a page.

    >>> printable("a\x1b[31mb")
    'a\ufffd[31mb'
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def reason_text(error: object) -> str:
    """The first line of an error of a library, printable and at most 200 characters."""
    return printable(str(error).partition("\n")[0])[:200]


def listed(names: Sequence[str]) -> str:
    """The first five names, and whether there are more."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


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
        own = [one for one in kept.figures if one.predictor == predictor and one.value is not None]
        figures = [f"{metric_title(one.metric)} {_interval(one.value, one.low, one.high)}" for one in own]
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


def estimate_text(estimate: "Estimate", digits: int = 3, *, sign: bool = False) -> str:
    """An estimate, and its interval with `digits`: "0.659 (0.571 to 0.741)"; the reason where there is no value.

    A star marks an estimate that has a reason, which says what is special about its interval.
    """
    plus = "+" if sign else ""
    if estimate.value is None:
        return f"undefined: {estimate.reason}" if estimate.reason else "undefined"
    value, star = f"{estimate.value:{plus}.{max(3, digits)}f}", "*" if estimate.reason else ""
    if estimate.low is None or estimate.high is None:
        return f"{value}{star}"
    return f"{value} ({estimate.low:{plus}.{digits}f} to {estimate.high:{plus}.{digits}f}){star}"


def footnotes(estimates: "Iterable[Estimate]") -> list[str]:
    """The reasons of marked estimates, each once."""
    reasons = (estimate.reason for estimate in estimates if estimate.value is not None and estimate.reason)
    return [f"* {reason}" for reason in dict.fromkeys(reasons)]


def metric_title(metric: str) -> str:
    """The name of a metric for people: "AUROC", "average precision"."""
    return _METRICS.get(metric, metric.replace("_", " "))


# What is said of a view or file; the view is the subject.
_OF_VIEW: dict[str, str] = {
    Code.ENDS_EARLY: "ends early: {missing}",
    Code.SEVERAL_PICTURES: "holds several {kind}: the first is read",
    Code.FOR_PROCESSING: "is for processing, not for presentation: a radiologist would see another picture",
    Code.CONTRADICTORY_POLARITY: (
        "has a presentation that contradicts its photometric interpretation: it is inverted; check that bone is bright"
    ),
    Code.BURNED_IN_TEXT: "says that text is burnt into its picture: it may name the patient",
    Code.INVALID_WINDOW: "has an invalid window: {instead} is shown",
    Code.UNFIT_WINDOW: "has a window or lookup table that does not fit its values: {instead} is shown",
    Code.TABLE_BITS: "has a lookup table whose entries need {bits} bits, not those declared: it is scaled to them",
    Code.OUTLIERS: "has a few values far from all others, such as a marker: they do not set its range",
    Code.INVALID_RESCALE: "has an invalid rescale slope or intercept: both are ignored",
    Code.SEVERAL_RESCALES: "has several values of rescale slope or intercept: the first are used",
    Code.CONTRADICTORY_BITS: "has bits that contradict each other in its header: they are read as its values suggest",
    Code.VALUES_BEYOND_BITS: "has values of more bits than its header says: all bits are read",
    Code.STRAY_BITS: "has bits beside its values that its header does not explain: they are ignored",
    Code.CONTRADICTORY_COLOURS: "has another colour space than its header says: it is read as grey",
    Code.CONTRADICTORY_PLANES: "has colours stored otherwise than its header says: they are read as its pixels suggest",
    Code.COLOURED: "is strongly coloured: its colours may be read wrongly, or it is not a radiograph",
    Code.SURPLUS_DATA: "holds more pixels than its header says: those beyond it are not shown",
    Code.EXCHANGED_SIZE: "has its rows and columns exchanged in its header: it is read as its pixels suggest",
    Code.TRANSPARENT: "is equally transparent everywhere: its transparency is ignored",
    Code.DAMAGED: "has damaged data: parts of its picture may be wrong; copy or export it again",
    Code.BLANK: "is blank: every pixel is alike",
    Code.NEARLY_BLANK: "is nearly blank: almost all of its pixels are alike",
}
# What is said of the study and the index, in full, and without names for who may not see them.
_OF_STUDY: dict[str, tuple[str, str]] = {
    Code.LEFT_OUT: ("left out: {reason}", "a file could not be read and is left out"),
    Code.REPEATED_VIEW: ("{view} is given twice: it counts once", "{view} was given twice: it counts once"),
    Code.SYNTHETIC: (
        "the index holds synthetic radiographs: the answer shows how the tool works, no more",
        "model or index rest on synthetic radiographs: this shows how the tool works, no more",
    ),
    Code.TRAINED_ON: ("the model was trained on {view}: its probability says nothing about new radiographs",) * 2,
    Code.INDEXED_ITSELF: (
        "{view} is indexed itself, as {case}; patient {patient} is left out",
        "{view} is indexed itself; its patient is left out",
    ),
    Code.INDEXED_STUDY: (
        "the query is the indexed study {study}, labelled {label}; patient {patient} is left out",
        "the query is an indexed study; its patient is left out",
    ),
    Code.PATIENT_LEFT_OUT: (
        "patient {patient} is left out, who may be the same: merged with the prefix {prefix}",
        "a patient of a merged index, who may be the same, is left out",
    ),
    Code.UNKNOWN_PATIENT: ("the index holds no patient {patient}", "the index does not hold the patient named"),
    Code.UNKNOWN_SITE_KEY: (
        "the index was built with a site key that is not here, so a patient's own studies cannot be told: "
        "give --patient, or name the key with {variable}",
        "the patient's own studies could not be told from others, and may be among the similar ones",
    ),
    Code.SEVERAL_PATIENTS: ("the radiographs are of several patients; check that these views are of one study",) * 2,
    Code.MANY_VIEWS: ("{views} radiographs were taken as views of one study; check that it is one",) * 2,
    Code.NO_VOTE: (
        "nothing could vote: no study of another patient is indexed{chosen}",
        "nothing could vote: no fitting study of another patient is indexed",
    ),
    Code.NO_SUCH_LABEL: ("no indexed study has the label asked for",) * 2,
    Code.BORDERLINE: (
        "the {reader} is borderline: probability {probability:.2f}, threshold {threshold:.2f}, and mild changes of "
        "sharpness, size, grey levels or noise move it by {width:.2f}",
    )
    * 2,
    Code.NEARLY_UNFAMILIAR: (
        "the similarity to the nearest study is borderline: {similarity:.3f}, limit {limit:.3f}, and mild changes move "
        "it by {width:.3f}",
    )
    * 2,
    Code.NO_SUCH_STUDY: ("no indexed study fits what is to be shown",) * 2,
}
# What is said of a collection or an evaluation, without names; the detail "names" follows where it may be shown.
_OF_COLLECTION: dict[str, str] = {
    Code.WITHOUT_STUDY: "radiographs that name no study: {count} of {total}; each counts as one study",
    Code.WITHOUT_PATIENT: (
        "radiographs that name no patient: {count} of {total}; each of their studies counts as one patient, so the "
        "same patient can be on both sides of a comparison"
    ),
    Code.INFERRED_PATIENTS: "FracAtlas publishes neither patients nor studies: both are inferred",
    Code.PLACEHOLDERS: "patients who are named by a placeholder, which names nobody: {count} radiographs",
    Code.ONE_PATIENT: (
        "one patient has {count} of {total} studies: if the name stands for many people, no vote and no split by "
        "patient means anything; leave the patient empty then"
    ),
    Code.CHANGED_IDENTIFIERS: (
        "identifiers that look as if a spreadsheet had changed them: {count}; different people may have become one"
    ),
    Code.ALIKE_IDENTIFIERS: (
        "identifiers that differ only in zeros, case, punctuation or white space: {count}; one patient may count as two"
    ),
    Code.ONE_LABEL: "all studies of the index are {label}, so they do not vote",
    Code.OTHER_SPLITS: "splits other than train, valid and test: {count}",
    Code.WITHOUT_SPLIT: "radiographs that name no split, though others do: {count} of {total}",
    Code.DRAWN_SPLITS: (
        "no splits are named: {percent} % of the patients, drawn by their names, are valid. Train has {train_normal} "
        "normal and {train_abnormal} abnormal studies, valid {valid_normal} and {valid_abnormal}; a column "
        "split chooses otherwise"
    ),
    Code.MISSING_FILES: "files that are missing: {count} of {total}",
    Code.GUESSED_ENCODING: (
        "the table is not in UTF-8 and is read as Windows-1252: check names with accents, or save it as CSV UTF-8"
    ),
    Code.PASSED_OVER: "passed over, images in folders that are not those of a study: {count} in {folders} folders",
    Code.LISTED_MISSING: "images that image_paths.csv lists and that are missing: {count}",
    Code.UNLISTED_READ: "images that are read and that image_paths.csv does not list: {count}",
    Code.UNLISTED_LEFT_OUT: "left out, images that dataset.csv does not list: {count}",
    Code.NOT_DICOM: "passed over, not DICOM: {count}",
    Code.DICOM_LEFT_OUT: "passed over, DICOM among other image files: {count}; put each kind into a folder of its own",
    Code.NOT_RADIOGRAPHS: "passed over, DICOM but not radiographs: {count} ({kinds})",
    Code.UNREADABLE_DICOM: "passed over, DICOM that cannot be read: {count}",
    Code.COPIES: "passed over, copies of a radiograph that is read: {count}",
    Code.UNLABELLED: "passed over, radiographs without a label: {count} (studies: {studies})",
    Code.STUDIES_OF_TWO_PATIENTS: "passed over, studies that name two patients: {count}",
    Code.BURNED_IN_TEXTS: (
        "radiographs that say that text is burnt into their pictures: {count}; it may name patients, also in thumbnails"
    ),
    Code.LABELS_WITHOUT_STUDY: "rows of the table of labels whose study is not here: {count} of {total}",
    Code.LABELS_ALIKE: (
        "rows of the table of labels that match a study but for zeros, case, punctuation or white space: {count}; a "
        "spreadsheet may have removed zeros in front"
    ),
    Code.DICOMDIR_FILES_MISSING: "files that DICOMDIR lists and that are missing: {count}",
    Code.PSEUDONYMS: "hashes with this site's key replace the names of patients and studies, and no path is stored",
    Code.SYNTHETIC_FIGURES: "the radiographs are synthetic: the figures say nothing about patients",
    Code.MERGED_PATIENTS: (
        "make sure that this evaluation has no patient of indexes that were merged with a prefix, which changes names"
    ),
}

# Why a query is unlike the index; the query is the subject. What is in parentheses differs from query to query.
_UNLIKE: dict[str, str] = {
    Unlike.FAR: "nothing indexed is like it (similarity {value:.3f}, limit {limit:.3f})",
    Unlike.NO_RADIOGRAPH: "it looks like no radiograph of {known}",
    Unlike.OTHER_PART: "it looks like another body part: {part}, not {known}",
    Unlike.INVERTED: "it looks inverted: black bones on white",
    Unlike.TURNED: "it seems to lie on its side",
    Unlike.SOFTER: "it is softer than the indexed radiographs: their scores do not carry over ({measured})",
    Unlike.SHARPER: "it is sharper than the indexed radiographs: their scores do not carry over ({measured})",
    Unlike.NOISIER: "it is noisier than the indexed radiographs: their scores do not carry over ({measured})",
    Unlike.NARROWER: "it uses a narrower range of grey levels than the indexed radiographs ({measured})",
    Unlike.FAINTER: "it has less contrast than the indexed radiographs ({measured})",
    Unlike.WHITER: "more of it is white without detail than of the indexed radiographs ({measured})",
    Unlike.SMALLER: "it is smaller than the indexed radiographs: fine detail is missing ({measured})",
    Unlike.COMPRESSED: "its JPEG compression is stronger than that of the indexed radiographs ({measured})",
}
_MEASURES = {
    "sharpness": "sharpness {value:.2f}, limit {limit:.2f}",
    "noise": "noise {value:.1f} grey levels, limit {limit:.1f}",
    "contrast": "contrast {value:.0f} grey levels, limit {limit:.0f}",
    "grey_range": "{value:.0f} grey levels, limit {limit:.0f}",
    "size": "long side {value:.0f} pixels, limit {limit:.0f}",
    "saturated": "{value:.1%} of its pixels, limit {limit:.1%}",
    "blocking": "JPEG blocking {value:.2f}, limit {limit:.2f}",
}


def unlike_text(reason: Unlike, **detail: Detail) -> str:
    """Why a query is unlike the index, without a capital and a full stop.

    detail: the value and the limit, with the name of their measure for a reason by a measure; the parts' names.
    """
    if measure := detail.get("measure"):
        detail["measured"] = _MEASURES[str(measure)].format(**detail)
    return _UNLIKE[reason].format(**detail)


def sentence(notice: Notice) -> str:
    """A notice in words, without a capital and a full stop; a code that is unknown here is shown as it is."""
    if notice.code in _OF_STUDY:
        return _OF_STUDY[notice.code][0].format(view=notice.view, **notice.detail)
    if notice.code in _OF_COLLECTION:
        names = f" ({notice.detail['names']})" if "names" in notice.detail else ""
        return _OF_COLLECTION[notice.code].format(**notice.detail) + names
    return f"{notice.view}: {predicate(notice)}" if notice.view else predicate(notice)


def anonymous_sentence(notice: Notice, view: str = "") -> str:
    """The same for an archive: it names the view by `view`, and no file, patient or case."""
    if notice.code in _OF_STUDY:
        return _OF_STUDY[notice.code][1].format(view=view, **notice.detail)
    if notice.code in _OF_COLLECTION:
        return _OF_COLLECTION[notice.code].format(**notice.detail)
    words = predicate(notice) if notice.code in _OF_VIEW else f"notice {notice.code}"  # its detail may name anybody
    return f"{view} {words}" if notice.view and notice.code in _OF_VIEW else words


def warnings_of_files(notices: Iterable[Notice]) -> tuple[tuple[str, str], ...]:
    """The notices about files, as (file, sentence without its name)."""
    return tuple((notice.view, predicate(notice)) for notice in notices if notice.view)


def predicate(notice: Notice) -> str:
    """What a notice says of its view: "ends early: ..."."""
    if notice.code in _OF_VIEW:
        return _OF_VIEW[notice.code].format(**notice.detail)
    return f"notice {notice.code}{_details(notice.detail)}"


def _details(detail: Mapping[str, Detail]) -> str:
    return f" ({', '.join(f'{name} {value}' for name, value in detail.items())})" if detail else ""


def trial_sentence(trial: "ClassifierTrial | None") -> str:
    """Which classifier is in use after a trial, and why."""
    if trial is None:
        return "The model's classifier stays: a trial of a local one needs 20 normal and 20 abnormal studies."
    gain = f"gain in log loss {trial.gain:+.3f}, {trial.low:+.3f} to {trial.high:+.3f}"
    if trial.classifier is None:
        return f"The model's classifier stays: a local one does not beat it beyond chance ({gain})."
    return f"A local classifier takes the place of the model's: it beats it beyond chance ({gain})."


_SCORES = {"classifier": "classifier", "knn": "vote", "similarity": "similarity"}


def score_title(score: str) -> str:
    """The name of a score for people: "vote"."""
    return _SCORES.get(score, score.replace("_", " "))


DRIFT_SHORT = "What is asked here has parted from what is indexed, so the thresholds may not hold."


def drift_sentence(drift: "Drift") -> str:
    """Which scores have parted from those of the index, and what that may mean; "" for none."""
    if not drift.parted:
        return ""
    called = " and ".join(
        f"{drift.abnormal[name]:.0%} are called abnormal by the {score_title(name)}, of the indexed ones "
        f"{drift.indexed_abnormal[name]:.0%}"
        for name in ("classifier", "knn")
        if name in drift.abnormal and name in drift.indexed_abnormal
    ).replace("%", " %")
    parted = ", ".join(
        f"{score_title(own.score)} (PSI {own.psi:.2f}, KS {own.ks:.2f})" for own in drift.comparisons if own.parted
    )
    of_studies = f": of {drift.studies:,} studies {called}" if called else f", of {drift.studies:,} studies"
    return (
        f"What is asked has parted from what is indexed{of_studies}. It shows in: {parted}. "
        f"Either other patients come, or radiographs that were processed otherwise; then the thresholds do "
        "not hold"
    )
