"""A worklist as one page of HTML: one row a study, the first rows with pictures."""

from pathlib import Path

from retrieval.reports.pictures import file_thumbnail
from retrieval.reports.templating import render
from retrieval.searcher import Searcher
from retrieval.worklist.worklist import SYNTHETIC_ORDER, Worklist

__all__ = ["MOST", "worklist_report"]

MOST = 100  # studies with pictures


def worklist_report(result: Worklist, searcher: Searcher) -> str:
    """The report. It holds pictures of each study's first radiograph and of its nearest case in the index."""
    rows = []
    for rank, entry in enumerate(result.entries, 1):
        thumbnail = nearest = None
        if rank <= MOST:
            thumbnail = file_thumbnail(entry.answer.query.files[0])
            nearest = searcher.index.thumbnail(entry.answer.cases[0].case) if entry.answer.cases else None
        rows.append((entry, thumbnail, nearest))
    sections = [("studies", f"{len(rows):,} studies"), ("sources", "Sources")]
    if result.skipped:
        sections.insert(1, ("skipped", f"{len(result.skipped):,} not read"))
    return render(
        "worklist.html",
        title=f"Worklist of {Path(result.folder).name or result.folder}",
        sections=sections,
        result=result,
        remarks=_remarks(result),
        rows=rows,
        most=MOST,
    )


def _remarks(result: Worklist) -> list[str]:
    remarks = []
    if unfamiliar := sum(entry.answer.familiarity.familiar is False for entry in result.entries):
        remarks.append(f"Studies unlike the index: {unfamiliar:,}.")
    if result.skipped:
        remarks.append(f"Studies that could not be read: {len(result.skipped):,}. Look at them yourself.")
    if result.drift and result.drift.sentence:
        remarks.append(f"{result.drift.sentence}.")
    if result.index.synthetic:
        remarks.append(SYNTHETIC_ORDER)
    return remarks
