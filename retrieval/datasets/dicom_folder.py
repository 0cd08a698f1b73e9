"""The DICOM layout: an archive's folders as they are, and a table that says which studies are abnormal.

Who is who comes from the headers, and is named by keyed hashes (`retrieval.pseudonyms`) unless identifiers are to be
kept. Folders and files of an archive are often called by patients' names, so the table of cases holds no path of theirs
then, and no sentence that this module says names one.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from index.case import Case
from retrieval.datasets.case_table import LABELS, read_table, some
from retrieval.errors import CollectionError
from retrieval.images.dicom_header import DicomError, DicomRecord, NoRadiograph
from retrieval.images.radiograph import MAX_BYTES, MAX_PIXELS, is_dicom
from retrieval.pseudonyms import SiteKey

__all__ = ["DicomArchive", "is_dicom_folder", "labelled_studies", "read_dicom_folder"]

LABEL_TABLE = "labels.csv"
_DIRECTORY = "DICOMDIR"
_LOOKED_AT = 200  # files, before a folder counts as one without DICOM


@dataclass(frozen=True, slots=True)
class DicomArchive:
    """The cases that have a label, what there is to say of the others, and the site key's name ("" without one)."""

    cases: tuple[Case, ...]
    notes: tuple[str, ...]
    site: str


@dataclass(frozen=True, slots=True)
class _Labelled:
    line: int
    label: int
    part: str
    split: str


