"""An answer in the terminal: doubts about pictures, verdict, evidence; also in 80 columns and without colour."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import bare_table, standard_output
from retrieval.wording import (
    DISCLAIMER,
    FINDINGS,
    evaluation_text,
    findings_text,
    label_word,
    printable,
    vote_share,
    vote_title,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from retrieval.answer import Answer, SimilarCase
    from retrieval.search_by.region import RegionAnswer

__all__ = ["print_answer", "print_regions"]

HEATMAP = "a heatmap shows where the classifier looks, whatever the verdict; it does not outline a lesion"
BAR = 20  # characters from probability 0 to 1
STYLES = {"abnormal": "bold red", "normal": "bold green", "far": "bold yellow", "unfamiliar": "bold yellow"}


def print_answer(answer: "Answer", console: "Console | None" = None) -> None:
    """Print what a radiologist reads: verdict, probabilities, the similar studies, and everything that qualifies it."""
    out = console or standard_output()
    for doubt in answer.doubts:
        out.print(line_of(f"Note: {doubt}.", "yellow"))
    for line in headlines(answer):
        out.print(line)
    out.print()
    out.print(figures(answer, marks=mark_set(out)))
    if answer.query.views > 1:
        out.print()
        out.print(views(answer))
    if answer.findings:
        out.print()
        out.print(line_of(findings_text(answer)))
        out.print(line_of(FINDINGS, "dim"))
    out.print()
    print_similar(answer, out)
    drawn = [f"heatmap  {quoted(shortest(view.heatmap))}" for view in answer.views if view.heatmap is not None]
    if answer.report is not None:
        drawn.append(f"report   {quoted(shortest(answer.report))}")
    if drawn:
        out.print()
    for text in drawn:
        out.print(line_of(text, "dim"), soft_wrap=True)
    out.print()
    for text in remarks(answer):
        out.print(line_of(text, "yellow"))
    if measured := evaluation_text(answer):
        out.print(line_of(measured, "dim"))
    out.print(line_of(sources(answer), "dim"))
    out.print(line_of(DISCLAIMER, "dim"))


def print_regions(answer: "RegionAnswer") -> None:
    """Print the studies with a region like the query's, and where in their radiographs it lies."""
    out = standard_output()
    table = bare_table("", "similarity", "label", "study", "radiograph", "position (% of width and height)")
    for region in answer.regions:
        place = ", ".join(f"{100 * side:.0f}" for side in (region.x, region.y, region.width, region.height))
        table.add_row(str(region.rank), f"{region.similarity:.3f}", region.label, region.study, region.case, place)
    out.print(table)
    if answer.abnormal is not None:
        out.print(
            line_of(
                f"Weighted by similarity, {answer.abnormal:.0%} of these {len(answer.regions)} studies are abnormal."
            )
        )
    out.print(line_of("A position is left, top, width and height. A similar region is not a diagnosis.", "dim"))
    out.print(line_of(DISCLAIMER, "dim"))


def print_similar(answer: "Answer", out: "Console") -> None:
    """Print the similar studies, how much of the vote they carry, and where they are."""
    if not answer.cases:
        out.print(line_of("No study of the index fits what was asked for."))
        return
    out.print(similar(answer.cases))
    if share := vote_share(answer):
        out.print(line_of(share, "dim"))
    out.print()
    for case in answer.cases:  # paths are too long for the table, and are not broken, so that they can be copied
        out.print(line_of(f"{case.rank}  {location(case)}", "dim"), soft_wrap=True)


def location(case: "SimilarCase") -> str:
    """Where the radiograph of a case is; where it was if its file is missing."""
    from retrieval.images.radiograph import file_and_frame

    if not case.path:
        return case.case
    return quoted(shortest(case.path)) + ("" if file_and_frame(Path(case.path))[0].exists() else "  (missing)")


def quoted(path: str) -> str:
    """A path that can be copied into a command: one with blanks is quoted."""
    return shlex.quote(path) if " " in path else path


def line_of(text: str, style: str = "") -> "Text":
    from rich.text import Text

    return Text(printable(text), style=style, overflow="fold")


def headlines(answer: "Answer") -> list["Text"]:
    from rich.text import Text

    lines = []
    familiarity = answer.familiarity
    if familiarity.familiar is False:
        text = f"UNFAMILIAR: {'; '.join(familiarity.reasons)}. Do not rely on what follows."
        lines.append(Text(printable(text), style=STYLES["unfamiliar"]))
    classifier, vote = label_word(answer.classifier.abnormal), label_word(answer.knn.abnormal)
    if answer.agreement is None:
        line = Text(f"{classifier.upper()}: by the classifier alone, nothing could vote", style=STYLES[classifier])
    elif answer.agreement:
        line = Text(f"{classifier.upper()}: classifier and vote agree", style=STYLES[classifier])
    else:
        line = Text("UNDECIDED: the classifier says ", style="bold yellow")
        line.append(classifier, STYLES[classifier]).append(", the vote says ").append(vote, STYLES[vote])
    return [*lines, line]


