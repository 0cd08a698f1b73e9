"""The DICOM layout: an archive's folders as they are, and a table, or folders, that say which studies are abnormal.

The headers say whose a radiograph is. Unless identifiers are to be kept, keyed hashes (`datasets.pseudonyms`) replace
them. The folders and files of an archive are often named after patients, so the cases then hold no path, and no notice
or error of this module names one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from index.case import Case
from retrieval.datasets.case_table import Meanings, label_of, read_table, unknown_labels
from retrieval.datasets.folders import is_dicom_file, named_file, walk
from retrieval.datasets.identifiers import identifier_notices, look, placeholder_notices
from retrieval.datasets.label_folders import has_label_folders, label_of_folders
from retrieval.datasets.pseudonyms import SiteKey, is_placeholder, normalised
from retrieval.datasets.splits import split_name
from retrieval.errors import CollectionError
from retrieval.images.dicom_header import DicomError, DicomRecord, NoRadiograph
from retrieval.images.radiograph import MAX_BYTES, MAX_PIXELS
from retrieval.notices import Code, Notice, without_names

__all__ = ["DicomArchive", "is_dicom_folder", "labelled_studies", "read_dicom_folder"]

LABEL_TABLE = "labels.csv"
_DIRECTORY = "DICOMDIR"
_LOOKED_AT = 200  # files; a folder whose first ones are not DICOM counts as one without DICOM


@dataclass(frozen=True, slots=True)
class DicomArchive:
    """The cases that have a label, notices about the other files, and the site key's name ("" without one)."""

    cases: tuple[Case, ...]
    notices: tuple[Notice, ...]
    site: str


@dataclass(frozen=True, slots=True)
class _Label:
    line: int
    label: int
    part: str
    split: str


@dataclass(frozen=True, slots=True)
class _LabelTable:
    """A table of labels, by Study Instance UID and by Accession Number.

    Errors name lines, since their values may name a patient.
    """

    path: Path
    studies: dict[str, _Label] = field(default_factory=dict)
    accessions: dict[str, _Label] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, meanings: Meanings | None = None) -> "_LabelTable":
        """Raises CollectionError."""
        rows = read_table(path, ("label",))
        if rows and not {"study", "accession"} & rows[0][1].keys():
            raise CollectionError(f"{path} has no column study or accession; its first line must name its columns")
        bad = [f"line {line}" for line, row in rows if label_of(row["label"], meanings) is None]
        if bad:
            raise CollectionError(unknown_labels(path, bad))
        table = cls(path)
        for line, row in rows:
            number = label_of(row["label"], meanings) or 0
            label = _Label(line, number, row.get("part", "").lower(), split_name(row.get("split", "")))
            if not (row.get("study") or row.get("accession")):
                raise CollectionError(f"{path} line {line} names neither a study nor an accession number")
            for column, labels in (("study", table.studies), ("accession", table.accessions)):
                if name := row.get(column):
                    table.require_same(labels.setdefault(name, label), label)
        return table

    def label_of(self, path: Path, record: DicomRecord) -> _Label | None:
        study, accession = self.studies.get(record.study), self.accessions.get(normalised(record.accession))
        if study and accession:
            self.require_same(study, accession)
        return study or accession

    def require_same(self, first: _Label, second: _Label) -> None:
        if first.label != second.label:
            raise CollectionError(
                f"{self.path} gives one study two labels, in the lines {first.line} and {second.line}"
            )

    def alike(self, lines: set[int], records: Iterable[DicomRecord]) -> int:
        """How many of the lines name a study or number that looks like that of one of the records."""
        looks = {look(name) for record in records for name in (record.study, record.accession) if name}
        names = (*self.studies.items(), *self.accessions.items())
        return len({label.line for name, label in names if label.line in lines and look(name) in looks})

    @property
    def identifiers(self) -> set[str]:
        return {*self.studies, *self.accessions}

    @property
    def lines(self) -> set[int]:
        return {label.line for label in (*self.studies.values(), *self.accessions.values())}


