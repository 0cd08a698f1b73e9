"""One case table of radiographs of FracAtlas, with patients that run across its parts.

    python -m experiments.fracatlas_table FRACATLAS --out OUT [--model MODEL] [--copies FILE | --unlinked]

FRACATLAS is the data set as it is published (dataset.csv, images/, Annotations/). Of its 4,083 radiographs the table
takes those that experiments/radiographs.csv lists, all of one part, small and readable: 924 of the hand up to the elbow
(fracatlas-upper-limb), and 1,867 of legs, hips and shoulders (fracatlas-other-parts). FRACATLAS may also be several
folders in this layout, or folders with a case table and a fractures.csv; then every radiograph in them is taken.

A hand and a shoulder of one visit have consecutive image numbers. So a patient is a run of consecutive numbers, across
parts and folders. Runs that share a radiograph are one patient, so that no fold and no split separates copies. Copies
are files with the same bytes, and near duplicates as `mura-search audit --deep` finds them with MODEL (the bundled
one). A study keeps the name of its own run. OUT/copies.csv lists the pairs. With --copies FILE the pairs are read from
such a list, so the table does not depend on MODEL. With --unlinked nobody looks for pairs: the runs in
docs/fracatlas.md were made with that table.

OUT/cases.csv and OUT/fractures.csv refer to the image files by path. OUT/FOLDER.csv has the radiographs of one folder
(of FracAtlas: of one of the two names above) with the same patients. So `--split` divides all these tables alike, and a
model that was trained on the split `train` of cases.csv may be evaluated on the split `valid` of any of them. FracAtlas
files two radiographs of a knee under "hand". The table files them under "leg", except with --unlinked.
"""

import argparse
import csv
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from index.case import Case
from retrieval.audit.deep_audit import encode_collection
from retrieval.audit.near_duplicates import joined_patients, near_duplicates, similarity_limit
from retrieval.datasets.collection import Collection, read_collection
from retrieval.encoding.bundle import BUNDLED
from retrieval.encoding.encoder import Encoder
from training.data.lesion_boxes import Box, boxes_of

COPIES = ("one", "two", "match", "mirrored")  # file names; `match` is empty where the bytes are the same
MISFILED = {"IMG0003768.jpg": "leg", "IMG0003769.jpg": "leg"}  # the part that each shows
LIST = Path(__file__).resolve().with_name("radiographs.csv")
COLUMNS = ("path", "label", "patient", "study", "part", "view", "collection")


Copy = tuple[str, str, float | None, bool]


def find_near_duplicates(cases: Sequence[Case], encoder: Encoder) -> list[Copy]:
    """Pairs of cases, by name, that are one radiograph: (one, two, correlation of the details, mirrored)."""
    encoding = encode_collection(Collection(Path(), "csv", tuple(cases)), encoder)
    for case, reason in encoding.unreadable:
        print(f"left out: {case}: {reason}")
    cases = encoding.cases
    limit = similarity_limit(cases, encoding.embeddings).limit
    pairs = near_duplicates(cases, encoding.embeddings, encoding.thumbnails, limit)
    first: dict[str, str] = {}
    same = [(first[c.digest], c.case) for c in cases if first.setdefault(c.digest, c.case) != c.case]
    return [*((*names, None, False) for names in same), *((*pair.cases, pair.match, pair.mirrored) for pair in pairs)]


def read_copies(file: Path) -> list[Copy]:
    """The pairs of a table that `write_copies` wrote, by the files' names."""
    with file.open(newline="", encoding="utf-8") as lines:
        return [
            (row["one"], row["two"], float(row["match"]) if row.get("match") else None, row.get("mirrored") == "yes")
            for row in csv.DictReader(lines)
        ]


def write_copies(copies: Sequence[Copy], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COPIES)
        for first, second, match, mirrored in copies:
            writer.writerow([first, second, "" if match is None else f"{match:.4f}", "yes" if mirrored else "no"])


