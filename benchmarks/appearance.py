"""Learn a bundle's appearance layers anew, as `mura-search train` does at its end, and leave the rest of it as it is.

    python benchmarks/appearance.py MODEL DATA... [--split train]

For a bundle from before there were such layers. DATA is what it was trained on; radiographs that it was not trained on
are only used to learn the limits. MODEL gets appearance.safetensors, and in model.json its checksum and the decision
rules of familiarity; all other rules have to come out as they are.
"""

import argparse
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from retrieval.bundle import APPEARANCE, Bundle, digest_number
from retrieval.collection import read_collection
from retrieval.encoder import Encoder
from retrieval.rules import Rules, learn_rules
from training.appearance import fit_appearance, show
from training.data import load_training_set
from training.finish import encode

FAMILIARITY = ("familiarity_limit", "parts", "appearance_limits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the layers that are there, and learn the limits only")
    options = parser.parse_args()
    encoder = Encoder.open(options.model)
    bundle = encoder.bundle
    collections = [read_collection(folder, split=options.split) for folder in options.data]
    data, left_out = load_training_set(collections, bundle.preprocessing)
    seen = bundle.seen()
    known = np.array([digest_number(case.digest) in seen for case in data.cases])
    print(f"{len(data.cases)} radiographs, {known.sum()} of them trained on, {len(left_out)} unreadable")
    appearance = encoder.appearance if options.keep else None
    if appearance is None:
        shown = show(encoder, data.rows(np.flatnonzero(known)), options.seed)
        appearance = fit_appearance(encoder.head.embed(shown.features), shown.parts)
    embeddings, logits = encode(encoder, data)
    found = learn_rules(data.cases, embeddings, logits, trained_on=seen, appearance=appearance)
    former = Rules.from_dict(bundle.rules or {})
    rules = replace(former, **{name: getattr(found, name) for name in FAMILIARITY})
    for name, value in asdict(found).items():
        if value != asdict(rules)[name]:
            print(f"{name} would be {value}, and stays {asdict(rules)[name]}")
    (options.model / APPEARANCE).write_bytes(appearance.dump())
    about = json.loads((options.model / "model.json").read_text(encoding="utf-8"))
    about["rules"] = rules.to_dict()
    about["files"][APPEARANCE] = hashlib.sha256(appearance.dump()).hexdigest()
    (options.model / "model.json").write_text(f"{json.dumps(about, indent=1)}\n", encoding="utf-8")
    print(f"{Bundle.open(options.model).sha256}: {', '.join(appearance.parts)}; {rules}")


if __name__ == "__main__":
    main()