@dataclass(frozen=True, slots=True)
class _FolderLabels:
    """Labels by the folders that radiographs lie in: normal/ and abnormal/, as `label_folders` reads them."""

    root: Path
    meanings: Meanings | None = None
    identifiers: frozenset[str] = frozenset()
    lines: frozenset[int] = frozenset()

    def label_of(self, path: Path, record: DicomRecord) -> _Label | None:
        label, split, _ = label_of_folders(path.relative_to(self.root).parent.parts, self.meanings)
        return None if label is None else _Label(0, label, "", split)

    def alike(self, lines: set[int], records: Iterable[DicomRecord]) -> int:
        return 0

    def require_one(self, files: Iterable[tuple[Path, DicomRecord]]) -> None:
        """Raise CollectionError if files of one study lie in folders of both labels."""
        labels: dict[str, set[int]] = defaultdict(set)
        for path, record in files:
            if label := self.label_of(path, record):
                labels[record.study].add(label.label)
        if several := sum(len(values) > 1 for values in labels.values()):
            raise CollectionError(
                f"{self.root} has studies with radiographs in folders of both labels: {several} of {len(labels)}; "
                "move them, or name a table with --labels"
            )


@dataclass(slots=True)
class _Records:
    """The radiographs in the folders, copies of them, and counts of the other files.

    These are DICOM of other kinds, and other files by code.
    """

    radiographs: list[tuple[Path, DicomRecord]] = field(default_factory=list)
    copies: list[tuple[Path, DicomRecord]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    others: Counter[Code] = field(default_factory=Counter)
    twice: list[Path] = field(default_factory=list)  # links to folders that are read under another path

    def notices(self) -> list[Notice]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
        return [
            Notice(Code.NOT_DICOM, detail={"count": self.others[Code.NOT_DICOM]}),
            Notice(Code.NOT_RADIOGRAPHS, detail={"count": self.kinds.total(), "kinds": kinds}),
            Notice(Code.UNREADABLE_DICOM, detail={"count": self.others[Code.UNREADABLE_DICOM]}),
            Notice(Code.COPIES, detail={"count": len(self.copies)}),
            Notice(Code.READ_ONCE, detail={"count": len(self.twice)}),
        ]


def is_dicom_folder(folder: Path) -> bool:
    """Whether a folder holds a DICOMDIR, or its first files (those in its folders included) include DICOM."""
    for number, path in enumerate(_files(folder)):
        if path.name.upper() == _DIRECTORY or is_dicom_file(path):
            return True
        if number == _LOOKED_AT:
            break
    return False


def read_dicom_folder(
    folder: Path,
    labels: Path | None = None,
    keep_identifiers: bool = False,
    labels_are: Meanings | None = None,
) -> DicomArchive:
    """Every labelled CR, DX and secondary capture in a folder and the folders in it, one case a frame, and notices.

    labels: a CSV table with the columns `study` (Study Instance UID) or `accession` (Accession Number), or both, and
    `label` (as in a case table, with `labels_are`); `part` and `split` are optional. By default it is the folder's
    labels.csv; without that the folders normal/ and abnormal/ are the labels, if there are any.

    Other files, radiographs without a label, copies of a radiograph, and studies that name two patients are passed over
    and counted. A placeholder such as ANONYMOUS as Patient ID names nobody. Links to folders are followed.

    Raises CollectionError if the labels are missing, cannot be used, or give a study two labels; SiteKeyError;
    MissingExtra.
    """
    named = _labels(folder, labels, labels_are)
    read = _read_records(folder)
    if isinstance(named, _FolderLabels):
        named.require_one((*read.radiographs, *read.copies))
    key = None if keep_identifiers else SiteKey.find_or_make()
    pairs = [(path, record, named.label_of(path, record)) for path, record in read.radiographs]
    labelled = [(path, record, label) for path, record, label in pairs if label]
    records = [record for _, record, _ in labelled]
    ambiguous = _with_two_patients(records)
    cases = [
        case
        for path, record, label in labelled
        if record.study not in ambiguous
        for case in _cases(folder, path, record, label, key)
    ]
    unlabelled = [record for _, record, label in pairs if not label]
    without = set(named.lines) - {label.line for _, _, label in labelled}
    counted = (
        *read.notices(),
        Notice(
            Code.UNLABELLED, detail={"count": len(unlabelled), "studies": len({record.study for record in unlabelled})}
        ),
        Notice(Code.STUDIES_OF_TWO_PATIENTS, detail={"count": len(ambiguous)}),
        Notice(
            Code.WITHOUT_PATIENT,
            detail={"count": sum(not _patient(record) for record in records), "total": len(records)},
        ),
        Notice(Code.BURNED_IN_TEXTS, detail={"count": sum(record.burnt_in for record in records)}),
        Notice(Code.LABELS_WITHOUT_STUDY, detail={"count": len(without), "total": len(named.lines)}),
        Notice(Code.LABELS_ALIKE, detail={"count": named.alike(without, unlabelled)}),
        Notice(Code.DICOMDIR_FILES_MISSING, detail={"count": _missing(folder)}),
    )
    patients = {record.study: _patient(record) or record.study for record in records}
    raw = identifier_notices(patients, {*map(_patient, records), *named.identifiers} - {""})
    notices = [notice for notice in counted if notice.detail["count"]]
    notices += placeholder_notices(record.patient for record in records)
    notices += map(without_names, raw) if key else raw
    if key:
        notices.append(Notice(Code.PSEUDONYMS))
    return DicomArchive(tuple(cases), tuple(notices), key.name if key else "")


def _labels(folder: Path, labels: Path | None, labels_are: Meanings | None) -> _LabelTable | _FolderLabels:
    """The labels of a folder's studies. Raises CollectionError."""
    table = named_file(folder, LABEL_TABLE) if labels is None else labels
    if table.is_file():
        return _LabelTable.read(table, labels_are)
    if labels is None and has_label_folders(folder, labels_are):
        return _FolderLabels(folder, labels_are)
    raise CollectionError(
        f"{table} does not exist: name a table with --labels, whose columns are study (Study Instance UID) or "
        "accession (Accession Number), and label (normal or abnormal); or use folders named normal and abnormal, or as "
        "--labels-are says"
    )


def labelled_studies(table: Path, labels_are: Meanings | None = None) -> tuple[list[str], list[str]]:
    """The Study Instance UIDs and the Accession Numbers that a table of labels names. Raises CollectionError."""
    named = _LabelTable.read(table, labels_are)
    return sorted(named.studies), sorted(named.accessions)


def _read_records(folder: Path) -> _Records:
    from retrieval.images.dicom_reader import read_record

    read = _Records()
    positions: dict[str, int] = {}  # of each radiograph in `read.radiographs`
    for path in _files(folder, read.twice):
        if path.name.upper() == _DIRECTORY:
            continue
        if not is_dicom_file(path):
            read.others[Code.NOT_DICOM] += 1
            continue
        try:
            with path.open("rb") as file:
                record = read_record(file, MAX_BYTES, MAX_PIXELS)
        except NoRadiograph as error:
            read.kinds[error.kind] += 1
        except (DicomError, OSError):
            read.others[Code.UNREADABLE_DICOM] += 1
        else:
            position = positions.get(record.image)
            if not record.study:
                read.others[Code.UNREADABLE_DICOM] += 1
            elif position is not None:
                known, copy = read.radiographs[position], (path, record)
                if path.stat().st_size > known[0].stat().st_size:  # the smaller file may be an incomplete copy
                    read.radiographs[position], copy = copy, known
                read.copies.append(copy)
            else:
                if record.image:
                    positions[record.image] = len(read.radiographs)
                read.radiographs.append((path, record))
    return read


def _files(folder: Path, twice: list[Path] | None = None) -> Iterator[Path]:
    """Every file in a folder and its folders by name, except hidden files and the table of labels."""
    for parent, names in walk(folder, twice):
        yield from (parent / name for name in names if name.lower() != LABEL_TABLE)


def _patient(record: DicomRecord) -> str:
    """The Patient ID in one form, "" for a placeholder."""
    return "" if is_placeholder(record.patient) else normalised(record.patient)


def _with_two_patients(records: Iterable[DicomRecord]) -> set[str]:
    """The studies whose radiographs name more than one patient."""
    pairs = {(record.study, _patient(record)) for record in records}
    return {study for study, count in Counter(study for study, _ in pairs).items() if count > 1}


def _cases(folder: Path, path: Path, record: DicomRecord, label: _Label, key: SiteKey | None) -> Iterator[Case]:
    name = path.relative_to(folder).as_posix()
    study, series = record.study, record.series
    patient = _patient(record)
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
    """How many files that the folder's own DICOMDIR lists are missing, whatever the case of their names."""
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
