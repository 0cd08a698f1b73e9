"""A radiograph on a page with a heatmap over it, and the controls that show, hide and fade all heatmaps of the page."""

from html import escape

from retrieval.reports.page import Html, image, safe
from retrieval.reports.templating import static

__all__ = ["BAR", "SCRIPT", "STYLE", "blank", "named", "stack"]

BAR = Html("""<div class="bar" role="group" aria-label="How the pictures are shown">
<label><input type="checkbox" id="heat" checked autocomplete="off"> Heatmaps</label>
<label id="fade" hidden>Strength <input type="range" id="strength" min="10" max="100" step="5" value="55"
  autocomplete="off"></label>
<label><input type="checkbox" id="invert" autocomplete="off"> Black on white</label>
<fieldset><legend>Page</legend>
<label><input type="radio" name="theme" id="system" checked autocomplete="off"> as the system</label>
<label><input type="radio" name="theme" id="dark" autocomplete="off"> dark</label>
<label><input type="radio" name="theme" id="light" autocomplete="off"> light</label></fieldset>
</div>
""")

SCRIPT = static("heatmaps.js")
STYLE = static("study.css")


def named(text: str) -> str:
    """Names of files and patients are anybody's: without what would turn letters around or be no letter at all."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def stack(picture: bytes, alt: str, caption: str, heatmap: bytes | None = None, heatmap_alt: str = "") -> Html:
    """A picture with a caption and, over it, a heatmap of the same proportions."""
    over = "" if heatmap is None else image(heatmap, heatmap_alt, "heat")
    return Html(
        f'<figure><div class="stack">{image(picture, alt, "base")}{over}</div>'
        f"<figcaption>{safe(caption)}</figcaption></figure>"
    )


def blank(alt: str, caption: str) -> Html:
    """Where there is no picture to show."""
    return Html(
        f'<figure><span class="blank" role="img" aria-label="{escape(alt)}"></span>'
        f"<figcaption>{safe(caption)}</figcaption></figure>"
    )
