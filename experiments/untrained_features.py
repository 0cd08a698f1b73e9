"""How good is the same network untrained? ImageNet features, evaluated as an index or as the runs of an experiment.

    python -m experiments.untrained_features DATA --index INDEX
    python -m experiments.untrained_features DATA --folds 5 [--part PART] [--run FOLDER] [--size N] [--predictions FILE]

The first evaluates the split `valid` of DATA; INDEX was built of its split `train`. The second evaluates DATA in the
folds of `mura-search experiment`; FOLDER is a finished run (OUT/runs/NAME). Printed is what the trained network gains,
paired. FILE gets the predictions, in the columns of a run's calls.csv.

Network and preprocessing are those of a model bundle (by default the bundled one), the weights those of ImageNet. All
channels of the last feature map are mean-pooled. The vote goes by their cosine; the classifier is a logistic
regression. Since nothing was trained before, every training patient may serve for the regression and for the decision
rules (leaving one patient out for the vote, out of fold for the regression). A trained network has fewer patients left.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from index.case import Case
from retrieval.datasets.collection import read_collection
from retrieval.datasets.splits import patient_folds, split_by_patient
from retrieval.decision.fit_rules import learn_rules
from retrieval.decision.teachers import LabelledStudies
from retrieval.decision.vote import vote_weights
from retrieval.encoding.bundle import BUNDLED, Bundle
from retrieval.evaluation.paired_comparison import (
    Prediction,
    compare,
    predictions_of,
    read_predictions,
    write_predictions,
)
from retrieval.evaluation.predictions import StudyPrediction, predict_studies
from retrieval.evaluation.retrieval_metrics import retrieved
from retrieval.evaluation.summary import summarise
from retrieval.images.preprocessing import normalise, preprocess
from retrieval.images.radiograph import read_radiograph
from retrieval.searcher import Searcher
from retrieval.wording import estimate_text
from training.model.backbone import load_backbone

Floats = NDArray[np.float32]


def pooled_features(cases: Sequence[Case], bundle: Bundle) -> tuple[list[Case], Floats]:
    """Unit-length mean-pooled features (N, C) of the untrained network."""
    network, _ = load_backbone(bundle.backbone, "imagenet")
    preprocessing = bundle.preprocessing
    read, rows = [], []
    for case in cases:
        radiograph = read_radiograph(Path(case.path))
        read.append(replace(case, digest=radiograph.digest))
        with torch.inference_mode():
            maps = network.eval()(
                torch.from_numpy(normalise([preprocess(radiograph.pixels, preprocessing)], preprocessing))
            )
        rows.append(maps.mean((2, 3)).numpy())
    features = np.concatenate(rows)
    return read, np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), np.float32)


def predicted(cases: Sequence[Case], features: Floats, valid: NDArray[np.bool_]) -> list[StudyPrediction]:
    """Predict the studies that `valid` (N,) marks, from the others."""
    known, new = ([case for case, v in zip(cases, valid, strict=True) if v == side] for side in (False, True))
    assert not {case.patient for case in known} & {case.patient for case in new}
    learned, asked = features[~valid], features[valid]
    labels = np.array([case.label for case in known])
    folds = list(GroupKFold(5).split(learned, labels, [case.patient for case in known]))
    # The grid search knows the folds, so C fits these logits a little too well: an advantage for the untrained network.
    search = LogisticRegressionCV(
        Cs=np.logspace(-6, 0, 7),
        cv=folds,
        scoring="roc_auc",
        max_iter=2000,
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )
    chosen = make_pipeline(StandardScaler(), search).fit(learned, labels)[-1].C_
    regression = make_pipeline(StandardScaler(), LogisticRegression(C=chosen, max_iter=2000))
    logits = cross_val_predict(regression, learned, labels, cv=folds, method="decision_function")
    rules = learn_rules(LabelledStudies(known, learned, logits.astype(np.float32)))
    probabilities = rules.probabilities(regression.fit(learned, labels).decision_function(asked))

    names, first, study_of = np.unique([case.study for case in known], return_index=True, return_inverse=True)
    study_labels = labels[first]
    similarities = asked @ learned.T
    by_study = np.stack([similarities[:, study_of == number].max(1) for number in range(len(names))], 1)
    nearest = np.argsort(-by_study, 1)[:, : rules.k]
    weights = vote_weights(np.take_along_axis(by_study, nearest, 1), rules.temperature)
    votes = (weights * study_labels[nearest]).sum(1)

    readings = []
    for study in dict.fromkeys(case.study for case in new):
        rows = [row for row, case in enumerate(new) if case.study == study]
        shown = study_labels[np.argsort(-by_study[rows].max(0), kind="stable")] == new[rows[0]].label
        readings.append(
            StudyPrediction(
                cases=tuple(new[row] for row in rows),
                classifier=tuple(probabilities[rows].tolist()),
                vote=tuple(votes[rows].tolist()),
                classifier_threshold=rules.classifier_threshold,
                vote_threshold=rules.vote_threshold,
                retrieved=retrieved(shown),
                embeddings=asked[rows],
            )
        )
    return readings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--part")
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--size", type=int, help="pixels a side instead of the bundle's")
    parser.add_argument("--predictions", type=Path)
    options = parser.parse_args()
    collection = read_collection(options.data)
    everything = collection.cases
    if not any(case.split for case in everything):
        everything = tuple(split_by_patient(everything))  # as `evaluate --split valid` divides them
    fold_of = np.array(
        patient_folds(everything, options.folds)  # of all parts, as the experiments have them
        if options.folds
        else [0 if case.split == "valid" else 1 for case in everything]
    )
    kept = np.array([options.part in (None, case.part) for case in everything])
    bundle = Bundle.open(options.model)
    if options.size:
        bundle = replace(bundle, preprocessing=replace(bundle.preprocessing, size=options.size))
    cases, features = pooled_features([case for case, keep in zip(everything, kept, strict=True) if keep], bundle)
    fold_of = fold_of[kept]
    readings = []
    for fold in range(options.folds or 1):
        fold_readings = predicted(cases, features, fold_of == fold)
        of_fold = summarise(fold_readings, rounds=2).study
        classifier, vote = (of_fold[reader]["auroc"].value for reader in ("classifier", "knn"))
        print(
            f"fold {fold + 1}: {len(fold_readings)} studies, AUROC of the classifier {classifier:.3f}, "
            f"of the vote {vote:.3f}"
        )
        readings += fold_readings
    if options.predictions:
        write_predictions(predictions_of(readings), options.predictions)
    result = summarise(readings)
    print(f"{result.studies} studies of {result.patients} patients, {result.abnormal_studies} abnormal; 95 % intervals")
    for level, figures in (("study", result.study), ("image", result.image)):
        for reader, estimates in figures.items():
            print(f"{level}, {reader}: " + ", ".join(f"{metric} {estimate_text(e)}" for metric, e in estimates.items()))
    print(", ".join(f"{name} {estimate_text(estimate)}" for name, estimate in result.retrieval.items()))
    trained: dict[str, Sequence[Prediction]] = {}
    if options.run:
        trained[options.run.name] = read_predictions(options.run / "calls.csv")
    if options.index:
        with Searcher.open(options.index) as searcher:
            trained[options.index.name] = predictions_of(predict_studies(searcher, collection.select(split="valid"))[0])
    for name, calls in trained.items():
        for figure, estimate in compare(calls, predictions_of(readings)).items():
            print(f"{name} - untrained, {figure}: {estimate_text(estimate)}")
        own_of = {call.study: call.classifier for call in predictions_of(readings)}
        means = [call.classifier + own_of[call.study] for call in calls]
        print(f"{name} and untrained, AUROC of the mean of both: {roc_auc_score([c.label for c in calls], means):.3f}")


if __name__ == "__main__":
    main()
