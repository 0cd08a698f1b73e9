"""What a reader of an answer has to know, as data: codes with their details. `retrieval.wording` has the sentences."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

__all__ = ["Code", "Detail", "Notice", "of_view"]

Detail = str | int | float


class Code(StrEnum):
    """What a notice is about. Codes may be added; none changes its meaning."""

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
    COLOURED = "coloured"
    TRANSPARENT = "transparent"
    DAMAGED = "damaged"
    BLANK = "blank"
    NEARLY_BLANK = "nearly-blank"
    # A file was not read.
    LEFT_OUT = "left-out"
    # The query and the index.
    SYNTHETIC = "synthetic"
    TRAINED_ON = "trained-on"
    INDEXED_ITSELF = "indexed-itself"
    PATIENT_LEFT_OUT = "patient-left-out"
    UNKNOWN_PATIENT = "unknown-patient"
    UNKNOWN_SITE_KEY = "unknown-site-key"
    SEVERAL_PATIENTS = "several-patients"
    MANY_VIEWS = "many-views"
    NO_VOTE = "no-vote"
    NO_SUCH_LABEL = "no-such-label"


@dataclass(frozen=True, slots=True)
class Notice:
    """A code, the view or file that it concerns ("" for the whole study), and its details by name.

    `code` is one of `Code`, or a text that a later version wrote.
    """

    code: str
    view: str = ""
    detail: Mapping[str, Detail] = field(default_factory=dict, hash=False)


def of_view(view: str, notices: Iterable[Notice]) -> list[Notice]:
    """The notices of a file, as those of a view of a study."""
    return [replace(notice, view=view) for notice in notices]
