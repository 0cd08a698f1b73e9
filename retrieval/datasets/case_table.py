"""The case table: one CSV row a radiograph. `read_table` also reads the other layouts' CSV files."""

import codecs
import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from index.case import ABNORMAL, NORMAL, Case
from retrieval.datasets.folders import PathFinder
from retrieval.datasets.identifiers import placeholder_notices
from retrieval.datasets.pseudonyms import is_placeholder, normalised
from retrieval.datasets.splits import split_name
from retrieval.errors import CollectionError
from retrieval.formats.data_frames import SUFFIXES, table_text
from retrieval.notices import Code, Notice
from retrieval.wording import listed

__all__ = [
    "LABELS",
    "Meanings",
    "label_of",
    "parse_meanings",
    "read_casetable",
    "read_lesions",
    "read_table",
    "unknown_labels",
]

LABELS = {
    "normal": NORMAL,
    "abnormal": ABNORMAL,
    "negative": NORMAL,
    "positive": ABNORMAL,
    "false": NORMAL,
    "true": ABNORMAL,
    "0": NORMAL,
    "1": ABNORMAL,
}
Meanings = Mapping[str, int]
"""What further labels mean, by their text in lower case."""

_SYNONYMS = {
    "patient": ("patientid", "patientno", "patientnr", "patientnumber", "subjectid", "subject"),
    "study": ("studyid", "studyuid", "studyinstanceuid"),
    "accession": ("accessionnumber", "accessionno", "accessionnr"),
    "part": ("bodypart", "bodypartexamined"),
}
"""Other names of columns, without white space and punctuation. They count where a table has no column of the name."""

