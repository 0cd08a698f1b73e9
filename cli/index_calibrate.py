"""`mura-search index calibrate`: learn an index's decision rules anew from labelled studies of the own hospital."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from cli.console import bare_table, note, print_json, print_result, progress, standard_output
from cli.options.common import AsJson, IndexFolder, Workers, index_path
from cli.options.data import CollectionOptions, KeepBlank
from index.lock import require_locks
from retrieval.wording import trial_sentence

if TYPE_CHECKING:
    from retrieval.decision.local_classifier import ClassifierTrial
    from retrieval.indexing.calibrate import CalibrationReport

__all__ = ["calibrate", "print_trial"]


def calibrate(
    options: CollectionOptions,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="Labelled studies of your own hospital: a folder or a case table, as for index build.",
            show_default=False,
        ),
    ] = None,
    undo: Annotated[
        bool, Option("--undo", help="Bring back the rules that were in use before the last calibration.")
    ] = False,
    index: IndexFolder = None,
    keep_blank: KeepBlank = False,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Learn the decision rules of an index anew from labelled studies of your own hospital.

    These are thresholds, calibration, vote, limits of familiarity and, where it beats the model's beyond chance, a
    classifier. It needs normal and abnormal studies of at least 20 patients whom the index does not hold; 100 studies
    or more are better. No radiograph is added to the index. If this is interrupted, the same command continues.
    """
    from retrieval.indexing.calibrate import calibrate_index, undo_calibration

    if (data is None) != undo:
        raise typer.BadParameter("name the labelled studies, DATA, or --undo, and not both")
    path = index_path(index)
    if data is None:
        rules = undo_calibration(path)
        text = f"The former rules are in use again: {rules.source}."
        print_result(as_json, "mura-search/calibration-undone/1", {"path": str(path), "rules": rules.to_dict()}, text)
        return
    require_locks()
    collection = options.read_noted(data)
    with progress("encoding") as show:
        report = calibrate_index(collection, path, keep_blank=keep_blank, workers=workers, progress=show)
    if as_json:
        print_json(report.to_dict())
    else:
        print_calibration(report, index)


def print_calibration(report: "CalibrationReport", index: Path | None) -> None:
    for case, reason in report.quarantined:
        note(f"not used: {case}: {reason}")
    print(
        f"Calibrated on {report.studies:,} studies ({report.abnormal:,} abnormal) of {report.patients:,} patients, in "
        f"{report.seconds:.1f} s; {report.learning:.1f} s without encoding."
    )
    if report.unfamiliar:
        print(f"By the former limits {report.unfamiliar:,} of them were unlike the index.")
    table = bare_table("", "before", "now")
    former, rules = report.former, report.rules
    for name, before, now in (
        ("classifier", former.classifier, rules.classifier),
        ("threshold, classifier", f"{former.classifier_threshold:.3f}", f"{rules.classifier_threshold:.3f}"),
        ("threshold, vote", f"{former.vote_threshold:.3f}", f"{rules.vote_threshold:.3f}"),
        ("studies that vote", former.k, rules.k),
        ("least similarity", f"{former.familiarity_limit:.3f}", f"{rules.familiarity_limit:.3f}"),
    ):
        table.add_row(name, str(before), str(now))
    standard_output().print(table)
    print_trial(report.trial)
    option = f" --index {shlex.quote(report.path)}" if index else ""
    print(f"To go back:  mura-search index calibrate --undo{option}")


def print_trial(trial: "ClassifierTrial | None") -> None:
    """The model's classifier beside a local one, and which of them is in use."""
    if trial is not None:
        table = bare_table("on patients who did not teach it", "AUROC", "kappa", "log loss")
        for name, figures in (("the model's classifier", trial.model), ("a local classifier", trial.local)):
            table.add_row(name, f"{figures.auroc:.3f}", f"{figures.kappa:.3f}", f"{figures.log_loss:.3f}")
        standard_output().print(table)
    print(trial_sentence(trial))
