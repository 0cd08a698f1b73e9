"""Whether the scores of what this server was asked differ from those of the index, as a page."""

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from retrieval.evaluation.drift import FEWEST, Drift
from retrieval.wording import score_title
from web.responses import page
from web.routes.api import service_of
from web.routes.pages import head_of

__all__ = ["drift_pages"]

drift_pages = APIRouter(include_in_schema=False)


@drift_pages.get("/drift")
async def show(request: Request) -> HTMLResponse:
    """The scores and measures of the latest answers beside those of the index."""
    drift = service_of(request).scores.monitor.drift
    rows = _rows(drift) if drift else []
    return page("drift.html", fewest=FEWEST, rows=rows, **await head_of(request))


def _rows(drift: Drift) -> list[tuple[str, ...]]:
    return [
        (
            score_title(comparison.score), f"{comparison.median:.3g}", f"{comparison.indexed_median:.3g}",
            f"{comparison.psi:.2f}", f"{comparison.ks:.2f}", f"{comparison.chance:.2g}",
            "yes" if comparison.parted else "no",
        )
        for comparison in drift.comparisons
    ]  # fmt: skip