_GUARDED = re.compile(r"=\"(.*)\"|'([\d=+@-].*)", re.DOTALL)  # for a spreadsheet: ="0012", '0012
_SECOND = re.compile(
    r"(path|label|patient|study|part|view|laterality|split|lesion|accession|finding|report)(?:\.|_duplicated_)\d+"
)
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t]*', re.IGNORECASE)  # of Excel
_GUESSED = "cp1252"  # of a table in neither UTF-8 nor UTF-16
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF8: "utf-8-sig"} | {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def label_of(text: str, meanings: Meanings | None = None) -> int | None:
    """The label that a text names; None for an unknown one. A number such as 1.0 is a label as well.

    >>> [label_of(text) for text in ("Negative", "1.0", "TRUE", "2", "fracture")]
    [0, 1, 1, None, None]
    >>> label_of("Fracture", {"fracture": 1})
    1
    """
    name = normalised(text).lower()
    if name in (labels := LABELS | dict(meanings or {})):
        return labels[name]
    number = re.fullmatch(r"([01])[.,]0*", name)
    return int(number[1]) if number else None


def parse_meanings(text: str) -> dict[str, int]:
    """The meanings of labels in a text such as "fracture=abnormal,no=normal". Raises ValueError."""
    meanings = {}
    for pair in text.split(","):
        name, _, label = (normalised(word).lower() for word in pair.partition("="))
        if not name or label not in LABELS:
            raise ValueError(f"the meaning of a label is written like fracture=abnormal or no=normal, not {pair!r}")
        meanings[name] = LABELS[label]
    return meanings


def unknown_labels(table: Path, lines: Sequence[str]) -> str:
    """The error of a table with labels that are not known, in these lines."""
    return (
        f"{table} has labels other than {', '.join(LABELS)}: {listed(lines)}; "
        "say what they mean with --labels-are, such as fracture=abnormal,no=normal"
    )


def read_casetable(
    table: Path, meanings: Meanings | None = None, text: str | None = None
) -> tuple[list[Case], list[Notice]]:
    """The cases of a table in its order, and notices.

    The columns `path` (absolute, or relative to the table's folder) and `label` (normal, negative, false or 0;
    abnormal, positive, true or 1; in any case; `meanings` adds others) are required. `patient`, `study`, `part`,
    `view`, `laterality`, `split`, `finding` (several separated by ";") and `report` are optional, as is `lesion` (see
    `read_lesions`). Other columns are not read. A
    row without a study is one study, and a study without a patient, or with a placeholder such as "nan", one patient.
    Files that are missing stay cases, which cannot be read.

    Raises CollectionError for a missing column, an unknown label, a path that is listed twice, a table of which no file
    exists, and what `read_table` refuses.
    """
    rows = read_table(table, ("path", "label"), text)
    bad = [f"line {line} has {row['label']!r}" for line, row in rows if label_of(row["label"], meanings) is None]
    if bad:
        raise CollectionError(unknown_labels(table, bad))
    blank = [str(line) for line, row in rows if not row["path"]]
    if blank:
        raise CollectionError(f"{table} has rows without a path: line {listed(blank)}")

    finder = PathFinder(table.parent)
    paths = [finder.find(row["path"]) for _, row in rows]
    missing = [row["path"] for (_, row), path in zip(rows, paths, strict=True) if path is None]
    if rows and len(missing) == len(rows):
        raise CollectionError(
            f"none of the {len(rows)} radiographs that {table} names exists: {listed(missing)}; "
            "paths are relative to the table's folder"
        )
    cases = [_case(table.parent, row, path, meanings) for (_, row), path in zip(rows, paths, strict=True)]
    twice = [name for name, times in Counter(case.case for case in cases).items() if times > 1]
    if twice:
        raise CollectionError(f"{table} lists {len(twice)} radiographs more than once: {listed(twice)}")
    notices = _notices([row for _, row in rows])
    if text is None and table.suffix.lower() not in SUFFIXES and _encoding(table.read_bytes()) == _GUESSED:
        notices.append(Notice(Code.GUESSED_ENCODING))
    if missing:
        counts = {"count": len(missing), "total": len(rows)}
        notices.append(Notice(Code.MISSING_FILES, detail={**counts, "names": listed(missing)}))
    return cases, notices


def read_lesions(table: Path, text: str | None = None) -> dict[str, str]:
    """Each case's kind of lesion in lower case, from the column `lesion`. Cases without one are left out.

    text: the table's text, where it is no file.

    Raises CollectionError as `read_table` does.
    """
    finder = PathFinder(table.parent)
    rows = [row for _, row in read_table(table, ("path",), text) if row.get("lesion") and row["path"]]
    return {_name(table.parent, row["path"], finder.find(row["path"])): row["lesion"].lower() for row in rows}


def read_table(table: Path, required: Sequence[str], text: str | None = None) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file (or of its `text`), an Excel workbook or a Parquet file, each with its line number.

    Column names are in lower case, values are `normalised`. A column such as patient_id or "Study Instance UID" is the
    patient or the study of a table without such a column. Of ="0012" and '0012 the number is read.

    The separator is the one that Excel's line sep= names, else a comma, semicolon, tab or bar: the one between the
    required columns, or which the header has most of. The text is UTF-8, UTF-16, or UTF-32 with a byte order mark; else
    it is read as Windows-1252, which Excel writes. Blank rows, and empty cells beyond the header, are ignored.

    Raises CollectionError if the file is not such text, lacks a required column, has two columns of one name (in any
    case; pandas calls the second "name.1", polars "name_duplicated_0"), or has a row with more values than the header.
    """
    rows = []
    try:
        lines = io.StringIO(_text(table) if text is None else text, newline="").readlines()
        first = next((number for number, line in enumerate(lines) if line.strip()), 0)
        line = lines[first].strip("\r\n ") if lines else ""  # sep= may name a tab
        separator = _SEPARATOR_LINE.fullmatch(line)
        if separator:
            first += 1
            line = lines[first] if first < len(lines) else ""
        delimiter = separator[1] if separator else _delimiter(line, required)
        reader = csv.reader(lines[first:], delimiter=delimiter, strict=True)
        names = _columns(table, next(reader, []), required)
        for values in reader:
            number = first + reader.line_num
            if any(value.strip() for value in values[len(names) :]):
                raise CollectionError(
                    f"{table} line {number} has {len(values)} values for {len(names)} columns; put quotes around "
                    "values that contain the separator"
                )
            if any(map(normalised, values)):
                padded = [*values, *[""] * len(names)]
                row = {name: _cell(name, value) for name, value in zip(names, padded, strict=False)}
                rows.append((number, row))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CollectionError(
            f"{table} is not a CSV table in UTF-8, UTF-16 or Windows-1252: {error}; export it again"
        ) from error
    return rows


def _cell(column: str, value: str) -> str:
    value = _GUARDED.sub(r"\1\2", value.strip()) if _GUARDED.fullmatch(value.strip()) else value
    # The name of a file keeps its white space, a report its lines.
    return value.strip() if column in ("path", "report") else normalised(value)


def _text(table: Path) -> str:
    if table.suffix.lower() in SUFFIXES:
        return table_text(table)
    data = table.read_bytes()
    return data.decode(_encoding(data))


def _encoding(data: bytes) -> str:
    """The encoding of a table: by its byte order mark, by zeros in its first bytes, or UTF-8 if it is that."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return encoding
    if b"\0" in data[:2]:
        return "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return _GUESSED
    return "utf-8"


def _delimiter(header: str, required: Sequence[str]) -> str:
    """The separator of a header: a name such as "remarks, if any" may hold other ones."""

    def key(delimiter: str) -> tuple[int, int]:
        names = {normalised(name.strip(' "')).lower() for name in header.split(delimiter)}
        return len(names & set(required)), header.count(delimiter)

    return max(",;\t|", key=key)


def _columns(table: Path, header: Sequence[str], required: Sequence[str]) -> list[str]:
    names = [normalised(name).lower() for name in header]
    for name in required:
        if name not in names:
            raise CollectionError(f"{table} has no column {name!r}; its first line must name its columns")
    stems = [second[1] if (second := _SECOND.fullmatch(name)) else name for name in names]
    if twice := [name for name, times in Counter(stems).items() if name and times > 1]:
        raise CollectionError(f"{table} has more than one column {twice[0]!r}; keep the right one")
    return _without_synonyms(table, names)


def _without_synonyms(table: Path, names: list[str]) -> list[str]:
    plain = [re.sub(r"[\W_]", "", name) for name in names]
    for column, synonyms in _SYNONYMS.items():
        places = [] if column in names else [place for place, name in enumerate(plain) if name in synonyms]
        if len(places) > 1:
            given = " and ".join(repr(names[place]) for place in places)
            raise CollectionError(f"{table} has more than one column of the {column}: {given}; name one {column!r}")
        for place in places:
            names[place] = column
    return names


def _case(folder: Path, row: Mapping[str, str], located: str | None, meanings: Meanings | None) -> Case:
    case = _name(folder, row["path"], located)
    study, patient = _study(row) or case, row.get("patient", "")
    return Case(
        case=case,
        study=study,
        patient=study if is_placeholder(patient) else patient,
        label=label_of(row["label"], meanings) or NORMAL,
        part=row.get("part", "").lower(),
        view=row.get("view", "").lower(),
        split=split_name(row.get("split", "")),
        path=located or os.path.normpath(folder / row["path"]),
        laterality=row.get("laterality", "").lower(),
        finding="; ".join(dict.fromkeys(filter(None, (name.strip() for name in row.get("finding", "").split(";"))))),
        report=row.get("report", ""),
    )


def _study(row: Mapping[str, str]) -> str:
    """The study that a row names, "" for a placeholder; a study may be numbered 0, though."""
    study = row.get("study", "")
    return "" if is_placeholder(study) and study.strip("0.") else study


def _name(folder: Path, given: str, located: str | None) -> str:
    """The name of a row's case: its path, relative to the table's folder if it lies in there."""
    path = os.path.normpath(located or folder / given)
    inside = Path(path).is_relative_to(folder)
    return unicodedata.normalize("NFC", Path(os.path.relpath(path, folder) if inside else given).as_posix())


def _notices(rows: Sequence[Mapping[str, str]]) -> list[Notice]:
    studies = sum(not _study(row) for row in rows)
    patients = [row.get("patient", "") for row in rows]
    nobody = sum(map(is_placeholder, patients))
    counts = {Code.WITHOUT_STUDY: studies, Code.WITHOUT_PATIENT: nobody}
    notices = [Notice(code, detail={"count": count, "total": len(rows)}) for code, count in counts.items() if count]
    return notices + placeholder_notices(patients)
