"""An evaluation as one page of HTML: figures, curves, a map, and the worst errors with their pictures."""

from collections.abc import Mapping

import numpy as np

from retrieval.evaluation.evaluate import Evaluation
from retrieval.evaluation.metrics import METRICS, Confusion, Estimate
from retrieval.evaluation.summary import Figures
from retrieval.reports.evaluation_charts import (
    READERS,
    forest_chart,
    map_chart,
    precision_recall_chart,
    reliability_chart,
    roc_chart,
    sweep_chart,
)
from retrieval.reports.evaluation_gallery import errors_of, gallery, near_duplicates_gallery
from retrieval.reports.page import Html, Section, figure, join, page, paragraph, safe, table, terms, warnings
from retrieval.searcher import Searcher

__all__ = ["TITLES", "report"]

TITLES = {
    "kappa": "Cohen's kappa",
    "accuracy": "accuracy",
    "error": "error",
    "sensitivity": "sensitivity (recall)",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_error": "expected calibration error",
    "map_at_r": "mAP at R",
}


def report(evaluation: Evaluation, searcher: Searcher) -> str:
    """The page. It holds pictures of radiographs, of those asked about and of those in the index."""
    both = 0 < evaluation.abnormal_studies < evaluation.studies
    sections = [
        Section("by-study", "By study", _level(evaluation, "study")),
        *([Section("copies", "Near duplicates", _copies(evaluation, searcher))] if evaluation.copies.pairs else []),
        Section("by-image", "By radiograph", _level(evaluation, "image")),
        Section("by-part", "By body part", _parts(evaluation)),
        Section("curves", "Curves and calibration", _curves(evaluation) if both else _one_label()),
        Section("agreement", "Classifier against vote", _agreement(evaluation)),
        Section("worklist", "As a worklist", _worklist(evaluation)),
        Section("retrieval", "Retrieval", _retrieval(evaluation)),
        Section("sweep", "Number of voting studies", _sweep(evaluation)),
        Section("map", "Map of the embeddings", _map(evaluation, searcher)),
        Section("errors", "Worst errors", _errors(evaluation, searcher)),
        Section("method", "How this was measured", _method(evaluation)),
    ]
    foot = paragraph(
        "Not a medical device: research and teaching only. This page holds radiographs; handle it as you handle those.",
        "quiet",
    )
    return page(f"Evaluation of {evaluation.model.name}", _head(evaluation), sections, foot)


def _head(evaluation: Evaluation) -> Html:
    lede = (
        f"{evaluation.studies:,} studies ({evaluation.abnormal_studies:,} abnormal) with {evaluation.images:,} "
        f"radiographs of {evaluation.patients:,} patients, none of whom is in the index. Intervals are 95 %, from "
        f"{evaluation.rounds:,} resamplings of the patients."
    )
    cards = [
        f"<li>{title} by study, {READERS[name]} <b>{_value(evaluation.study[name][metric])}</b> "
        f"{_range(evaluation.study[name][metric])}</li>"
        for title, metric in (("Kappa", "kappa"), ("AUROC", "auroc"))
        for name in ("classifier", "knn")
    ]
    remarks = [*evaluation.notes]
    if evaluation.copies.studies:
        count = f"{len(evaluation.copies.studies):,} of {evaluation.studies:,}"
        remarks.append(f"Studies with a near duplicate in the index: {count}; figures without them stand below.")
    if evaluation.unfamiliar:
        remarks.append(f"Studies unlike what is indexed: {evaluation.unfamiliar:,} of {evaluation.studies:,}.")
    if evaluation.skipped:
        remarks.append(f"Radiographs that could not be read, listed at the end: {len(evaluation.skipped):,}.")
    return join(
        paragraph(lede, "lede"),
        Html(f'<ul class="cards">{"".join(cards)}</ul>'),
        warnings(remarks),
    )


def _level(evaluation: Evaluation, level: str) -> Html:
    figures: Figures = getattr(evaluation, level)
    what = "studies" if level == "study" else "radiographs"
    rows = [[TITLES[metric], *(_told(of[metric]) for of in figures.values())] for metric in METRICS]
    headings = ["", *(READERS[name] for name in figures)]
    how = "A study's probability is the mean over its radiographs. " if level == "study" else ""
    return join(
        paragraph(f"{how}Called abnormal above the thresholds that the index was built with; nothing is tuned here."),
        table(f"Figures by {'study' if level == 'study' else 'radiograph'}", headings, rows),
        _confusion(evaluation.confusion[level], what),
    )


