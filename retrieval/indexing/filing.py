"""File an answered study in an index: its embeddings are there already, a person gives the label."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from index.case import Case
from index.errors import IndexFailure
from index.filed import Filed
from index.filing import FilingWriter
from index.reader import IndexReader
from index.writer import IndexWriter
from retrieval.datasets.pseudonyms import KEY_VARIABLE, SiteKey, is_placeholder, is_pseudonym
from retrieval.encoding.batches import small_jpeg, thumbnail
from retrieval.encoding.encoder import Encoded
from retrieval.query import View

__all__ = ["StudyRecord", "file_study", "preview_side"]


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """What a person says of a study: its label, and what else is known of it, "" for nothing.

    Without `study` it gets a name of its own. Without `patient` it is the only study of its patient, unless the
    radiographs name the patient as the index names patients.
    """

    label: int
    study: str = ""
    patient: str = ""
    part: str = ""
    finding: str = ""
    note: str = ""


def file_study(path: Path, views: Sequence[View], encoded: Encoded, record: StudyRecord) -> Filed:
    """Add a study of V views, encoded by the model of the index at `path`; it votes from the next query on.

    The index stores what `index add` stores, but no path. Raises IndexFailure if the study or one of its files is
    indexed already, and if the index hashes its names with a site key that is not here.
    """
    with FilingWriter.open(path) as writer:
        about = writer.metadata("collection")
        about = about if isinstance(about, dict) else {}
        key = _key(str(about.get("site", "")))
        study = record.study or f"filed-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        study = key.pseudonym("study", study) if key and record.study else study
        patient = _patient(record.patient, views, key, keeps=about.get("layout") == "dicom") or study
        cases = [
            Case(
                case=f"{study}/{number}",
                study=study,
                patient=patient,
                label=record.label,
                part=record.part.strip().lower(),
                digest=view.digest,
                **({"finding": record.finding} if record.finding else {}),
            )
            for number, view in enumerate(views, 1)
        ]
        pictures = [thumbnail(view.pixels) for view in views]
        side = preview_side(writer)
        larger = [small_jpeg(view.pixels, side) for view in views] if side else []
        extras = {"previews": larger} if larger else None
        return writer.file(cases, encoded.embeddings, pictures, encoded.logits, extras=extras, note=record.note)


def preview_side(index: IndexReader | IndexWriter) -> int:
    """The pixels of the long side of an index's previews; 0 if it keeps none."""
    side = index.metadata("previews")
    return side if type(side) is int else 0


def _key(site: str) -> SiteKey | None:
    """The site key of an index that hashes its names; None for another index. Raises IndexFailure."""
    if not site:
        return None
    key = SiteKey.find()
    if key is None or key.name != site:
        raise IndexFailure(
            f"the index hashes its names with a site key that is not here: name the key's file with {KEY_VARIABLE}"
        )
    return key


def _patient(given: str, views: Sequence[View], key: SiteKey | None, *, keeps: bool) -> str:
    """The patient as the index names patients: as given, else as the views name it; "" if nobody names it.

    A DICOM header's Patient ID is stored hashed, or as it is where the index `keeps` identifiers, or not at all.
    """
    if given and not is_placeholder(given):
        return given if key is None or is_pseudonym(given) else key.pseudonym("patient", given)
    for view in views:
        names = view.patients if key is None else [name for name in view.patients if is_pseudonym(name)]
        if names and (key or keeps or not view.dicom):
            return names[0]
    return ""