def figures(answer: "Answer", marks: str) -> "Table":
    """Classifier, vote and familiarity, one a row: the figure, what it means, a picture of it, and its limit."""
    table = bare_table("", "", "", "", "")
    rows = [
        (
            "classifier",
            answer.classifier.probability,
            label_word(answer.classifier.abnormal),
            answer.classifier.threshold,
            answer.classifier.borderline,
        ),
        (
            vote_title(answer.knn),
            answer.knn.probability,
            label_word(answer.knn.abnormal),
            answer.knn.threshold,
            answer.knn.borderline,
        ),
    ]
    for name, probability, verdict, threshold, borderline in rows:
        picture = line_of(bar(probability, threshold, marks), "dim")
        table.add_row(name, figure(probability), called(verdict, borderline), picture, f"threshold {threshold:.2f}")
    familiarity = answer.familiarity
    near = None if familiarity.similarity is None else familiarity.similarity >= familiarity.limit
    known = called({True: "near", False: "far", None: "unknown"}[near], familiarity.borderline)
    table.add_row("nearest study", cosine(familiarity.similarity), known, "", f"limit {cosine(familiarity.limit)}")
    return table


def called(verdict: str, borderline: bool | None) -> "Text":
    """A verdict, with "borderline" below it where that is so."""
    text = styled(verdict)
    return text.append("\nborderline", "yellow") if borderline else text


def views(answer: "Answer") -> "Table":
    unlike = any(view.reasons for view in answer.views)
    table = bare_table("view", "classifier", "vote", "similarity", *(["unfamiliar"] if unlike else []))
    files = [view.file for view in answer.views]
    names = [Path(file).name for file in files]
    for view, name in zip(answer.views, names if len(set(names)) == len(names) else files, strict=True):
        reasons = [line_of("; ".join(view.reasons), STYLES["unfamiliar"])] if unlike else []
        table.add_row(line_of(name), figure(view.classifier), figure(view.knn), cosine(view.similarity), *reasons)
    return table


def similar(cases: "Sequence[SimilarCase]") -> "Table":
    """The similar studies, nearest first; `weight` is a study's part of the vote.

    A collection that names no parts, views or sides gets no columns for them.
    """
    described = [
        name for name in ("part", "view", "laterality", "finding") if any(getattr(case, name) for case in cases)
    ]
    table = bare_table("", "similarity", "weight", "label", "study", *described)
    for case in cases:
        table.add_row(
            str(case.rank),
            cosine(case.similarity),
            f"{case.weight:.0%}",
            styled(case.label),
            line_of(case.study),
            *(line_of(getattr(case, name)) for name in described),
        )
    return table


def remarks(answer: "Answer") -> list[str]:
    """The answer's other warnings, the patients left out that no warning names, and how a heatmap is to be read."""
    unnamed = answer.unnamed_patients
    excluded = [f"the studies of {', '.join(unnamed)} are left out: it is the same patient"] if unnamed else []
    drawn = [HEATMAP] if any(view.heatmap is not None for view in answer.views) else []
    return [f"Note: {text}." for text in (*answer.other_warnings, *excluded, *drawn)]


def sources(answer: "Answer") -> str:
    model, index = answer.model, answer.index
    return (
        f"Model {model.name} ({model.sha256[:8]}); index {shortest(index.path)} of {index.cases:,} radiographs, "
        f"{index.studies:,} studies; {answer.seconds.total:.2f} s."
    )


def styled(text: str) -> "Text":
    return line_of(text, STYLES.get(text, "default"))


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def cosine(value: float | None) -> str:
    """A similarity with three digits, as most lie near 1."""
    return "-" if value is None else f"{value:.3f}"


def mark_set(console: "Console") -> str:
    """Filled, empty and threshold marks that this console can show."""
    return "#.|" if console.options.ascii_only else "█·│"


def bar(probability: float | None, threshold: float, marks: str) -> str:
    """Draw a probability as a bar from 0 to 1 with its threshold."""
    if probability is None:
        return ""
    full, at = round(probability * BAR), round(threshold * BAR)
    cells = marks[0] * full + marks[1] * (BAR - full)
    return cells[:at] + marks[2] + cells[at:]


def shortest(path: str) -> str:
    """The path relative to the current folder, if that is shorter."""
    try:
        here = str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return path
    return min(path, here, key=len)
