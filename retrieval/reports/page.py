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

from retrieval.reports.svg_chart import CHART_STYLE

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


# Contrasts of text to its ground are at least 4.5, of lines and marks at least 3, in both themes. The hues are those of
# Okabe and Ito (2008), which people with any kind of colour vision can tell apart; shapes and dashes tell the same.
_LIGHT = """--ink: #1f2328; --paper: #ffffff; --soft: #59636e; --line: #d1d9e0; --band: #f3f5f7; --link: #0550ae;
  --warn: #7a4b00; --warn-ground: #fff4d6; --normal: #0072b2; --abnormal: #c75300; --classifier: #00795a;
  --vote: #a3528a; --mean: #59636e;"""
_DARK = """--ink: #e6edf3; --paper: #0d1117; --soft: #a3abb4; --line: #3d444d; --band: #171c23; --link: #79b8ff;
  --warn: #ffd580; --warn-ground: #33270c; --normal: #56b4e9; --abnormal: #f0903c; --classifier: #35c99b;
  --vote: #dd94c6; --mean: #a3abb4;"""
# For pages on which the reader may choose, whatever the system is: by a checked box with the id "dark" or "light".
THEMES = f"""@media screen {{ :root:has(#dark:checked) {{ color-scheme: dark; {_DARK} }}
  :root:has(#light:checked) {{ color-scheme: light; {_LIGHT} }} }}"""
STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
html {{ scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }}
@media (prefers-reduced-motion: reduce) {{ html {{ scroll-behavior: auto; }} }}
body {{ margin: 0 auto; max-width: 66rem; padding: 1.5rem 1.25rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; overflow-wrap: break-word; }}
h1 {{ margin: 0 0 0.75rem; font-size: 1.8rem; line-height: 1.2; }}
h2 {{ margin: 3rem 0 0.75rem; padding-bottom: 0.3rem; border-bottom: 1px solid var(--line); font-size: 1.3rem; }}
h3 {{ margin: 1.5rem 0 0.5rem; font-size: 1.05rem; }}
p, dl, li {{ max-width: 44rem; }}
p {{ margin: 0.6rem 0; }}
a {{ color: var(--link); }}
a:focus-visible, .wide:focus-visible {{ outline: 3px solid var(--link); outline-offset: 2px; }}
.lede {{ font-size: 1.1rem; }}
.quiet, figcaption, caption, dt {{ color: var(--soft); }}
.warning {{ max-width: 45.5rem; margin: 1rem 0; padding: 0.5rem 0.75rem 0.5rem 2rem;
  border-left: 4px solid var(--warn); background: var(--warn-ground);
  color: var(--warn); }}
.skip {{ position: absolute; left: -99rem; }}
.skip:focus {{ left: 1rem; top: 0.5rem; padding: 0.25rem 0.5rem; background: var(--paper); }}
nav ul {{ display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 1rem 0 0; padding: 0; list-style: none; }}
.wide {{ overflow-x: auto; margin: 0.75rem 0 1.25rem; }}
table {{ border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }}
caption {{ padding-bottom: 0.35rem; text-align: left; }}
th, td {{ padding: 0.3rem 0.8rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }}
th:first-child {{ padding-left: 0.4rem; text-align: left; }}
thead th {{ background: var(--band); vertical-align: bottom; }}
tbody th {{ font-weight: 500; }}
td, tbody th {{ white-space: nowrap; }}
.prose td, .prose th {{ white-space: normal; text-align: left; overflow-wrap: anywhere; }}
td small {{ color: var(--soft); font-size: 0.85rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1rem; margin: 0.5rem 0; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
figure {{ margin: 0.75rem 0 1.5rem; min-width: 0; }}
figcaption {{ max-width: 44rem; margin-top: 0.35rem; font-size: 0.9rem; }}
.row {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 0.5rem 2rem; }}
.row th, .row td {{ padding-left: 0.5rem; padding-right: 0.5rem; }}
.pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 0.5rem 3rem; }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 0.75rem; margin: 1rem 0;
  padding: 0; list-style: none; }}
.cards li {{ padding: 0.75rem 1rem; font-size: 0.88rem; border: 1px solid var(--line); border-radius: 0.5rem; }}
.cards b {{ display: block; font-size: 1.6rem; line-height: 1.25; font-variant-numeric: tabular-nums; }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 0.75rem; margin: 0.5rem 0; padding: 0; list-style: none; }}
.pictures li {{ width: 8.75rem; font-size: 0.82rem; line-height: 1.35; overflow-wrap: anywhere; }}
.pictures img, .blank {{ display: block; width: 100%; height: 8.75rem; object-fit: contain; background: #000000;
  border-radius: 0.25rem; margin-bottom: 0.25rem; }}
.is-normal {{ color: var(--normal); font-weight: 600; }}
.is-abnormal {{ color: var(--abnormal); font-weight: 600; }}
article {{ padding: 0.25rem 0 0.75rem; border-bottom: 1px solid var(--line); }}
footer {{ margin-top: 3rem; }}
{CHART_STYLE}
@media (max-width: 40rem) {{ body {{ padding: 1rem 0.9rem 2rem; }} h1 {{ font-size: 1.5rem; }}
  dl {{ grid-template-columns: 1fr; gap: 0; }} dd {{ margin-bottom: 0.5rem; }}
  th, td {{ padding: 0.3rem 0.5rem; }} td small {{ display: block; }} tbody th {{ white-space: normal; }}
  .pictures li {{ width: 6.5rem; }} .pictures img, .blank {{ height: 6.5rem; }} }}
@media print {{ :root {{ color-scheme: light; {_LIGHT} }}
  body {{ max-width: none; padding: 0; font-size: 10pt; }} nav, .skip {{ display: none; }}
  .wide {{ overflow: visible; }} .chart.broad {{ min-width: 0; }} tbody th {{ white-space: normal; }}
  table, figure, article, .cards li {{ break-inside: avoid; }}
  h2, h3 {{ break-after: avoid; }} h2 {{ margin-top: 1.5rem; }} a {{ color: inherit; }}
  .pair {{ grid-template-columns: 1fr 1fr; }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }} }}
"""
