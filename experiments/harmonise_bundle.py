"""Adds to a bundle what takes back other processing of radiographs, as `mura-search train` does for new ones.

    python -m experiments.harmonise_bundle CASES BUNDLE [--part upper_limb] [--seed 1]

It is learned from the radiographs of CASES, of the part, that trained the bundle. Network, classifier and rules stay.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

from index.atomic import write_whole
from retrieval.datasets.collection import read_collection
from retrieval.encoding.bundle import HARMONISATION, Bundle, digest_number
from retrieval.encoding.encoder import Encoder
from retrieval.images.radiograph import file_digest
from training.export.harmonisation import fit_harmonisation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--part", default="upper_limb")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    bundle = Bundle.open(given.bundle)
    seen = bundle.seen()
    cases = read_collection(given.cases).select(part=given.part).cases
    taught = [case for case in cases if digest_number(file_digest(Path(case.path))) in seen]
    layer = fit_harmonisation(Encoder(bundle), taught, given.seed)
    if layer is None:
        sys.exit("too few of the radiographs that trained the bundle can be read; CASES must list them")
    data = layer.dump()
    (given.bundle / HARMONISATION).write_bytes(data)
    file = given.bundle / "model.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    about["files"][HARMONISATION] = hashlib.sha256(data).hexdigest()
    write_whole(file, f"{json.dumps(about, indent=1)}\n".encode())
    print(f"learned from {len(taught)} radiographs")


if __name__ == "__main__":
    main()
