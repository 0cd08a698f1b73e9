"""A request's form: its fields and files, read into memory, with limits that hold while it arrives."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from retrieval.answer import Answer
from web.errors import CLIENT_GONE, Refused
from web.models import NewQuestion, Question, SearchForm, Upload, shortened, shown_name, too_many_views
from web.service.admission import Share
from web.service.service import Service

__all__ = ["FORM", "ask", "read_upload", "while_connected"]

Result = TypeVar("Result")

FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": SearchForm.model_json_schema(),
                "encoding": {"files": {"contentType": "application/octet-stream"}},
            }
        },
    }
}
"""The form for FastAPI's `openapi_extra`: FastAPI itself would read it without these limits."""

_FIELDS = 64
_LONGEST_FIELD = 1024  # bytes


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 62  # a larger file would be spooled to disk
    ended = False

    def on_end(self) -> None:
        self.ended = True

    async def parse(self) -> FormData:
        """The form. Raises MultiPartException also for one without its last boundary: its last file is not whole."""
        form = await super().parse()
        if not self.ended:
            for file in self._files_to_close_on_error:  # the last file is not in the form
                file.close()
            raise MultiPartException("its end is missing")
        return form


async def read_upload(request: Request, views: int, share: Share) -> Upload:
    """Read a multipart form with at most `views` files in fields named `files`; the other fields are a `Question`.

    Raises Refused for another kind of form, a damaged form, too many files, and an invalid question.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise Refused(415, "send the radiographs as multipart/form-data, in fields named files")
    try:
        parser = _InMemory(
            Headers(raw=request.headers.raw), _counted(request, share), max_files=views, max_fields=_FIELDS,
            max_part_size=_LONGEST_FIELD,
        )  # fmt: skip
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise too_many_views(views) from error
        raise Refused(400, f"the form cannot be read: {error.message.rstrip('.')}") from error
    except ClientDisconnect as error:
        raise Refused(CLIENT_GONE, "the connection was closed before the form had arrived") from error
    except (UnicodeError, ValueError) as error:
        raise Refused(400, "the form cannot be read: its headers are damaged") from error
    try:
        files, fields = await _split(form)
    finally:
        await form.close()
    if not files:
        raise Refused(422, "no radiograph was sent: choose at least one file")
    return Upload(tuple(files), NewQuestion.from_form(fields))


async def ask(request: Request) -> tuple[Answer, str, Question]:
    """The answer to a form, the name of the remembered study ("" without), and the question. Raises Refused."""
    service: Service = request.app.state.service
    with service.admission.enter() as share:
        upload = await read_upload(request, service.limits.views, share)
        answer, name = await while_connected(request, service.ask(upload, share))
    return answer, name, upload.question


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work, which is cancelled if the client closes the connection. Raises Refused."""
    working, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refused(CLIENT_GONE, "the connection was closed before the answer was ready")
        return working.result()
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _split(form: FormData) -> tuple[list[tuple[str, bytes]], list[tuple[str, str]]]:
    """A form's files and its other fields, each with its name."""
    files: list[tuple[str, bytes]] = []
    fields: list[tuple[str, str]] = []
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            fields.append((name, value))
        elif name != "files":
            raise Refused(422, f"radiographs are sent in fields named files, not {shortened(name)}")
        elif value.filename or value.size:  # without a chosen file, a browser sends an empty one
            files.append((shown_name(value.filename or "", len(files) + 1), await value.read()))
    return files, fields


async def _counted(request: Request, share: Share) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        share.take(len(chunk))
        yield chunk