def read_radiographs(folder: Path) -> list[tuple[str, Case, list[Box]]]:
    """The radiographs of a folder, each with the name of its collection and its boxes."""
    collection = read_collection(folder)
    listed = list(zip(collection.cases, boxes_of(collection), strict=True))
    if not (folder / "Annotations").is_dir():
        return [(folder.name, case, boxes) for case, boxes in listed]
    with LIST.open(newline="", encoding="utf-8") as lines:
        names = {row["image_id"]: row["collection"] for row in csv.DictReader(lines)}
    return [
        (names[name], replace(case, part="upper_limb" if case.part == "hand" else case.part), boxes)
        for case, boxes in listed
        if (name := Path(case.path).name) in names
    ]


def read_runs(radiographs: Sequence[tuple[str, Case, list[Box]]]) -> list[tuple[str, Case]]:
    """Each radiograph with its collection's name, in the order of their numbers; a patient is a run of these."""
    numbered = [(int(re.sub(r"\D", "", Path(case.path).name)), name, case) for name, case, _ in radiographs]
    patient, previous = "", -1
    runs = []
    for number, folder_name, case in sorted(numbered, key=lambda row: row[0]):
        if number != previous + 1:
            patient = f"run{number:07d}"
        previous = number
        name = Path(case.path).name
        runs.append((folder_name, replace(case, case=name, patient=patient, study=f"{patient}-{case.study}")))
    return runs


def correct_parts(runs: Sequence[tuple[str, Case]]) -> list[tuple[str, Case]]:
    """Give misfiled radiographs the part that they show, and move them to a folder that has this part, if any."""
    homes = {case.part: folder for folder, case in reversed(runs)}
    return [
        (homes.get(part, folder), replace(case, part=part)) if (part := MISFILED.get(case.case)) else (folder, case)
        for folder, case in runs
    ]


def linked_runs(cases: Sequence[Case], owners: Sequence[str], copies: Sequence[Copy]) -> str:
    """How many runs were linked by how many pairs."""
    known = {case.case: case for case in cases}
    across = [
        (known[first], known[second]) for first, second, *_ in copies if known[first].patient != known[second].patient
    ]
    runs = {case.patient for pair in across for case in pair}
    labels = sum(first.label != second.label for first, second in across)
    joined = len({owner for case, owner in zip(cases, owners, strict=True) if case.patient in runs})
    return (
        f"{len(copies)} pairs of copies, {len(across)} of them of two runs ({labels} with both labels), "
        f"which link {len(runs)} runs to {joined} patients"
    )


def write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def write_boxes(radiographs: Sequence[tuple[str, Case, list[Box]]], path: Path) -> None:
    """Write the boxes as shares of the picture: its width and height are given as 1."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("image_id", "x", "y", "width", "height", "image_width", "image_height"))
        for _, case, boxes in radiographs:
            writer.writerows([Path(case.path).name, *box, 1, 1] for box in boxes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FRACATLAS")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=BUNDLED, help="the bundle whose embeddings help to find copies")
    linked = parser.add_mutually_exclusive_group()
    linked.add_argument("--copies", type=Path, help="a table of pairs of copies; none are searched for")
    linked.add_argument("--unlinked", action="store_true", help="do not look for copies")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    radiographs = [radiograph for folder in options.folders for radiograph in read_radiographs(folder)]
    runs = read_runs(radiographs)
    if not options.unlinked:
        runs = correct_parts(runs)
    cases = [case for _, case in runs]
    copies: list[Copy] = []
    if options.copies:
        names = {case.case for case in cases}
        copies = [copy for copy in read_copies(options.copies) if names.issuperset(copy[:2])]
    elif not options.unlinked:
        copies = find_near_duplicates(cases, Encoder.open(options.model))
    owners = joined_patients(cases, [(first, second) for first, second, *_ in copies])
    rows = [
        [os.path.relpath(case.path, options.out), case.label_name, owner, case.study, case.part, case.view, folder]
        for (folder, case), owner in zip(runs, owners, strict=True)
    ]
    write(options.out / "cases.csv", rows)
    for name in sorted({row[-1] for row in rows}):
        write(options.out / f"{name}.csv", [row for row in rows if row[-1] == name])
    write_boxes(radiographs, options.out / "fractures.csv")
    print(f"{options.out / 'cases.csv'}: {len(cases)} radiographs of {len(set(owners))} patients")
    if not options.unlinked:
        write_copies(copies, options.out / "copies.csv")
        print(linked_runs(cases, owners, copies))


if __name__ == "__main__":
    main()