def _copies(evaluation: Evaluation, searcher: Searcher) -> Html:
    copies, without = evaluation.copies, evaluation.copies.without
    blocks = [
        paragraph(
            "A radiograph that is in the index too, rescaled, cropped, encoded anew or cut short, says nothing about "
            f"new patients. Studies with such a one: {len(copies.studies):,}."
        )
    ]
    if without:
        rows = [
            [
                TITLES[metric],
                *(_told(of[name][metric]) for name in READERS for of in (evaluation.study, without.readers)),
            ]
            for metric in METRICS
        ]
        sides = ("all", f"{without.studies:,} without")
        headings = ["", *(f"{READERS[name]}, {side}" for name in READERS for side in sides)]
        blocks.append(table("Figures by study with and without those", headings, rows))
    return join(*blocks, near_duplicates_gallery(copies, evaluation.readings, searcher))


def _confusion(counts: Mapping[str, Confusion], what: str) -> Html:
    tables = []
    for name, of in counts.items():
        abnormal, normal = of.true_positive + of.false_negative, of.false_positive + of.true_negative
        rows = [
            [f"abnormal ({abnormal:,})", _part(of.true_positive, abnormal), _part(of.false_negative, abnormal)],
            [f"normal ({normal:,})", _part(of.false_positive, normal), _part(of.true_negative, normal)],
        ]
        tables.append(table(f"{what} called by the {READERS[name]}", ["labelled", "abnormal", "normal"], rows))
    return Html(f'<div class="row">{"".join(tables)}</div>')


def _parts(evaluation: Evaluation) -> Html:
    rows = [
        [
            part or "unnamed",
            f"{of.studies:,} ({of.abnormal:,})",
            *(_told(of.readers[name][metric]) for metric in ("kappa", "auroc") for name in ("classifier", "knn")),
        ]
        for part, of in evaluation.parts.items()
    ]
    caption = "Cohen's kappa by study, with 95 % intervals; in brackets how many studies."
    headings = ["", "studies (abnormal)", "kappa, classifier", "kappa, vote", "AUROC, classifier", "AUROC, vote"]
    return join(
        figure(forest_chart(evaluation), caption, "Kappa by part"),
        table("By body part, by study", headings, rows),
    )


def _curves(evaluation: Evaluation) -> Html:
    figures = [
        figure(roc_chart(evaluation), "ROC by study; marks are the stored thresholds, figures the area (AUROC)."),
        figure(precision_recall_chart(evaluation), "Precision and recall by study; figures are average precision."),
        *(
            figure(
                reliability_chart(evaluation, name),
                f"Calibration of the {READERS[name]}. Bars: studies in each tenth. "
                f"Expected calibration error {_value(evaluation.study[name]['calibration_error'])}.",
            )
            for name in ("classifier", "knn")
        ),
    ]
    return Html(f'<div class="pair">{"".join(figures)}</div>')


def _one_label() -> Html:
    return paragraph("Curves need both normal and abnormal studies.")


def _agreement(evaluation: Evaluation) -> Html:
    of, test = evaluation.agreement, evaluation.agreement.mcnemar
    cells = [
        ["vote abnormal", f"{of.both_abnormal.studies:,}", f"{of.knn_abnormal.studies:,}"],
        ["vote normal", f"{of.classifier_abnormal.studies:,}", f"{of.both_normal.studies:,}"],
    ]
    figures = [
        ["agree on", _told(of.share)],
        ["kappa between the two", _told(of.kappa)],
        ["accuracy where they agree", _told(of.accuracy_agreeing)],
        ["accuracy of the classifier where not", _told(of.classifier_accuracy_disagreeing)],
        ["accuracy of the vote where not", _told(of.knn_accuracy_disagreeing)],
    ]
    gains = [[TITLES[metric], _told(estimate, sign="+")] for metric, estimate in evaluation.difference.items()]
    return join(
        Html(
            '<div class="row">'
            + table("Studies by the calls of both", ["", "classifier abnormal", "classifier normal"], cells)
            + table("Agreement by study", ["", "figure"], figures)
            + "</div>"
        ),
        paragraph(
            f"McNemar's exact test: studies that only the vote called right {test.knn_only:,}, only the classifier "
            f"{test.classifier_only:,}; p = {test.p:.3g}. It takes studies as independent; the intervals below do not."
        ),
        table("What the vote gains on the classifier by study, paired", ["", "vote minus classifier"], gains),
    )


def _worklist(evaluation: Evaluation) -> Html:
    rows = [
        [READERS[name], *(_told(of) for of in (told.place, told.area, told.normalised)), _number(told.ideal)]
        for name, told in evaluation.worklist.items()
    ]
    return join(
        paragraph(
            "The studies read in the order of a reader's probability. Place: where in the list an abnormal study is "
            "reached on average, 0 the first and 1 the last; as studies arrive it is 0.5. Area: 1 minus the place. "
            "Normalised: 0 as they arrive, 1 where every abnormal study comes first (the ideal area)."
        ),
        table("Order of reading, by study", ["ranked by", "place", "area", "normalised", "ideal area"], rows),
    )


