"""A collection: labelled radiographs on disk, in any layout, as one table of cases."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from index.case import LABEL_NAMES, Case, as_text
from retrieval.datasets.case_table import Meanings, read_casetable, read_lesions
from retrieval.datasets.dicom_folder import is_dicom_folder, read_dicom_folder
from retrieval.datasets.folders import named_file
from retrieval.datasets.fracatlas import is_fracatlas, read_fracatlas
from retrieval.datasets.identifiers import identifier_notices
from retrieval.datasets.label_folders import has_label_folders, read_label_folders
from retrieval.datasets.mura import find_mura, read_mura
from retrieval.datasets.splits import SPLITS, VALID_SHARE, split_by_patient, split_name
from retrieval.errors import CollectionError
from retrieval.formats.data_frames import SUFFIXES
from retrieval.notices import Code, Notice
from retrieval.wording import listed, sentence

if TYPE_CHECKING:
    from retrieval.formats.data_frames import DataFrame

__all__ = ["LAYOUTS", "SYNTHETIC_MARK", "Collection", "read_collection"]

LAYOUTS = ("mura", "fracatlas", "csv", "folders", "dicom")
CASE_TABLE = "cases.csv"
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", *SUFFIXES)
LESIONS = "lesions.csv"
SYNTHETIC_MARK = "SYNTHETIC.txt"
_EXPECTED = {
    "mura": "train/XR_FINGER/patient00001/study1_positive/image1.png and the like",
    "fracatlas": "dataset.csv beside images/Fractured and images/Non_fractured",
    "csv": f"a case table {CASE_TABLE} with the columns path and label, or the table's own name",
    "folders": "folders named normal and abnormal, or as --labels-are says, alone or in train and valid",
    "dicom": "DICOM files, in folders or not, and a table of labels, labels.csv or named with --labels; or DICOM in "
    "folders named normal and abnormal",
}


@dataclass(frozen=True, slots=True)
class Collection:
    """Labelled radiographs, none of them opened yet. Every study has one label and one patient; cases are unique.

    `root` is the folder that `Case.case` is relative to, `layout` one of `LAYOUTS`. `notices` say what was inferred or
    left out. `synthetic` is true if the root has a file SYNTHETIC.txt. `kinds` are kinds of lesions by case, or a table
    that may name them.

    `site` names the key that hashed the identifiers of DICOM radiographs; "" if identifiers are kept. With a key,
    `Case.path` is for reading alone: neither an index nor a message may hold it.
    """

    root: Path
    layout: str
    cases: tuple[Case, ...]
    notices: tuple[Notice, ...] = ()
    synthetic: bool = False
    kinds: Path | Mapping[str, str] | None = None
    site: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """The notices as sentences."""
        return tuple(map(sentence, self.notices))

    def lesions(self) -> dict[str, str]:
        """Each case's kind of lesion, as the case table or a lesions.csv (path,lesion) in the root names it."""
        return read_lesions(self.kinds) if isinstance(self.kinds, Path) else dict(self.kinds or {})

    def stored(self, case: Case) -> Case:
        """The record of a case as an index may hold it. Raises CollectionError for a name that is not UTF-8."""
        record = replace(case, path="") if self.site else case
        try:
            "".join((record.case, record.path, record.study, record.patient)).encode()
        except UnicodeEncodeError as error:
            raise CollectionError(
                f"the path of {as_text(record.case)} has bytes that are not UTF-8 text, "
                "so no index can hold it; rename it"
            ) from error
        return record

    def divided(self) -> "Collection":
        """The collection itself if it names splits; else divided by patient into train and valid, with a notice."""
        if any(case.split for case in self.cases):
            return self
        cases = split_by_patient(self.cases)
        return replace(self, cases=cases, notices=(*self.notices, _drawn_splits(cases)))

    def select(self, *, part: str | None = None, split: str | None = None) -> "Collection":
        """Only the cases of one body part, of one split, or both; CollectionError if there are none.

        A collection without splits is divided by patient into train and valid (`datasets.splits`), with a notice.
        """
        divided = self if split is None else self.divided()
        cases, notices = divided.cases, divided.notices
        for field, wanted in (("part", part), ("split", split and split_name(split))):
            if wanted is not None:
                names = sorted({getattr(case, field) for case in cases} - {""})
                cases = tuple(case for case in cases if getattr(case, field) == wanted.strip().lower())
                if not cases:
                    choice = f"choose one of: {', '.join(names)}" if names else f"it names no {field}"
                    raise CollectionError(f"{self.root} has no radiograph of {field} {wanted!r}; {choice}")
        return replace(self, cases=cases, notices=notices)


