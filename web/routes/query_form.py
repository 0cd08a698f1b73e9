"""A request's form: its fields and files, in memory alone and within limits that hold while it is being read."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import PurePosixPath

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from index.case import LABEL_NAMES
from retrieval.wording import printable
from web.errors import Refused
from web.service.admission import Share

__all__ = ["Asked", "Upload", "asked", "read_upload", "shown_name", "too_many_views"]

MOST_SHOWN = 50  # studies in an answer
_FILTERS = ("part", "view", "label")
_FIELDS = 64
_LONGEST_FIELD = 1024  # bytes


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 62  # a spooled file goes to the disk when it grows beyond this


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked about a study: how many similar ones, of which, and whose it is."""

    k: int = 5
    patient: str | None = None
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()
    heatmap: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    """(name, bytes) of each file, and what is asked about them."""

    files: tuple[tuple[str, bytes], ...]
    asked: Asked


async def read_upload(request: Request, views: int, share: Share) -> Upload:
    """Read a multipart form with at most `views` files in fields named `files`; see `asked` for the others.

    Raises Refused for another kind of form, a damaged one, too many files, and what `asked` refuses.
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
            raise Refused(413, too_many_views(views)) from error
        raise Refused(400, f"the form cannot be read: {error.message.rstrip('.')}") from error
    except ClientDisconnect as error:
        raise Refused(400, "the connection was closed before the form had arrived") from error
    except (UnicodeError, ValueError) as error:
        raise Refused(400, "the form cannot be read: its headers are damaged") from error
    try:
        files, fields = await _taken(form)
    finally:
        await form.close()
    if not files:
        raise Refused(422, "no radiograph was sent: choose at least one file")
    return Upload(tuple(files), asked(fields))


def asked(fields: list[tuple[str, str]]) -> Asked:
    """What is asked by fields `k` (1 to 50), `patient`, `heatmap` (true or false), `part`, `view`, `label` (several).

    An empty value is as good as none. Raises Refused with 422 for other fields and values.
    """
    known = {"k", "patient", "heatmap", *_FILTERS}
    where: dict[str, list[str]] = {}
    single: dict[str, str] = {}
    for name, value in fields:
        if name not in known:
            raise Refused(422, f"there is no field {_shown(name)}; the fields are files, {', '.join(sorted(known))}")
        if len(value) > _LONGEST_FIELD or "\0" in value:
            raise Refused(422, f"the value of {name} is too long, or no text")
        if name in _FILTERS:
            if value:
                where.setdefault(name, []).append(value)
        elif name in single:
            raise Refused(422, f"{name} is given more than once")
        else:
            single[name] = value
    for label in where.get("label", []):
        if label not in LABEL_NAMES:
            raise Refused(422, f"label is normal or abnormal, not {_shown(label)}")
    heatmap = single.get("heatmap", "")
    if heatmap not in ("", "true", "false"):
        raise Refused(422, f"heatmap is true or false, not {_shown(heatmap)}")
    k = single.get("k", "") or "5"
    if not (k.isascii() and k.isdigit() and len(k) < 4 and 1 <= int(k) <= MOST_SHOWN):
        raise Refused(422, f"k is how many similar studies to show, 1 to {MOST_SHOWN}, not {_shown(k)}")
    return Asked(
        int(k),
        single.get("patient") or None,
        tuple((field, tuple(values)) for field, values in where.items()),
        heatmap == "true",
    )


def too_many_views(most: int) -> str:
    return f"at most {most} radiographs of one study can be sent at once"


async def _taken(form: FormData) -> tuple[list[tuple[str, bytes]], list[tuple[str, str]]]:
    """A form's files and fields, each with its name."""
    files: list[tuple[str, bytes]] = []
    fields: list[tuple[str, str]] = []
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            fields.append((name, value))
        elif name != "files":
            raise Refused(422, f"radiographs are sent in fields named files, not {_shown(name)}")
        elif value.filename or value.size:  # a browser sends an empty one where none was chosen
            files.append((shown_name(value.filename or "", len(files) + 1), await value.read()))
    return files, fields


async def _counted(request: Request, share: Share) -> AsyncGenerator[bytes, None]:
    async for chunk in request.stream():
        share.take(len(chunk))
        yield chunk


def shown_name(given: str, number: int) -> str:
    """What a file is called in the answer: the last part of its name on the other machine, on one line."""
    last = PurePosixPath(given.replace("\\", "/")).name
    shown = _shown(last)
    return shown if shown.strip(". ") else f"radiograph {number}"


def _shown(text: str) -> str:
    short = text if len(text) <= 100 else text[:97] + "..."
    return printable(short)
