"""The page's HTML: the frame, the form, the login, and problems. Everything that is not `Html` is escaped."""

from collections.abc import Sequence
from html import escape

from retrieval.images.raster_headers import IMAGE_SUFFIXES
from retrieval.reports.page import Html, join, paragraph, safe

__all__ = ["CLAIM", "front_page", "login_page", "options", "problem_page", "top", "whole_page"]

CLAIM = "Not a medical device: research and teaching only."


def whole_page(title: str, content: str, *, foot: str = "", script: str = "") -> str:
    """A page with the program's name above and the claim below; `script` is the name of a file in /static/."""
    scripts = f'<script type="module" src="/static/{script}"></script>\n' if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{safe(title)}</title>\n"
        '<link rel="icon" href="/static/icon.svg" type="image/svg+xml">\n'
        '<link rel="stylesheet" href="/static/base.css">\n<link rel="stylesheet" href="/static/page.css">\n'
        f"{scripts}</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f'<header class="top"><a class="home" href="/">mura-search</a> {safe(foot)}</header>\n'
        f'<main id="main">\n{safe(content)}\n</main>\n<footer class="quiet">{CLAIM}</footer>\n</body>\n</html>\n'
    )


def top(about: str, *, login: bool, worklist: bool) -> Html:
    """What stands beside the program's name: a link to the worklist where there is one, and a way out of a session.

    about: what the index holds, in words.
    """
    link = '<a href="/worklist">Worklist</a>' if worklist else ""
    leave = '<form class="inline" method="post" action="/logout"><button class="plain">Log out</button></form>'
    return Html(f'<span class="quiet">{safe(about)}</span> {link} {leave if login else ""}')


def front_page(head: Html, *, views: int, megabytes: int, answer: str = "") -> str:
    """The page to ask on; `head` is what `top` gives."""
    accepted = ",".join(["image/*", *sorted(IMAGE_SUFFIXES), ".dcm"])
    form = f"""<form id="ask" method="post" action="/search" enctype="multipart/form-data"
  data-views="{views}" data-megabytes="{megabytes}">
<input type="hidden" name="heatmap" value="true">
<div id="drop" class="drop">
<p id="choose"><label class="button" for="files">Choose a radiograph</label>
<input id="files" name="files" type="file" multiple accept="{accepted}" aria-describedby="how problem"></p>
<p id="how" class="quiet">or drop one here, or paste it. Several files at once are taken as the views of one study.
Nothing you send is kept on the server's disk.</p>
<ul id="preview" class="pictures" aria-label="Views of this study"></ul>
<p id="again" hidden><label class="button plain" for="more">Add a view</label>
<input id="more" type="file" multiple accept="{accepted}">
<button type="button" id="new" class="plain">New study</button></p>
<p id="problem" class="problem" role="alert"></p>
</div>
<details id="options"><summary>Options</summary>
<p><label for="patient">Patient, as the index names them</label>
<input id="patient" name="patient" maxlength="100" autocomplete="off" aria-describedby="patient-help"></p>
<p id="patient-help" class="quiet">This patient's own studies are then left out of the similar ones.</p>
</details>
<p id="asking"><button id="submit" type="submit">Ask</button></p>
<p id="progress" hidden><progress id="bar" max="100" aria-labelledby="status"></progress></p>
<p id="status" class="quiet" role="status"></p>
</form>"""
    content = join(
        Html("<h1>Ask about a radiograph</h1>"),
        Html(form),
        Html(f'<div id="answer">{safe(answer)}</div>'),
        Html(
            '<dialog id="comparison" aria-labelledby="comparison-title"><form method="dialog"><button class="plain">'
            'Close</button></form><div id="comparison-content"></div></dialog>'
        ),
    )
    return whole_page("mura-search", content, foot=head, script="page.js")


def login_page(problem: str = "") -> str:
    wrong = f'<p id="problem" class="problem" role="alert">{safe(problem)}</p>'
    form = (
        '<form method="post" action="/login" class="login"><p><label for="token">Token</label>\n'
        '<input id="token" name="token" type="password" required autocomplete="current-password" '
        f'aria-describedby="problem"></p>\n{wrong}\n<p><button>Log in</button></p></form>'
    )
    help_text = paragraph("Whoever runs this server knows the token: it was started with it.", "quiet")
    return whole_page("Log in - mura-search", join(Html("<h1>Log in</h1>"), Html(form), help_text))


def problem_page(sentence: str) -> str:
    told = f'<p class="problem" role="alert">{safe(sentence)}.</p>'
    back = '<p><a href="/">Ask about a radiograph</a></p>'
    return whole_page("mura-search", join(Html("<h1>This did not work</h1>"), Html(told), Html(back)))


def options(values: Sequence[tuple[str, str]], chosen: str) -> Html:
    """The options of a select: (value, words), the chosen one marked."""
    return Html(
        "".join(
            f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{safe(words)}</option>'
            for value, words in values
        )
    )
