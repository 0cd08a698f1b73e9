"""The case table: one CSV row a radiograph. `read_table` also reads the other layouts' CSV files."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from index.case import ABNORMAL, NORMAL, Case
from retrieval.errors import CollectionError
from retrieval.notices import Code, Notice

__all__ = ["LABELS", "read_casetable", "read_lesions", "read_table", "some"]

LABELS = {
    "normal": NORMAL,
    "abnormal": ABNORMAL,
    "0": NORMAL,
    "1": ABNORMAL,
    "positive": ABNORMAL,
    "negative": NORMAL,
}


def read_casetable(table: Path) -> tuple[list[Case], list[Notice]]:
    """The cases of a table in its order, and notices.

    The columns `path` (absolute, or relative to the table's folder) and `label` (normal, negative or 0; abnormal,
    positive or 1; in any case) are required. `patient`, `study`, `part`, `view`, `laterality` and `split` are optional,
    as is `lesion` (see `read_lesions`). Other columns are not read. A row without a study is a study of its own, and a
    study without a patient has a patient of its own.

    Raises CollectionError for a missing column, an unknown label, a path that is listed twice, paths that do not exist
    (counted, five named), a row longer than its header, and a file that is not UTF-8 text.
    """
    rows = read_table(table, ("path", "label"))
    bad = [f"line {line} has {row['label']!r}" for line, row in rows if row["label"].lower() not in LABELS]
    if bad:
        raise CollectionError(f"{table} has labels other than {', '.join(LABELS)}: {some(bad)}")
    blank = [str(line) for line, row in rows if not row["path"]]
    if blank:
        raise CollectionError(f"{table} has rows without a path: line {some(blank)}")

    cases = [_case(table.parent, row) for _, row in rows]
    twice = [name for name, times in Counter(case.case for case in cases).items() if times > 1]
    if twice:
        raise CollectionError(f"{table} lists {len(twice)} radiographs more than once: {some(twice)}")
    missing = [row["path"] for (_, row), case in zip(rows, cases, strict=True) if not os.path.exists(case.path)]  # noqa: PTH110
    if missing:
        raise CollectionError(
            f"{table} names {len(missing)} of {len(rows)} radiographs that do not exist: {some(missing)}"
            "; paths are relative to the table's folder"
        )
    return cases, _notices([row for _, row in rows])


def read_lesions(table: Path) -> dict[str, str]:
    """Each case's kind of lesion in lower case, from the column `lesion`. Cases without one are left out.

    Raises CollectionError as `read_table` does.
    """
    rows = read_table(table, ("path",))
    return {_name(table.parent, row): row["lesion"].lower() for _, row in rows if row.get("lesion") and row["path"]}


def read_table(table: Path, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each with its line number. Column names are in lower case, values are stripped.

    The separator is a comma, or a semicolon or tab where the header has more of those. Raises CollectionError where the
    file is not UTF-8 text, lacks a required column, or has a row longer than the header.
    """
    rows = []
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=header.count), strict=True)
            names = [name.strip().lower() for name in next(reader, [])]
            for name in required:
                if name not in names:
                    raise CollectionError(f"{table} has no column {name!r}; its first line must name its columns")
            for values in reader:
                if len(values) > len(names):
                    raise CollectionError(
                        f"{table} line {reader.line_num} has {len(values)} values for {len(names)} columns; "
                        "put quotes around values with a comma"
                    )
                if any(values):
                    padded = values + [""] * (len(names) - len(values))
                    row = {name: value.strip() for name, value in zip(names, padded, strict=True)}
                    rows.append((reader.line_num, row))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CollectionError(f"{table} is not a CSV table in UTF-8: {error}; export it again") from error
    return rows


def some(names: Sequence[str]) -> str:
    """The first five names, and the number of the others."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _case(folder: Path, row: dict[str, str]) -> Case:
    case = _name(folder, row)
    study = row.get("study") or case
    return Case(
        case=case,
        study=study,
        patient=row.get("patient") or study,
        label=LABELS[row["label"].lower()],
        part=row.get("part", "").lower(),
        view=row.get("view", "").lower(),
        split=row.get("split", "").lower(),
        path=os.path.normpath(folder / row["path"]),
        laterality=row.get("laterality", "").lower(),
    )


def _name(folder: Path, row: dict[str, str]) -> str:
    """The name of a row's case: its path, relative to the table's folder if it lies in there."""
    path = os.path.normpath(folder / row["path"])
    return Path(os.path.relpath(path, folder) if Path(path).is_relative_to(folder) else row["path"]).as_posix()


def _notices(rows: Sequence[dict[str, str]]) -> list[Notice]:
    without = {Code.ROWS_WITHOUT_STUDY: "study", Code.WITHOUT_PATIENT: "patient"}
    counts = {code: sum(not row.get(column) for row in rows) for code, column in without.items()}
    return [Notice(code, detail={"count": count, "total": len(rows)}) for code, count in counts.items() if count]
