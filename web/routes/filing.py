"""Filing: an answered study is added, a label corrected, a study set aside; and which study to label next."""

from dataclasses import asdict
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import HTMLResponse, RedirectResponse, Response

from index.case import LABEL_NAMES
from index.filed import Filed
from retrieval.indexing.filing import StudyRecord
from retrieval.worklist.label_queue import queue_of
from web.errors import Refused
from web.models import Label, refusals
from web.responses import page
from web.routes.access import form_of, require_filing
from web.routes.api import TOKEN, service_of, worklist_of
from web.routes.pages import head_of
from web.service import filing

__all__ = ["filing_api", "filing_pages"]

filing_api = APIRouter(
    prefix="/api/filing",
    tags=["filing"],
    responses=refusals(401, 403, 409, 421, 422, 429, 503),
    dependencies=[Depends(TOKEN)],
)
filing_pages = APIRouter(include_in_schema=False)
_SHOWN = 200  # studies of the queue
_DONE = {
    "file": "The study is filed. It votes from the next question on.",
    "label": "The label is corrected. It counts from the next question on.",
    "aside": "The study is set aside. It leaves every search and vote from the next question on.",
    "undo": "The change is undone.",
}

Words = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[^\x00]*$", strip_whitespace=True)]
Named = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00]*$")]


class _Change(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewStudy(_Change):
    """A remembered study, its label, and what else is known of it."""

    remembered: Named = Field(description="The last part of the URL of the remembered study.")
    label: Label
    study: Words = ""
    patient: Words = ""
    part: Words = ""
    finding: Words = ""
    note: Words = ""


class CorrectedLabel(_Change):
    """An indexed study and its right label."""

    study: Named
    label: Label
    note: Words = ""


class SetAside(_Change):
    """An indexed study that is to leave every search and vote, and why."""

    study: Named
    reason: Named


class Undone(_Change):
    """The change to undo, by its generation; without it, the last one."""

    generation: Annotated[int, Field(ge=1, le=2**62)] | None = None


class FiledChange(BaseModel):
    """A change that can be undone.

    `former` and `label` are the study's label before and after, `finding` what it shows.
    """

    generation: int
    at: str
    action: Literal["file", "relabel", "set-aside"]
    study: str
    former: str
    label: str
    note: str
    cases: int
    finding: str


@filing_api.post("/studies", summary="Add a remembered study to the index")
async def file_study(body: NewStudy, request: Request) -> FiledChange:
    require_filing(request)
    values = body.model_dump(exclude={"remembered", "label"})
    return _document(await _file(request, body.remembered, StudyRecord(LABEL_NAMES.index(body.label), **values)))


@filing_api.post("/labels", summary="Correct the label of an indexed study")
async def correct_label(body: CorrectedLabel, request: Request) -> FiledChange:
    require_filing(request)
    return _document(await service_of(request).use(filing.correct(body.study, body.label, body.note)))


@filing_api.post("/aside", summary="Set an indexed study aside")
async def set_study_aside(body: SetAside, request: Request) -> FiledChange:
    require_filing(request)
    return _document(await service_of(request).use(filing.set_aside(body.study, body.reason)))


@filing_api.post("/undo", summary="Undo a change")
async def undo_change(body: Undone, request: Request) -> FiledChange:
    require_filing(request)
    return _document(await service_of(request).use(filing.undo(body.generation)))


@filing_api.get("", summary="The changes that can be undone, newest first")
async def filed_changes(request: Request) -> list[FiledChange]:
    require_filing(request)
    return [_document(change) for change in await service_of(request).use(filing.filed)]


@filing_pages.get("/filing")
async def show(request: Request, said: str = "", back: str = "") -> HTMLResponse:
    """The changes that can be undone. `said` names the change just made, `back` the answer that it was made from."""
    require_filing(request)
    service = service_of(request)
    changes = await service.use(filing.filed)
    return page(
        "filing.html", changes=changes, said=_DONE.get(said, ""), back=back if back in service.studies else "",
        **await head_of(request),
    )  # fmt: skip


@filing_pages.post("/filing/{action}")
async def change(action: str, request: Request) -> Response:
    """One of the forms of the pages; then the list of changes."""
    require_filing(request)
    fields = await form_of(
        request, "remembered", "label", "study", "patient", "part", "finding", "note", "reason", "generation"
    )
    service = service_of(request)
    if action == "undo":
        number = fields["generation"]
        if not (number.isascii() and number.isdigit()):
            raise Refused(422, "generation is the number of the change to undo")
        await service.use(filing.undo(int(number[:18])))
    elif action == "aside":
        if not fields["reason"]:
            raise Refused(422, "say why the study is set aside")
        await service.use(filing.set_aside(fields["study"], fields["reason"]))
    elif fields["label"] not in LABEL_NAMES:
        raise Refused(422, "choose a label: normal or abnormal")
    elif action == "label":
        await service.use(filing.correct(fields["study"], fields["label"], fields["note"]))
    elif action == "file":
        values = {name: fields[name] for name in ("study", "patient", "part", "finding", "note")}
        await _file(request, fields["remembered"], StudyRecord(LABEL_NAMES.index(fields["label"]), **values))
    else:
        raise Refused(404, "nothing is at this URL")
    done = {"said": action} | ({"back": fields["remembered"]} if fields["remembered"] else {})
    return RedirectResponse(f"/filing?{urlencode(done)}", 303)


@filing_pages.get("/queue")
async def queue(request: Request) -> HTMLResponse:
    """The studies of the worklist's folder, the one whose label teaches most on top."""
    worklist = worklist_of(request)
    listed = dict(worklist.ranked())
    queued = [item.queued(number) for number, item in listed.items()]
    return page(
        "queue.html", queued=queue_of(queued)[:_SHOWN], listed=listed, count=len(queued),
        folder=worklist.folder.resolve().name, **await head_of(request),
    )  # fmt: skip


async def _file(request: Request, remembered: str, record: StudyRecord) -> Filed:
    service = service_of(request)
    return await service.use(filing.file(service.studies.get(remembered), record))


def _document(change: Filed) -> FiledChange:
    return FiledChange(**asdict(change))
