"""Whether radiographs are views of one study, as far as their headers, their paths and the index tell."""

from collections.abc import Sequence

from index.reader import IndexReader
from retrieval.errors import RadiographError
from retrieval.notices import Code, Notice
from retrieval.query import View, count_distinct

__all__ = ["one_study_notices", "require_one_study", "several"]

_MANY = 20  # more views than one study has: they are probably of several


def several(index: IndexReader, views: Sequence[View]) -> str:
    """How many patients or studies the views are known to be of, such as "2 studies"; "" for at most one."""
    if len(views) < 2:
        return ""
    indexed = [index.find_digest(view.digest) for view in views]
    counts = {
        "patients": (
            count_distinct(view.patients for view in views),
            count_distinct([case.patient for case in cases] for cases in indexed),
        ),
        "studies": (
            count_distinct([view.study] if view.study else [] for view in views),
            count_distinct([case.study for case in cases] for cases in indexed),
        ),
    }
    most = {level: max(numbers) for level, numbers in counts.items()}
    return next((f"{count} {level}" for level, count in most.items() if count > 1), "")


def require_one_study(index: IndexReader, views: Sequence[View]) -> None:
    """Raise RadiographError if the views are known to be of several patients or studies."""
    if known := several(index, views):
        raise RadiographError(
            f"the radiographs are of {known}: ask about one study at a time, rank all studies of "
            "a folder with  mura-search worklist FOLDER,  or say that they are one study with --one-study"
        )


def one_study_notices(views: Sequence[View]) -> list[Notice]:
    """What speaks against one study where the views are taken as one."""
    notices = []
    if count_distinct(view.patients for view in views) > 1:
        notices.append(Notice(Code.SEVERAL_PATIENTS))
    if len(views) > _MANY:
        notices.append(Notice(Code.MANY_VIEWS, detail={"views": len(views)}))
    return notices
