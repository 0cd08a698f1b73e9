"""A trained index against the same network's untrained ImageNet features, on patients that neither has seen.

    python benchmarks/untrained.py DATA --index INDEX

INDEX holds the train split of DATA; the valid split is judged. The untrained side uses all channels of the network's
last feature map, mean-pooled: the vote by their cosine, the classifier by a logistic regression. Since nothing of it
was trained before, it may use every patient of the train split for its regression and for its decision rules (leaving
one patient out for the vote, out of fold for the regression), more than the trained one could. All four readers are
resampled together, so their differences are paired.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from index.case import Case
from retrieval.collection import read_collection
from retrieval.encoder import Encoded
from retrieval.metrics import Reader, bootstrap
from retrieval.preprocess import normalise, preprocess
from retrieval.radiograph import read_radiograph
from retrieval.rules import learn_rules
from retrieval.searcher import Searcher
from retrieval.vote import vote_weights
from training.backbone import load_backbone

Floats = NDArray[np.float32]


def pooled_features(cases: Sequence[Case], searcher: Searcher) -> tuple[list[Case], Floats, Encoded]:
    """Unit-length mean-pooled features (N, C) of the untrained network, and what the trained one makes of the same."""
    network, _ = load_backbone(searcher.encoder.bundle.backbone, "imagenet")
    how = searcher.encoder.bundle.preprocessing
    read, rows, trained = [], [], []
    for case in cases:
        radiograph = read_radiograph(Path(case.path))
        read.append(replace(case, digest=radiograph.digest))
        with torch.inference_mode():
            maps = network.eval()(torch.from_numpy(normalise([preprocess(radiograph.pixels, how)], how)))
        rows.append(maps.mean((2, 3)).numpy())
        trained.append(searcher.encoder.encode([radiograph.pixels]))
    features = np.concatenate(rows)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    embeddings = np.concatenate([one.embeddings for one in trained])
    return read, features, Encoded(embeddings, np.concatenate([one.logits for one in trained]))


def votes(asked: Floats, features: Floats, cases: Sequence[Case], k: int, temperature: float) -> NDArray[np.float64]:
    """The vote (V,) of each asked row's k nearest studies."""
    names, first, study_of = np.unique([case.study for case in cases], return_index=True, return_inverse=True)
    labels = np.array([cases[row].label for row in first])
    similarities = asked @ features.T
    by_study = np.stack([similarities[:, study_of == number].max(1) for number in range(len(names))], 1)
    nearest = np.argsort(-by_study, 1)[:, :k]
    weights = vote_weights(np.take_along_axis(by_study, nearest, 1), temperature)
    shares: NDArray[np.float64] = (weights * labels[nearest]).sum(1)
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    options = parser.parse_args()
    with Searcher.open(options.index) as searcher:
        known, features, _ = pooled_features(read_collection(options.data, split="train").cases, searcher)
        new, asked, trained = pooled_features(read_collection(options.data, split="valid").cases, searcher)
        assert not {case.patient for case in known} & {case.patient for case in new}

        labels = np.array([case.label for case in known])
        folds = list(GroupKFold(5).split(features, labels, [case.patient for case in known]))
        # The grid search knows the folds, so its choice of C is a little too good for these logits: to its advantage.
        chosen = make_pipeline(
            StandardScaler(), LogisticRegressionCV(Cs=np.logspace(-6, 0, 7), cv=folds, scoring="roc_auc", max_iter=2000)
        ).fit(features, labels)
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=chosen[-1].C_[0], max_iter=2000))
        logits = cross_val_predict(regression, features, labels, cv=folds, method="decision_function")
        rules = learn_rules(known, features, logits.astype(np.float32))
        regression.fit(features, labels)
        print(f"untrained, rules {rules}\ntrained, rules {searcher.rules}")

        studies = sorted({case.study for case in new})
        study_of = np.array([studies.index(case.study) for case in new])
        per_image = {
            "trained classifier": (searcher.rules.probabilities(trained.logits), searcher.rules.classifier_threshold),
            "untrained classifier": (
                rules.probabilities(regression.decision_function(asked)), rules.classifier_threshold
            ),
            "trained vote": (
                np.concatenate([
                    searcher.judge(Encoded(trained.embeddings[i : i + 1], trained.logits[i : i + 1])).vote.views
                    for i in range(len(new))
                ]),
                searcher.rules.vote_threshold,
            ),
            "untrained vote": (votes(asked, features, known, rules.k, rules.temperature), rules.vote_threshold),
        }  # fmt: skip

    def by_study(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(study_of, values) / np.bincount(study_of)

    first = [next(case for case in new if case.study == study) for study in studies]
    judged = {name: (by_study(np.asarray(values)), threshold) for name, (values, threshold) in per_image.items()}
    readers = {name: Reader(values, values > threshold) for name, (values, threshold) in judged.items()}
    result = bootstrap(np.array([c.label for c in first]), [c.patient for c in first], readers)
    abnormal = sum(case.label for case in first)
    print(f"\n{len(studies)} studies of {result.patients} new patients, {abnormal} abnormal; 95 % intervals")
    for name, figures in result.estimates().items():
        shown = ", ".join(f"{m} {e.value:.3f} ({e.low:.3f} to {e.high:.3f})" for m, e in figures.items())
        print(f"{name}: {shown}")
    for kind in ("classifier", "vote"):
        for metric in ("kappa", "auroc"):
            gain = result.difference(f"trained {kind}", f"untrained {kind}", metric)
            print(f"{kind}, {metric}: trained - untrained = {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")


if __name__ == "__main__":
    main()