def _retrieval(evaluation: Evaluation) -> Html:
    rows = [[_title(name), _told(of), _number(of.chance)] for name, of in evaluation.retrieval.items()]
    blocks = [
        paragraph(
            "Relevant is a study of the index with the label of the query. Precision at k: their share among the k "
            "nearest; recall at k: how often any is; mAP at R: precision over as many places as there are relevant "
            "studies."
        ),
        table("Retrieval by study", ["", "measured", "by chance"], rows),
    ]
    if evaluation.lesions:
        lesions = [
            [
                kind,
                f"{of.studies:,}",
                *(_told(of.sensitivity[name]) for name in ("classifier", "knn")),
                _told(of.retrieval["precision_at_5"]),
                _told(of.retrieval["map_at_r"]),
            ]
            for kind, of in evaluation.lesions.items()
        ]
        headings = ["", "studies", "sensitivity, classifier", "sensitivity, vote", "precision at 5", "mAP at R"]
        blocks.append(table("By kind of lesion, abnormal studies", headings, lesions))
    return join(*blocks)


def _sweep(evaluation: Evaluation) -> Html:
    rules = evaluation.rules
    caption = (
        f"The vote had other numbers of studies voted, at the stored temperature and threshold. Shown, never used: "
        f"the k in use, {rules.k}, was learned on other studies (see the last section)."
    )
    return figure(sweep_chart(evaluation.sweep), caption, "Sweep of k")


def _map(evaluation: Evaluation, searcher: Searcher) -> Html:
    labels = np.array([case.label for case in searcher.index.cases()], np.int64)
    chart, shares = map_chart(evaluation, searcher.index.embeddings(), labels)
    caption = (
        f"Each mark is a radiograph; small and faint ones are in the index. The two directions along which the index's "
        f"embeddings differ most (principal components) explain {sum(shares):.0%} of their variance; what is near here "
        "may be far in the other directions."
    )
    return figure(chart, caption, "Map")


def _errors(evaluation: Evaluation, searcher: Searcher) -> Html:
    wrong = errors_of(evaluation.readings)
    if not wrong:
        return paragraph("Classifier and vote called every study right.")
    return gallery(wrong, searcher)


def _method(evaluation: Evaluation) -> Html:
    rules, index = evaluation.rules, evaluation.index
    middle = (rules.classifier_threshold + rules.vote_threshold) / 2
    pairs = [
        ("Protocol", "MURA's: a study's probability is the mean over its radiographs; thresholds as stored."),
        (
            "Thresholds",
            f"classifier {rules.classifier_threshold:.3f}, vote {rules.vote_threshold:.3f}, mean of both {middle:.3f}",
        ),
        ("Vote", f"the {rules.k} nearest studies of each radiograph, softmax at temperature {rules.temperature:g}"),
        ("Rules", f"{rules.source}."),
        ("Model", f"{evaluation.model.name} ({evaluation.model.sha256})"),
        ("Index", f"{index.path}: {index.cases:,} radiographs of {index.studies:,} studies"),
        (
            "Intervals",
            f"2.5 and 97.5 percentile of {evaluation.rounds:,} resamplings of the patients, seed {evaluation.seed}",
        ),
        ("Time", f"{evaluation.seconds:.1f} s"),
    ]
    blocks = [terms(pairs)]
    if evaluation.skipped:
        blocks.append(
            table("Left out, since they could not be read", ["radiograph", "reason"], evaluation.skipped, "prose")
        )
    return join(*blocks)


def _range(estimate: Estimate) -> Html:
    return safe(estimate.reason if estimate.low is None else f"{estimate.low:.3f} to {estimate.high:.3f}")


def _told(estimate: Estimate, sign: str = "") -> Html:
    """A cell: the value, and smaller its interval, or why there is none."""
    if estimate.value is None:
        return Html(f"<small>{safe(estimate.reason)}</small>")
    value = f"{estimate.value:{sign}.3f}"
    if estimate.low is None or estimate.high is None:
        return safe(value)
    return Html(f"{value} <small>{estimate.low:{sign}.3f} to {estimate.high:{sign}.3f}</small>")


def _value(estimate: Estimate) -> str:
    return _number(estimate.value) or "undefined"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _part(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.0%})" if of else f"{count:,}"


def _title(name: str) -> str:
    return TITLES.get(name, name.replace("_", " "))
