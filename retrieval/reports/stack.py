"""A radiograph on a page with a heatmap over it, and the controls that show, hide and fade all heatmaps of the page."""

from html import escape

from retrieval.reports.page import THEMES, Html, image, safe

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

# All that a style sheet cannot do: to follow the slider. Without script the slider stays away.
SCRIPT = """const slider = document.getElementById("strength");
const follow = () => document.documentElement.style.setProperty("--strength", slider.value / 100);
document.getElementById("fade").hidden = false;
slider.addEventListener("input", follow);
follow();
"""

STYLE = f"""{THEMES}
.verdict {{ margin: 0.5rem 0; font-size: 1.35rem; font-weight: 600; }}
.bar {{ position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; align-items: center; gap: 0.4rem 1.5rem;
  margin: 1.25rem 0 0; padding: 0.5rem 0; background: var(--paper); border-bottom: 1px solid var(--line); }}
.bar label {{ display: inline-flex; align-items: center; gap: 0.4rem; min-height: 1.75rem; }}
.bar label[hidden] {{ display: none; }}
.bar fieldset {{ display: flex; flex-wrap: wrap; align-items: center; gap: 0.25rem 0.75rem; margin: 0; padding: 0;
  border: 0; }}
.bar legend {{ float: left; padding: 0; margin-right: 0.75rem; color: var(--soft); }}
.bar input {{ margin: 0; accent-color: var(--link); }}
.bar input[type="range"] {{ width: 8rem; }}
.bar input:focus-visible {{ outline: 3px solid var(--link); outline-offset: 2px; }}
section {{ scroll-margin-top: 4rem; }}
.asked {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 0.5rem 2.5rem; }}
.asked.several {{ display: block; }}
.several .views {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1rem; }}
.views figure {{ margin: 0.25rem 0; }}
.asked h3 {{ margin-top: 0.25rem; }}
.several h3 {{ margin-top: 1.5rem; }}
.stack {{ position: relative; display: block; background: #000000; border-radius: 0.25rem; overflow: hidden; }}
.stack img {{ display: block; width: 100%; object-fit: contain; }}
.stack .base {{ height: auto; max-height: 44rem; }}
.stack .heat {{ position: absolute; inset: 0; height: 100%; opacity: var(--strength, 0.55); }}
:root:has(#heat:not(:checked)) .heat {{ display: none; }}
:root:has(#invert:checked) .base {{ filter: invert(1); }}
.found {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)); gap: 1rem 1.5rem;
  margin: 1rem 0; padding: 0; list-style: none; }}
.found > li {{ max-width: none; padding: 0.75rem 1rem; border: 1px solid var(--line); border-radius: 0.5rem; }}
.found h3 {{ margin: 0; overflow-wrap: anywhere; }}
.found p {{ margin: 0.25rem 0; }}
.two {{ display: grid; grid-template-columns: 1fr 1fr; gap: 0.75rem; align-items: start; }}
.two figure {{ margin: 0.5rem 0 0; }}
.two .blank {{ height: 10rem; }}
@media print {{ .bar {{ display: none; }} .found {{ grid-template-columns: 1fr 1fr; }}
  .found > li {{ break-inside: avoid; }}
  .views .base {{ max-height: 11cm; }}
  .asked {{ grid-template-columns: 1fr 1fr; }} .several .views {{ grid-template-columns: repeat(3, 1fr); }} }}
"""


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
