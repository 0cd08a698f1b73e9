"""A page of HTML that is complete in itself: no network, nothing but this one file.

Light or dark as the reader's system is, for a phone, a desk and a printer. Whatever is not `Html` is escaped, so no
name of a file or patient can become part of the page's code; a content security policy forbids what slips through. It
allows the page's own styles, and a script only where `page` is given one, by their digests.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from retrieval.reports.templating import static

__all__ = [
    "THEMES",
    "Html",
    "Section",
    "figure",
    "image",
    "join",
    "label_mark",
    "page",
    "paragraph",
    "safe",
    "table",
    "terms",
    "warnings",
]


class Html(str):
    """Markup that is safe to put on a page as it is."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with a heading of its own; `name` is where links to it point: small letters and hyphens."""

    name: str
    title: str
    content: Html


def safe(value: str) -> Html:
    """Text as markup: escaped, unless it is markup already."""
    return value if isinstance(value, Html) else Html(escape(value))


def join(*parts: str) -> Html:
    return Html("\n".join(safe(part) for part in parts))


def paragraph(value: str, kind: str = "") -> Html:
    """A paragraph. kind: "lede" for what a page begins with, "quiet" for what only explains."""
    return Html(f"<p{_class(kind)}>{safe(value)}</p>")


def table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> Html:
    """A table; the first cell of a row names it. On a narrow screen it scrolls by itself, with the keyboard too."""
    head = "".join(f'<th scope="col">{safe(cell)}</th>' for cell in headings)
    body = "\n".join(
        f'<tr><th scope="row">{safe(first)}</th>{"".join(f"<td>{safe(cell)}</td>" for cell in others)}</tr>'
        for first, *others in rows
    )
    return Html(
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}"><table{_class(kind)}>\n'
        f"<caption>{safe(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def warnings(sentences: Sequence[str]) -> Html:
    """What a reader has to see before the rest; nothing where there is nothing."""
    items = "".join(f"<li>{safe(sentence[:1].upper() + sentence[1:])}</li>" for sentence in sentences)
    return Html(f'<ul class="warning">{items}</ul>' if items else "")


def terms(pairs: Sequence[tuple[str, str]]) -> Html:
    """A list of names and what they stand for."""
    return Html("<dl>" + "\n".join(f"<dt>{safe(name)}</dt><dd>{safe(value)}</dd>" for name, value in pairs) + "</dl>")


def figure(content: Html, caption: str, scrolls: str = "") -> Html:
    """A picture with a caption; on a narrow screen it scrolls by itself where it is given a name to be called by."""
    if scrolls:
        content = Html(f'<div class="wide" role="region" tabindex="0" aria-label="{escape(scrolls)}">{content}</div>')
    return Html(f"<figure>{content}<figcaption>{safe(caption)}</figcaption></figure>")


def image(data: bytes, alt: str, kind: str = "") -> Html:
    """A JPEG or PNG as part of the page; `alt` says in words what it is."""
    form = "png" if data.startswith(b"\x89PNG") else "jpeg"
    source = f"data:image/{form};base64,{base64.b64encode(data).decode()}"
    return Html(f'<img{_class(kind)} alt="{escape(alt)}" src="{source}">')


def label_mark(label: str) -> Html:
    """The word "normal" or "abnormal" in its colour, with its shape."""
    sign = {"normal": "\u25cf", "abnormal": "\u25b2"}[label]
    return Html(f'<span class="is-{label}"><span aria-hidden="true">{sign}</span> {label}</span>')


def page(
    title: str,
    head: str,
    sections: Sequence[Section],
    foot: str = "",
    *,
    bar: Html | None = None,
    style: str = "",
    script: str = "",
) -> str:
    """A whole page: its title, what comes first, links to the sections, the sections, and what comes last.

    bar: controls that stay in sight. style, script: CSS and JavaScript of this page's own, run from the page itself.
    """
    links = "".join(f'<li><a href="#{escape(of.name)}">{safe(of.title)}</a></li>' for of in sections)
    body = "\n".join(
        f'<section id="{escape(of.name)}" aria-labelledby="{escape(of.name)}-title">\n'
        f'<h2 id="{escape(of.name)}-title">{safe(of.title)}</h2>\n{of.content}\n</section>'
        for of in sections
    )
    styles = [STYLE, style] if style else [STYLE]
    allowed = f"img-src data:; style-src {' '.join(map(_allowed, styles))}"
    if script:
        allowed += f"; script-src {_allowed(script)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{safe(title)}</title>\n{''.join(f'<style>{css}</style>' for css in styles)}\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f"<header>\n<h1>{safe(title)}</h1>\n{safe(head)}\n</header>\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n{bar or ""}<main id="main">\n{body}\n</main>\n'
        f"<footer>{safe(foot)}</footer>\n{f'<script>{script}</script>' if script else ''}</body>\n</html>\n"
    )


def _allowed(code: str) -> str:
    """What a content security policy calls a style or script of exactly these characters."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _class(kind: str) -> str:
    return f' class="{escape(kind)}"' if kind else ""


STYLE = static("theme.css") + static("base.css") + static("chart.css")
THEMES = ""
