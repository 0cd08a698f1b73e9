"""Warnings as data: codes with their details. `retrieval.wording` has the sentences."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

__all__ = ["BLANKS", "DOUBTS", "Code", "Detail", "Notice", "Unlike", "of_view", "without_names"]

Detail = str | int | float


class Code(StrEnum):
    """The subject of a notice. Codes may be added; no code changes its meaning."""

    # A file was read, but its picture is doubtful.
    ENDS_EARLY = "ends-early"
    SEVERAL_PICTURES = "several-pictures"
    FOR_PROCESSING = "for-processing"
    CONTRADICTORY_POLARITY = "contradictory-polarity"
    BURNED_IN_TEXT = "burned-in-text"
    INVALID_WINDOW = "invalid-window"
    UNFIT_WINDOW = "unfit-window"
    TABLE_BITS = "table-bits"
    OUTLIERS = "outliers"
    INVALID_RESCALE = "invalid-rescale"
    SEVERAL_RESCALES = "several-rescales"
    CONTRADICTORY_BITS = "contradictory-bits"
    VALUES_BEYOND_BITS = "values-beyond-bits"
    STRAY_BITS = "stray-bits"
    CONTRADICTORY_COLOURS = "contradictory-colours"
    CONTRADICTORY_PLANES = "contradictory-planes"
    COLOURED = "coloured"
    SURPLUS_DATA = "surplus-data"
    EXCHANGED_SIZE = "exchanged-size"
    TRANSPARENT = "transparent"
    DAMAGED = "damaged"
    BLANK = "blank"
    NEARLY_BLANK = "nearly-blank"
    # A file was not read.
    LEFT_OUT = "left-out"
    REPEATED_VIEW = "repeated-view"
    # The query and the index.
    SYNTHETIC = "synthetic"
    TRAINED_ON = "trained-on"
    INDEXED_ITSELF = "indexed-itself"
    INDEXED_STUDY = "indexed-study"
    PATIENT_LEFT_OUT = "patient-left-out"
    UNKNOWN_PATIENT = "unknown-patient"
    UNKNOWN_SITE_KEY = "unknown-site-key"
    SEVERAL_PATIENTS = "several-patients"
    MANY_VIEWS = "many-views"
    NO_VOTE = "no-vote"
    NO_SUCH_LABEL = "no-such-label"
    BORDERLINE = "borderline"
    NEARLY_UNFAMILIAR = "nearly-unfamiliar"
    NO_SUCH_STUDY = "no-such-study"
    # A collection.
    WITHOUT_STUDY = "without-study"
    WITHOUT_PATIENT = "without-patient"
    INFERRED_PATIENTS = "inferred-patients"
    PLACEHOLDERS = "placeholders"
    ONE_PATIENT = "one-patient"
    CHANGED_IDENTIFIERS = "changed-identifiers"
    ALIKE_IDENTIFIERS = "alike-identifiers"
    ONE_LABEL = "one-label"
    OTHER_SPLITS = "other-splits"
    WITHOUT_SPLIT = "without-split"
    DRAWN_SPLITS = "drawn-splits"
    MISSING_FILES = "missing-files"
    GUESSED_ENCODING = "guessed-encoding"
    PASSED_OVER = "passed-over"
    READ_ONCE = "read-once"
    LISTED_MISSING = "listed-missing"
    UNLISTED_READ = "unlisted-read"
    UNLISTED_LEFT_OUT = "unlisted-left-out"
    NOT_DICOM = "not-dicom"
    DICOM_LEFT_OUT = "dicom-left-out"
    NOT_RADIOGRAPHS = "not-radiographs"
    UNREADABLE_DICOM = "unreadable-dicom"
    COPIES = "copies"
    UNLABELLED = "unlabelled"
    STUDIES_OF_TWO_PATIENTS = "studies-of-two-patients"
    BURNED_IN_TEXTS = "burned-in-texts"
    LABELS_WITHOUT_STUDY = "labels-without-study"
    LABELS_ALIKE = "labels-alike"
    DICOMDIR_FILES_MISSING = "dicomdir-files-missing"
    PSEUDONYMS = "pseudonyms"
    # An evaluation.
    SYNTHETIC_FIGURES = "synthetic-figures"
    MERGED_PATIENTS = "merged-patients"


class Unlike(StrEnum):
    """Why a query is unlike the index."""

    FAR = "far"
    NO_RADIOGRAPH = "no-radiograph"
    OTHER_PART = "other-part"
    INVERTED = "inverted"
    TURNED = "turned"
    SOFTER = "softer"
    SHARPER = "sharper"
    NOISIER = "noisier"
    NARROWER = "narrower-range"
    FAINTER = "fainter"
    WHITER = "whiter"
    SMALLER = "smaller"
    COMPRESSED = "compressed"


BLANKS = frozenset((Code.BLANK, Code.NEARLY_BLANK))
DOUBTS = BLANKS | {
    *(Code.ENDS_EARLY, Code.DAMAGED, Code.CONTRADICTORY_POLARITY, Code.CONTRADICTORY_BITS, Code.VALUES_BEYOND_BITS),
    *(Code.STRAY_BITS, Code.CONTRADICTORY_COLOURS, Code.COLOURED, Code.INVALID_RESCALE, Code.SEVERAL_RESCALES),
    *(Code.CONTRADICTORY_PLANES, Code.INVALID_WINDOW, Code.UNFIT_WINDOW, Code.TABLE_BITS, Code.SURPLUS_DATA),
    Code.EXCHANGED_SIZE,
}
"""The codes of pictures that may not be read as they were meant: to be said before a verdict."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A code, the view or file that it concerns ("" for the whole study or collection), and its details by name.

    `code` is one of `Code`, or a text that a later version wrote. In the notices of a collection, the detail "names"
    alone may name a file or a patient.
    """

    code: str
    view: str = ""
    detail: Mapping[str, Detail] = field(default_factory=dict, hash=False)


def of_view(view: str, notices: Iterable[Notice]) -> list[Notice]:
    """The notices about a file, with the name of its view or case."""
    return [replace(notice, view=view) for notice in notices]


def without_names(notice: Notice) -> Notice:
    """A notice of a collection without the names of files and patients."""
    return replace(notice, detail={key: value for key, value in notice.detail.items() if key != "names"})