@dataclass(slots=True)
class _Found:
    """What a walk through the folders met."""

    radiographs: list[tuple[Path, DicomRecord]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    strange: int = 0  # files that are no DICOM
    unreadable: int = 0
    copies: int = 0


def is_dicom_folder(folder: Path) -> bool:
    """Whether a folder holds a DICOMDIR, or DICOM is among the first files in it and its folders."""
    for number, path in enumerate(_files(folder)):
        if path.name.upper() == _DIRECTORY or _is_dicom(path):
            return True
        if number == _LOOKED_AT:
            break
    return False


def read_dicom_folder(folder: Path, labels: Path | None = None, keep_identifiers: bool = False) -> DicomArchive:
    """Every labelled CR, DX and secondary capture in a folder and the folders in it, a case a frame, and notes.

    labels: a CSV table with the columns `study` (Study Instance UID) or `accession` (Accession Number), or both, and
    `label` (as in a case table); `part` and `split` are read where there are. It is the folder's labels.csv unless
    named. Files that are no DICOM, or no radiographs, or have no label are passed over and counted, and so are copies
    of one radiograph, and studies that name two patients.

    Raises CollectionError where there is no table, it cannot be used, or gives a study two labels; SiteKeyError;
    MissingExtra.
    """
    table = folder / LABEL_TABLE if labels is None else labels
    if not table.is_file():
        raise CollectionError(
            f"{table} does not exist: name a table with --labels, whose columns are study (Study Instance UID) or "
            "accession (Accession Number), and label (normal or abnormal)"
        )
    by_study, by_accession = _labels(table)
    found = _walk(folder)
    key = None if keep_identifiers else SiteKey.find_or_make()
    labelled: list[tuple[Path, DicomRecord, _Labelled]] = []
    without = []
    for path, record in found.radiographs:
        label = _label_of(record, by_study, by_accession, table)
        if label:
            labelled.append((path, record, label))
        else:
            without.append(record)
    torn = _with_two_patients(record for _, record, _ in labelled)
    cases = [
        case
        for path, record, label in labelled
        if record.study not in torn
        for case in _cases(folder, path, record, label, key)
    ]
    notes = [*_notes(found, without, len(torn)), *_notes_of([record for _, record, _ in labelled])]
    used = {label.line for _, _, label in labelled}
    lines = {label.line for label in (*by_study.values(), *by_accession.values())}
    if lines - used:
        notes.append(f"rows of the table of labels whose study is not here: {len(lines - used)} of {len(lines)}")
    if missing := _missing(folder):
        notes.append(f"files that DICOMDIR lists and that are missing: {missing}")
    if key:
        notes.append("patients and studies are named by hashes with this site's key, and no path is stored")
    return DicomArchive(tuple(cases), tuple(notes), key.name if key else "")


def labelled_studies(table: Path) -> tuple[list[str], list[str]]:
    """The Study Instance UIDs and the Accession Numbers that a table of labels names. Raises CollectionError."""
    by_study, by_accession = _labels(table)
    return sorted(by_study), sorted(by_accession)


def _labels(table: Path) -> tuple[dict[str, _Labelled], dict[str, _Labelled]]:
    """The labels by study and by accession number. Errors name lines: what stands there may name a patient."""
    rows = read_table(table, ("label",))
    if rows and not {"study", "accession"} & rows[0][1].keys():
        raise CollectionError(f"{table} has neither a column study nor accession; its first line must name its columns")
    bad = [f"line {line}" for line, row in rows if row["label"].lower() not in LABELS]
    if bad:
        raise CollectionError(f"{table} has labels other than {', '.join(LABELS)}: {some(bad)}")
    found: tuple[dict[str, _Labelled], dict[str, _Labelled]] = ({}, {})
    for line, row in rows:
        label = _Labelled(line, LABELS[row["label"].lower()], row.get("part", "").lower(), row.get("split", "").lower())
        named = [(names, row[column]) for names, column in zip(found, ("study", "accession"), strict=True)
                 if row.get(column)]  # fmt: skip
        if not named:
            raise CollectionError(f"{table} line {line} names neither a study nor an accession number")
        for names, name in named:
            first = names.setdefault(name, label)
            if first.label != label.label:
                raise CollectionError(f"{table} gives one study two labels, in the lines {first.line} and {line}")
    return found


def _label_of(
    record: DicomRecord, by_study: dict[str, _Labelled], by_accession: dict[str, _Labelled], table: Path
) -> _Labelled | None:
    study, accession = by_study.get(record.study), by_accession.get(record.accession)
    if study and accession and study.label != accession.label:
        raise CollectionError(f"{table} gives one study two labels, in the lines {study.line} and {accession.line}")
    return study or accession


def _walk(folder: Path) -> _Found:
    from retrieval.images.dicom_reader import read_record

    found = _Found()
    places: dict[str, int] = {}  # of each radiograph among those found
    for path in _files(folder):
        if path.name.upper() == _DIRECTORY:
            continue
        if not _is_dicom(path):
            found.strange += 1
            continue
        try:
            with path.open("rb") as file:
                record = read_record(file, MAX_BYTES, MAX_PIXELS)
        except NoRadiograph as error:
            found.others[error.kind] += 1
        except (DicomError, OSError):
            found.unreadable += 1
        else:
            if not record.study:
                found.unreadable += 1
            elif record.image in places:
                found.copies += 1
                known, _ = found.radiographs[places[record.image]]
                if path.stat().st_size > known.stat().st_size:  # the other may be a copy that was broken off
                    found.radiographs[places[record.image]] = path, record
            else:
                if record.image:
                    places[record.image] = len(found.radiographs)
                found.radiographs.append((path, record))
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Every file in a folder and its folders by name, but hidden ones and the table of labels."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and name.lower() != LABEL_TABLE:
                yield Path(place) / name


def _is_dicom(path: Path) -> bool:
    try:
        return path.is_file() and is_dicom(path)
    except OSError:
        return False


def _with_two_patients(records: Iterator[DicomRecord]) -> set[str]:
    """The studies whose radiographs name more than one patient."""
    pairs = {(record.study, record.patient) for record in records}
    return {study for study, count in Counter(study for study, _ in pairs).items() if count > 1}


def _cases(folder: Path, path: Path, record: DicomRecord, label: _Labelled, key: SiteKey | None) -> Iterator[Case]:
    name = path.relative_to(folder).as_posix()
    study, patient, series = record.study, record.patient, record.series
    if key:
        name = key.pseudonym("image", record.image or name)
        patient = key.pseudonym("patient", patient) if patient else ""
        study = key.pseudonym("study", study)
        series = key.pseudonym("series", series) if series else ""
    for number in range(1, record.frames + 1):
        frame = f"[{number}]" if record.frames > 1 else ""
        yield Case(
            case=name + frame,
            study=study,
            patient=patient or study,
            label=label.label,
            part=label.part or record.part,
            view=record.view,
            split=label.split,
            path=f"{path}{frame}",
            laterality=record.laterality,
            series=series,
        )


def _missing(folder: Path) -> int:
    """How many of the files that the folder's own DICOMDIR lists are not there, whatever the case of their names."""
    from retrieval.images.dicom_reader import listed_files

    directories = [path for path in folder.iterdir() if path.name.upper() == _DIRECTORY and path.is_file()]
    if not directories:
        return 0
    try:
        with directories[0].open("rb") as file:
            listed = {"/".join(names).upper() for names in listed_files(file, MAX_BYTES)}
    except (DicomError, OSError):
        return 0
    return len(listed - {path.relative_to(folder).as_posix().upper() for path in _files(folder)})


def _notes(found: _Found, without: list[DicomRecord], torn: int) -> list[str]:
    notes = []
    if found.strange:
        notes.append(f"passed over, no DICOM: {found.strange}")
    if found.others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.others.most_common())
        notes.append(f"passed over, DICOM but no radiograph: {found.others.total()} ({kinds})")
    if found.unreadable:
        notes.append(f"passed over, DICOM that cannot be read: {found.unreadable}")
    if found.copies:
        notes.append(f"passed over, copies of a radiograph that is read: {found.copies}")
    if without:
        studies = len({record.study for record in without})
        notes.append(f"passed over, radiographs without a label: {len(without)} (studies: {studies})")
    if torn:
        notes.append(f"passed over, studies that name two patients: {torn}")
    return notes


def _notes_of(records: list[DicomRecord]) -> list[str]:
    """What a user of these radiographs has to know."""

    def count(has: Callable[[DicomRecord], bool]) -> int:
        return sum(map(has, records))

    notes = []
    if nobody := count(lambda record: not record.patient):
        notes.append(
            f"radiographs that name no patient: {nobody} of {len(records)}; each of their studies counts as a patient "
            "of its own, so the same patient can be on both sides of a comparison"
        )
    if burnt := count(lambda record: record.burnt_in):
        notes.append(f"radiographs that say that text is burnt into them: {burnt}; it is seen in their thumbnails")
    return notes
