"""HTML from Jinja2 templates: one environment, with autoescape, for the reports and the web page.

Templates lie in `templates/`, style sheets and scripts in `static/`; the web page adds folders of its own. Jinja2 is
imported when a page is made, never by a query.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.wording import DISCLAIMER, printable

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["data_uri", "digest", "render", "static"]

_HERE = Path(__file__).parent


@cache
def _environment(folders: tuple[Path, ...]) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([*folders, _HERE / "templates"]),
        autoescape=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # markup is a subclass of str
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data_uri": data_uri, "digest": digest, "printable": printable}
    environment.filters |= {"fixed": _fixed, "percent": "{:.0%}".format, "thousands": "{:,}".format}
    environment.globals |= {"DISCLAIMER": DISCLAIMER, "static": static}
    return environment


def render(template: str, folders: Sequence[Path] = (), /, **values: object) -> str:
    """The page, or part of one, that a template makes of the values; `folders` come before the shared one.

    Everything but `markupsafe.Markup` is escaped and made printable; an undefined name is an error.
    """
    return _environment(tuple(folders)).get_template(template).render(**values)


@cache
def static(name: str) -> str:
    """The text of a style sheet or script in `static/`."""
    return (_HERE / "static" / name).read_text(encoding="utf-8")


def data_uri(data: bytes) -> str:
    """A JPEG or PNG as a `data:` URL, to be part of a page."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def digest(code: str) -> str:
    """What a content security policy calls a style or script of exactly these characters."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _fixed(value: float | None) -> str:
    """A figure with three digits after the point."""
    return "none" if value is None else f"{value:.3f}"