def read_collection(
    data: "Path | str | DataFrame",
    layout: str | None = None,
    part: str | None = None,
    split: str | None = None,
    *,
    labels: Path | None = None,
    labels_are: Meanings | None = None,
    keep_identifiers: bool = False,
) -> Collection:
    """Read a MURA or FracAtlas folder, a case table, folders named by labels, or a DICOM archive.

    The layout is recognised unless it is named. A case table is a CSV file, an Excel workbook, a Parquet file, or a
    pandas DataFrame, whose paths are relative to the current folder.

    A folder with a `cases.csv` is that case table. A folder that holds one collection stands for it. A split (`train`)
    or a part (`train/XR_FINGER`) of a MURA folder can be named. `part` and `split` select as `Collection.select` does.
    `labels` and `keep_identifiers` are for DICOM: see `read_dicom_folder`. `labels_are` says what labels mean in tables
    and names of folders besides `case_table.LABELS`: {"fracture": 1, "no": 0}.

    Raises CollectionError, one line, for a missing path, an unknown layout, a table that cannot be used, a study with
    two labels or two patients, and a collection without radiographs.
    """
    if not isinstance(data, str | os.PathLike):
        return _read_frame(data, labels_are).select(part=part, split=split)
    data = Path(os.path.abspath(data))  # noqa: PTH100 - resolve() would follow links, and cases be named by their targets
    if layout is not None and layout not in LAYOUTS:
        raise CollectionError(f"layout {layout!r} is unknown; choose one of: {', '.join(LAYOUTS)}")
    if labels or keep_identifiers:
        layout = layout or "dicom"
        if layout != "dicom":
            raise CollectionError(f"--labels and --keep-identifiers are for DICOM, not for the layout {layout}")
    try:
        path, recognised = _recognise(data, layout, labels_are)
        if recognised == "dicom":
            collection = _read_dicom(path, labels, labels_are, keep_identifiers)
        else:
            collection = _read(path, recognised, labels_are)
            if recognised == "folders" and not collection.cases and is_dicom_folder(path):
                collection = _read_dicom(path, None, labels_are, keep_identifiers)
    except OSError as error:
        raise CollectionError(f"{error.filename or data} cannot be read: {error.strerror or error}") from error
    if not collection.cases:
        noted = "".join(f"; {note}" for note in collection.notes)
        raise CollectionError(f"{data} holds no radiographs in the layout {collection.layout}{noted}")
    return _checked(collection).select(part=part, split=split)


def _read_frame(frame: "DataFrame", labels_are: Meanings | None) -> Collection:
    table = Path.cwd() / "DataFrame"
    text = frame.to_csv(index=False)
    cases, notices = read_casetable(table, labels_are, text)
    if not cases:
        raise CollectionError("the DataFrame holds no radiographs")
    return _checked(Collection(table.parent, "csv", tuple(cases), tuple(notices), kinds=read_lesions(table, text)))


def _checked(collection: Collection) -> Collection:
    _check_studies(collection.cases)
    return replace(collection, notices=(*collection.notices, *_notices(collection)))


def _notices(collection: Collection) -> Iterator[Notice]:
    """The notices about identifiers and splits, which all layouts share."""
    cases, layout = collection.cases, collection.layout
    if layout in ("csv", "folders", "mura"):
        patients = {case.study: case.patient for case in cases}
        named = {case.patient for case in cases if case.patient not in (case.study, case.case)}
        if layout == "csv":
            named |= {case.study for case in cases if case.study != case.case}
        yield from identifier_notices(patients, named)
    if others := sorted({case.split for case in cases} - {"", *SPLITS}):
        yield Notice(Code.OTHER_SPLITS, detail={"count": len(others), "names": listed(others)})
    unsplit = sum(not case.split for case in cases)
    if 0 < unsplit < len(cases):
        yield Notice(Code.WITHOUT_SPLIT, detail={"count": unsplit, "total": len(cases)})


def _drawn_splits(cases: Iterable[Case]) -> Notice:
    """The notice of splits that were drawn, with the studies of each label on each side."""
    counts = Counter((split, label) for split, label, _ in {(case.split, case.label, case.study) for case in cases})
    detail = {f"{split}_{name}": counts[split, label] for split in SPLITS[:2] for label, name in enumerate(LABEL_NAMES)}
    return Notice(Code.DRAWN_SPLITS, detail={"percent": round(100 * VALID_SHARE), **detail})


