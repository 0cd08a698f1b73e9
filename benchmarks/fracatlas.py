"""One case table of several folders in FracAtlas's layout, with patients that run across them.

    python benchmarks/fracatlas.py FOLDER... --out OUT

Read folder by folder, a patient is a run of consecutive image numbers of one part. A hand and a shoulder of one visit
have consecutive numbers too, so a model trained on the one and judged on the other could have met the patient. Here a
patient is a run of consecutive numbers, whatever the part and the folder. OUT/cases.csv and OUT/fractures.csv refer to
the files where they are.
"""

import argparse
import csv
import os
import re
from pathlib import Path

from retrieval.collection import read_collection


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
    with (options.out / "cases.csv").open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["path", "label", "patient", "study", "part", "view", "collection"])
        for number, folder_name, case in found:
            if number != previous + 1:
                patient = f"run{number:07d}"
            previous = number
            path = os.path.relpath(case.path, options.out)
            study = f"{patient}-{case.study}"
            writer.writerow([path, case.label_name, patient, study, case.part, case.view, folder_name])
    with (options.out / "fractures.csv").open("w", encoding="utf-8") as lines:
        for number, folder in enumerate(options.folders):
            header, *rows = (folder / "fractures.csv").read_text(encoding="utf-8").splitlines()
            lines.writelines(f"{row}\n" for row in ([header, *rows] if number == 0 else rows))
    patients = {case.patient for case in read_collection(options.out / "cases.csv").cases}
    print(f"{options.out / 'cases.csv'}: {len(found)} radiographs of {len(patients)} patients")


if __name__ == "__main__":
    main()
