"""The sentence of each notice: of a view, a study or a collection; and why a query is unlike the index."""

from collections.abc import Iterable, Mapping

from retrieval.notices import Code, Detail, Notice, Unlike

__all__ = ["anonymous_sentence", "predicate", "sentence", "unlike_text", "warnings_of_files"]

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
    Code.EXCHANGED_SIZE: "has rows of another length than its header says: it is read as its pixels suggest",
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
        "the index holds synthetic radiographs: the answer only shows how the tool works",
        "the model or the index was made from synthetic radiographs: this only shows how the tool works",
    ),
    Code.TRAINED_ON: ("the model was trained on {view}: its probability says nothing about new radiographs",) * 2,
    Code.INDEXED_ITSELF: (
        "{view} is itself in the index, as {case}; patient {patient} is left out",
        "{view} is itself in the index; its patient is left out",
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
        "the index was built with a site key that is not here, so a patient's own studies cannot be recognised: "
        "give --patient, or name the key with {variable}",
        "the patient's own studies could not be distinguished from others, and may be among the similar ones",
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
    Code.ONE_LABEL: "all studies of the index are {label}, so there is no vote",
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
    Code.PASSED_OVER: "skipped, images in folders that are not those of a study: {count} in {folders} folders",
    Code.READ_ONCE: (
        "folders that are read under another path already, since links lead to them: {count}; each is read once"
    ),
    Code.LISTED_MISSING: "images that image_paths.csv lists and that are missing: {count}",
    Code.UNLISTED_READ: "images that are read and that image_paths.csv does not list: {count}",
    Code.UNLISTED_LEFT_OUT: "left out, images that dataset.csv does not list: {count}",
    Code.NOT_DICOM: "skipped, not DICOM: {count}",
    Code.DICOM_LEFT_OUT: "skipped, DICOM among other image files: {count}; put each kind into a folder of its own",
    Code.NOT_RADIOGRAPHS: "skipped, DICOM but not radiographs: {count} ({kinds})",
    Code.UNREADABLE_DICOM: "skipped, DICOM that cannot be read: {count}",
    Code.COPIES: "skipped, copies of a radiograph that is read: {count}",
    Code.UNLABELLED: "skipped, radiographs without a label: {count} (studies: {studies})",
    Code.STUDIES_OF_TWO_PATIENTS: "skipped, studies that name two patients: {count}",
    Code.BURNED_IN_TEXTS: (
        "radiographs that say that text is burnt into their pictures: {count}; it may name patients, also in thumbnails"
    ),
    Code.LABELS_WITHOUT_STUDY: "rows of the table of labels whose study is not here: {count} of {total}",
    Code.LABELS_ALIKE: (
        "rows of the table of labels that match a study except for zeros, case, punctuation or white space: {count}; a "
        "spreadsheet may have removed zeros in front"
    ),
    Code.DICOMDIR_FILES_MISSING: "files that DICOMDIR lists and that are missing: {count}",
    Code.PSEUDONYMS: "hashes with this site's key replace the names of patients and studies, and no path is stored",
    Code.SYNTHETIC_FIGURES: "the radiographs are synthetic: the figures say nothing about patients",
    Code.MERGED_PATIENTS: (
        "check that no patient of this evaluation is in an index that was merged with a prefix: a prefix changes names"
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
    Unlike.WHITER: "it has more white without detail than the indexed radiographs ({measured})",
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
