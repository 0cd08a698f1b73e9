"""One case table of several folders in FracAtlas's layout, with patients that run across them.

    python benchmarks/fracatlas.py FOLDER... --out OUT

Read folder by folder, a patient is a run of consecutive image numbers of one part. A hand and a shoulder of one visit
have consecutive numbers too, so a model trained on the one and judged on the other could have met the patient. Here a
patient is a run of consecutive numbers, whatever the part and the folder. OUT/cases.csv and OUT/fractures.csv refer to
the files where they are.

OUT/split.csv is the same table divided by patient, to train a model on its split `train`: a patient is `valid` where
the first folder, divided by itself, has any radiograph of the patient in its own `valid`. So `evaluate FIRST-FOLDER
--split valid` judges on patients of whom the model saw nothing, neither hand nor shoulder.
"""

import argparse
import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

from retrieval.collection import read_collection
from retrieval.split import split_by_patient

COLUMNS = ("path", "label", "patient", "study", "part", "view", "collection", "split")


def write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(COLUMNS[: len(rows[0])])
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = []
    for folder in options.folders:
        for case in read_collection(folder).cases:
            found.append((int(re.sub(r"\D", "", Path(case.path).name)), folder.name, case))
    found.sort(key=lambda row: row[0])
    patient, previous = "", -1
    rows = []
    for number, folder_name, case in found:
        if number != previous + 1:
            patient = f"run{number:07d}"
        previous = number
        path = os.path.relpath(case.path, options.out)
        study = f"{patient}-{case.study}"
        rows.append([path, case.label_name, patient, study, case.part, case.view, folder_name])
    write(options.out / "cases.csv", rows)
    first = {case.path: case.split for case in split_by_patient(read_collection(options.folders[0]).cases)}
    sides: dict[str, set[str]] = {}
    for row, (*_, case) in zip(rows, found, strict=True):
        sides.setdefault(row[2], set()).add(first.get(case.path, ""))
    write(options.out / "split.csv", [[*row, "valid" if "valid" in sides[row[2]] else "train"] for row in rows])
    with (options.out / "fractures.csv").open("w", encoding="utf-8") as lines:
        for number, folder in enumerate(options.folders):
            header, *rows = (folder / "fractures.csv").read_text(encoding="utf-8").splitlines()
            lines.writelines(f"{row}\n" for row in ([header, *rows] if number == 0 else rows))
    patients = {case.patient for case in read_collection(options.out / "cases.csv").cases}
    print(f"{options.out / 'cases.csv'}: {len(found)} radiographs of {len(patients)} patients")


if __name__ == "__main__":
    main()
