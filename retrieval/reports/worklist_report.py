"""A worklist as one page of HTML: a study a row, the first of them with pictures."""

from pathlib import Path

from retrieval.answer import SimilarCase
from retrieval.encoding.batches import thumbnail
from retrieval.errors import RadiographError
from retrieval.images.radiograph import read_radiograph
from retrieval.reports.page import Html, Section, image, label_mark, page, paragraph, safe, table, terms, warnings
from retrieval.reports.stack import named
from retrieval.searcher import Searcher
from retrieval.worklist.worklist import SYNTHETIC_ORDER, Entry, Worklist

__all__ = ["MOST", "marks", "probability", "worklist_page"]

MOST = 100  # studies with pictures
_STYLE = """.list td, .list th { vertical-align: middle; }
.list img { display: block; width: 5rem; height: 5rem; object-fit: contain; background: #000000;
  border-radius: 0.25rem; }
.list tbody th { font-variant-numeric: tabular-nums; }
.list td:nth-child(3), .list th:nth-child(3) { white-space: normal; overflow-wrap: anywhere; min-width: 9rem;
  text-align: left; }
.list td:nth-child(8), .list th:nth-child(8) { text-align: left; }
.near { display: flex; align-items: center; gap: 0.75rem; }
.is-unfamiliar { color: var(--warn); font-weight: 600; }
@media print { .list { break-inside: auto; } .list tr { break-inside: avoid; }
  .list img { width: 3.5rem; height: 3.5rem; } }
"""


def worklist_page(result: Worklist, searcher: Searcher) -> str:
    """The page. It holds pictures of the first radiograph of a study and of its nearest case in the index."""
    rows = [_row(rank, entry, searcher) for rank, entry in enumerate(result.entries, 1)]
    headings = ["", "", "study", "mean", "classifier", "vote", "agree", "nearest study"]
    blocks = [
        paragraph(
            "The most probably abnormal first, by the mean of both probabilities. What is marked unfamiliar is unlike "
            "anything indexed: its figures say little, high or low."
        ),
        table("Studies in the order to read them", headings, rows, "list"),
    ]
    sections = [
        Section("studies", f"{len(result.entries):,} studies", Html("\n".join(blocks))),
        Section("sources", "Where this comes from", _sources(result)),
    ]
    if result.skipped:
        left_out = [[named(one.study), named(one.reason)] for one in result.skipped]
        content = table("Could not be read", ["study", "reason"], left_out, "prose")
        sections.insert(1, Section("skipped", f"{len(left_out):,} not read", content))
    unfamiliar = sum(entry.answer.familiarity.familiar is False for entry in result.entries)
    remarks = [f"{unfamiliar:,} {'is' if unfamiliar == 1 else 'are'} unlike what is indexed."] if unfamiliar else []
    if result.skipped:
        remarks.append(f"{len(result.skipped):,} could not be read; look at them yourself.")
    if result.index.synthetic:
        remarks.append(SYNTHETIC_ORDER)
    claim = "Not a medical device: research and teaching only."
    foot = paragraph(f"{claim} This page holds radiographs; handle it as you handle those.", "quiet")
    head = Html(f"{paragraph(claim, 'lede')}{warnings(remarks)}")
    return page(f"Worklist of {named(Path(result.folder).name or result.folder)}", head, sections, foot, style=_STYLE)


def _row(rank: int, entry: Entry, searcher: Searcher) -> list[str]:
    answer = entry.answer
    return [
        f"{rank}",
        _picture(entry) if rank <= MOST else "",
        Html(f"{safe(named(entry.study))}{marks(entry)}"),
        f"{entry.mean:.3f}",
        probability(answer.classifier.probability, answer.classifier.abnormal),
        probability(answer.knn.probability, answer.knn.abnormal),
        {True: "yes", False: "no", None: "no vote"}[answer.agreement],
        _nearest(answer.cases[0], searcher, pictured=rank <= MOST) if answer.cases else "none",
    ]


def marks(entry: Entry) -> Html:
    """What stands below a study's name: that it is unfamiliar, and its warnings."""
    mark = '<br><span class="is-unfamiliar">unfamiliar</span>' if entry.answer.familiarity.familiar is False else ""
    if entry.warnings:
        mark += f'<br><span class="quiet">{safe(named("; ".join(entry.warnings)))}</span>'
    return Html(mark)


def _nearest(case: SimilarCase, searcher: Searcher, *, pictured: bool) -> Html:
    study = named(case.study)
    stored = searcher.index.thumbnail(case.case) if pictured else None
    alt = f"nearest radiograph of study {study}, labelled {case.label}"
    picture = "" if stored is None else image(stored, alt)
    words = f"<span>{label_mark(case.label)} {case.similarity:.3f}<br>{safe(study)}</span>"
    return Html(f'<div class="near">{picture}{words}</div>')


def probability(value: float | None, abnormal: bool | None) -> Html:
    """What a cell says of a probability and its call; "none" where there is none."""
    if value is None or abnormal is None:
        return safe("none")
    return Html(f"{value:.3f}<br>{label_mark('abnormal' if abnormal else 'normal')}")


def _picture(entry: Entry) -> Html:
    try:
        pixels = read_radiograph(Path(entry.answer.query.files[0])).pixels
    except RadiographError:  # it was there a moment ago
        return safe("gone")
    return image(thumbnail(pixels), f"first radiograph of study {named(entry.study)}")


def _sources(result: Worklist) -> Html:
    model, index = result.model, result.index
    return terms(
        [
            ("Folder", named(result.folder)),
            ("Model", named(f"{model.name} ({model.sha256})")),
            ("Index", named(f"{index.path}: {index.cases:,} radiographs of {index.studies:,} studies")),
            ("Time", f"{result.seconds:.1f} s"),
        ]
    )
