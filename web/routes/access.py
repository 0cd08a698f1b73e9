"""Who may change the index, and the small forms of the pages that do."""

from fastapi import Request

from web.errors import Refused
from web.security.session import COOKIE, Sessions
from web.settings import Settings

__all__ = ["form_of", "may_file", "require_filing"]

_LONGEST = 4096  # bytes of one field of a form


def may_file(request: Request) -> bool:
    """Whether the client may change the index: by the filing token, or everybody with --allow-filing."""
    settings: Settings = request.app.state.settings
    sessions: Sessions = request.app.state.sessions
    return settings.allow_filing or sessions.may_file(
        request.headers.get("authorization", ""), request.cookies.get(COOKIE, "")
    )


def require_filing(request: Request) -> None:
    """Raise Refused unless the client may change the index."""
    if may_file(request):
        return
    sessions: Sessions = request.app.state.sessions
    if not sessions.files:
        raise Refused(
            403,
            "this server does not change the index; start it with --filing-token-file or --allow-filing",
            kind="no-filing",
        )
    raise Refused(403, "log in with the filing token, or send it: Authorization: Bearer TOKEN", kind="no-filing")


async def form_of(request: Request, *names: str) -> dict[str, str]:
    """The texts of a form, "" for a missing one; other fields are ignored. Raises Refused for a damaged form."""
    try:
        async with request.form(max_files=0, max_fields=16, max_part_size=_LONGEST) as form:
            return {name: str(form.get(name, "")).strip() for name in names}
    except (UnicodeError, LookupError) as error:  # in an unknown encoding
        raise Refused(400, "the form cannot be read") from error