def _recognise(data: Path, layout: str | None, labels_are: Meanings | None) -> tuple[Path, str]:
    """The folder or table to read, and its layout."""
    if data.is_dir():
        return _recognise_folder(data, layout, labels_are)
    data.stat()  # raises OSError for a missing file
    if data.name.upper() == "DICOMDIR" and layout in (None, "dicom"):
        return data.parent, "dicom"
    if data.suffix.lower() in TABLE_SUFFIXES and layout in (None, "csv"):
        return data, "csv"
    raise CollectionError(
        f"{data} is a file; name a MURA, FracAtlas or DICOM folder, or a case table ({', '.join(TABLE_SUFFIXES)})"
    )


def _recognise_folder(folder: Path, layout: str | None, labels_are: Meanings | None) -> tuple[Path, str]:
    """The folder itself, or the one collection within it, and the layout."""
    if layout == "dicom":
        return folder, layout
    if recognised := _layout_of(folder, layout, labels_are):
        return folder, recognised
    folders = sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))
    collections = [(inner, kind) for inner in folders if (kind := _layout_of(inner, layout, labels_are))]
    if len(collections) == 1:
        return collections[0]
    if collections:
        names = ", ".join(inner.name for inner, _ in collections[:5])
        raise CollectionError(f"{folder} holds {len(collections)} collections ({names}); name one of them")
    if layout is None and is_dicom_folder(folder):
        return folder, "dicom"
    if len(folders) == 1 and not folders[0].is_symlink():  # such as an archive's folder in a folder of the same name
        return _recognise_folder(folders[0], layout, labels_are)
    expected = "; ".join(f"{name} needs {files}" for name, files in _EXPECTED.items() if layout in (None, name))
    raise CollectionError(f"{folder} is not a collection: {expected}")


def _layout_of(folder: Path, layout: str | None, labels_are: Meanings | None) -> str | None:
    """The layout of a folder; None if it has no layout, or not the wanted one."""
    try:
        if layout in (None, "csv") and named_file(folder, CASE_TABLE).is_file():
            return "csv"
        if layout in (None, "fracatlas") and is_fracatlas(folder):
            return "fracatlas"
        if layout in (None, "mura") and find_mura(folder):
            return "mura"
        if layout == "folders" or (layout is None and has_label_folders(folder, labels_are)):
            return "folders"
    except PermissionError:  # another user's folder
        return None
    return None


def _read(path: Path, layout: str, labels_are: Meanings | None) -> Collection:
    kinds = None
    if layout == "csv":
        kinds = table = named_file(path, CASE_TABLE) if path.is_dir() else path
        root, (cases, notices) = table.parent, read_casetable(table, labels_are)
        if is_fracatlas(root):
            notices.append(Notice(Code.INFERRED_PATIENTS))
    elif layout == "fracatlas":
        root, (cases, notices) = path, read_fracatlas(path)
    elif layout == "folders":
        root, (cases, notices) = path, read_label_folders(path, labels_are)
    else:
        mura = find_mura(path)
        if mura is None:
            raise CollectionError(f"{path} is no longer a MURA folder")
        root, (cases, notices) = mura.root, read_mura(mura)
    if kinds is None and (lesions := named_file(root, LESIONS)).is_file():
        kinds = lesions
    return Collection(root, layout, tuple(cases), tuple(notices), (root / SYNTHETIC_MARK).exists(), kinds)


def _read_dicom(folder: Path, labels: Path | None, labels_are: Meanings | None, keep_identifiers: bool) -> Collection:
    archive = read_dicom_folder(folder, labels, keep_identifiers, labels_are)
    synthetic = (folder / SYNTHETIC_MARK).exists()
    return Collection(folder, "dicom", archive.cases, archive.notices, synthetic=synthetic, site=archive.site)


def _check_studies(cases: Iterable[Case]) -> None:
    """Raise CollectionError if a study has two labels or two patients: votes and splits need one of each."""
    first: dict[str, Case] = {}
    for case in cases:
        known = first.setdefault(case.study, case)
        if known.label != case.label:
            raise CollectionError(
                f"study {case.study} has two labels: {known.case} is {known.label_name}, {case.case} {case.label_name}"
                "; give every study one label"
            )
        if known.patient != case.patient:
            raise CollectionError(
                f"study {case.study} has two patients: {known.case} is of {known.patient}, {case.case} of "
                f"{case.patient}; give every study a name of its own"
            )
