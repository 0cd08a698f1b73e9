"""An answer as a part of the page: the verdict, two bars, the radiographs with their heatmaps, the similar studies."""

from collections.abc import Collection
from dataclasses import dataclass
from html import escape
from urllib.parse import quote, urlencode

from index.case import LABEL_NAMES, Case
from retrieval.answer import Answer, SimilarCase
from retrieval.reports.page import Html, join, label_mark, paragraph, safe, table, warnings
from web.markup import options
from web.service.question import Asked

__all__ = ["Shown", "answer_part", "comparison_part"]

_COUNTS = (5, 10, 20, 50)


@dataclass(frozen=True, slots=True)
class Shown:
    """What an answer is shown with: the name it is remembered by, what was asked, what can be filtered by.

    `report` says whether the server makes a report of an answer.
    """

    name: str
    asked: Asked
    parts: Collection[str] = ()
    views: Collection[str] = ()
    report: bool = False

    def address(self, place: str, **more: str) -> str:
        """A place below the study's own, with the filters."""
        fields = [(field, value) for field, values in self.asked.where for value in values]
        fields += [("k", str(self.asked.k)), *more.items()]
        return f"/{place.replace('STUDY', self.name)}?{urlencode(fields)}"


def answer_part(answer: Answer, shown: Shown) -> Html:
    """Everything about one answer."""
    return join(
        Html('<div id="verdict">'),
        _verdict(answer),
        Html("</div>"),
        Html('<section aria-labelledby="views-title"><h2 id="views-title">The radiograph and what decided</h2>'),
        _views(answer, shown),
        Html("</section>"),
        Html('<section id="similar" aria-labelledby="similar-title">'),
        _similar(answer, shown),
        Html("</section>"),
        Html('<div id="sources">'),
        _sources(answer, shown),
        Html("</div>"),
    )


def comparison_part(case: Case, similarity: float, number: int, shown: Shown, *, full: bool) -> Html:
    """A view and an indexed case side by side, with what makes them alike over both."""
    within = f"/api/studies/{shown.name}/views/{number}"
    case_image = f"/api/cases/{quote(case.case, safe='')}/image"
    heats = [f"{within}/likeness?{urlencode({'case': case.case, 'where': where})}" for where in ("view", "case")]
    named = f"study {case.study}"
    left = _stage(f"{within}/image", heats[0], f"Your radiograph, view {number}")
    right = _stage(case_image, heats[1], f"The indexed radiograph of {named}")
    details = ", ".join(text for text in (case.part, case.view) if text)
    small = (
        ""
        if full
        else " The indexed one is the small picture kept in the index; its heatmap is drawn from that, and may differ "
        "from that of the full radiograph."
    )
    return join(
        Html(f'<h2 id="comparison-title" tabindex="-1">View {number} beside {safe(named)}</h2>'),
        Html(
            f"<p>Labelled {label_mark(case.label_name)}{safe(f' ({details})' if details else '')}; similarity "
            f"{similarity:.3f}. Bright colours show what makes the two alike.{small}</p>"
        ),
        Html(f'<div class="stages" data-linked data-viewer>{left}{right}</div>'),
        _tools("comparison", targets=False),
    )


def _verdict(answer: Answer) -> Html:
    classifier, vote, familiarity = answer.classifier, answer.knn, answer.familiarity
    called = LABEL_NAMES[classifier.abnormal]
    if answer.agreement is None:
        headline = f"{label_mark(called)}, by the classifier alone"
        agreement = "Nothing could vote, so there is nothing to compare the classifier with."
    elif answer.agreement:
        headline = f"{label_mark(called)}: classifier and similar studies agree"
        agreement = "The classifier and the vote of the most similar studies come to the same."
    else:
        headline = "Undecided: classifier and similar studies disagree"
        agreement = (
            f"The classifier says {called}, the vote of the most similar studies says "
            f"{LABEL_NAMES[bool(vote.abnormal)]}. Look at the similar studies yourself."
        )
    if familiarity.similarity is None:
        known = "Nothing in the index can be compared with this study."
    elif familiarity.familiar:
        known = (
            f"The index holds radiographs like this one: similarity {familiarity.similarity:.3f}, "
            f"at least {familiarity.limit:.3f} being familiar."
        )
    else:
        known = f"Do not rely on what follows: {'; '.join(familiarity.reasons)}."
    first, last = Html(""), paragraph(known)
    if familiarity.familiar is False:
        first = join(paragraph(known, "warning"), Html(f"<p><b>{headline}</b></p>"))
        headline, last = "Unfamiliar: unlike what is indexed", Html("")
    return join(
        Html(f'<h2 id="verdict-title" tabindex="-1" class="verdict">{headline}</h2>'),
        first,
        warnings([text + ("" if text.endswith(".") else ".") for text in answer.warnings]),
        Html('<div class="scores">'),
        _bar("Classifier", "classifier", classifier.probability, classifier.threshold),
        _bar(f"Vote of the {vote.k} most similar studies", "vote", vote.probability, vote.threshold),
        Html("</div>"),
        paragraph(agreement),
        last,
        _each_view(answer),
    )


def _bar(name: str, kind: str, probability: float | None, threshold: float) -> Html:
    if probability is None:
        return Html(f'<div class="score"><p><b>{safe(name)}</b> could not be asked</p></div>')
    called = label_mark(LABEL_NAMES[probability > threshold])
    words = f"{name}: probability of abnormality {probability:.2f}, called abnormal above {threshold:.2f}"
    return Html(
        f'<div class="score"><p><span>{safe(name)}</span> <b>{probability:.2f}</b> {called}</p>'
        f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{escape(words)}">'
        f'<rect class="ground" width="100" height="10"/><rect class="{kind}" y="1.5" height="7" '
        f'width="{100 * probability:.2f}"/><rect class="threshold" x="{100 * threshold - 0.25:.2f}" width="0.5" '
        f'height="10"/></svg><p class="quiet">Abnormality, 0 to 1; threshold {threshold:.2f}</p></div>'
    )


def _each_view(answer: Answer) -> Html:
    if answer.query.views < 2:
        return Html("")

    def number(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    rows = [
        (f"{n} {view.file}", f"{view.classifier:.2f}", number(view.knn, 2), number(view.similarity, 3))
        for n, view in enumerate(answer.views, start=1)
    ]
    return table("Each view by itself", ("view", "classifier", "vote", "similarity"), rows)


def _views(answer: Answer, shown: Shown) -> Html:
    if not shown.name:
        return paragraph("Heatmaps were not asked for.", "quiet")
    stages = []
    for number, view in enumerate(answer.views, start=1):
        place = f"/api/studies/{shown.name}/views/{number}"
        stages.append(_stage(f"{place}/image", f"{place}/heatmap?target=abnormal", f"View {number}: {view.file}"))
    return join(
        Html(f'<div class="stages" data-viewer>{"".join(stages)}</div>'),
        _tools("query", targets=True),
        paragraph(
            "Colours show where what speaks for the chosen side lies, whatever the verdict. They outline no lesion.",
            "quiet",
        ),
    )


def _stage(image: str, heat: str, name: str) -> Html:
    keys = "Arrow keys move it, plus and minus zoom, 0 fits it."
    return Html(
        f'<figure><div class="stage" tabindex="0" role="group" aria-label="{escape(name)}. {keys}"><div class="layer">'
        f'<img class="radiograph" draggable="false" src="{escape(image)}" alt="{escape(name)}">'
        f'<img class="heat" draggable="false" src="{escape(heat)}" alt="Heatmap"></div>'
        f'<p class="drawing" role="status">Drawing the heatmap.</p></div><figcaption>{safe(name)}</figcaption></figure>'
    )


def _tools(name: str, *, targets: bool) -> Html:
    side = (
        f'<label>Shows what speaks for <select data-tool="target">'
        f"{options([('abnormal', 'abnormal'), ('normal', 'normal')], 'abnormal')}</select></label>"
        if targets
        else ""
    )
    return Html(
        f'<div class="tools" role="group" aria-label="How the pictures are shown" data-for="{name}">'
        f'<label><input type="checkbox" data-tool="show" checked> Heatmap</label>'
        f'<label>Opacity <input type="range" data-tool="opacity" min="0" max="100" value="60"></label>{side}'
        f'<label>Window <input type="range" data-tool="window" min="5" max="200" value="100"></label>'
        f'<label>Level <input type="range" data-tool="level" min="5" max="95" value="50"></label>'
        f'<label>Dragging <select data-tool="drag">'
        f"{options([('pan', 'moves'), ('window', 'sets window and level')], 'pan')}</select></label>"
        f'<span class="buttons"><button type="button" class="plain" data-tool="in" aria-label="Zoom in">+</button>'
        f'<button type="button" class="plain" data-tool="out" aria-label="Zoom out">\u2212</button>'
        f'<button type="button" class="plain" data-tool="reset">Reset</button></span></div>'
    )


def _similar(answer: Answer, shown: Shown) -> Html:
    cards = "".join(_card(case, shown) for case in answer.cases)
    found = Html(f'<ol class="gallery">{cards}</ol>') if cards else paragraph("No indexed study fits the filters.")
    return join(Html('<h2 id="similar-title">The most similar studies</h2>'), _filters(shown), found)


def _card(case: SimilarCase, shown: Shown) -> Html:
    picture = f"/api/cases/{quote(case.case, safe='')}/image?small=true"
    weight = f"{case.weight:.0%} of the vote" if case.weight else "does not vote"
    details = ", ".join(text for text in (case.part, case.view) if text)
    inner = (
        f'<img src="{escape(picture)}" alt=""><span>{label_mark(case.label)}</span>'
        f"<span>similarity {case.similarity:.3f}</span><span>{weight}</span>"
        f'{f"<span>{safe(details)}</span>" if details else ""}<span class="quiet">{safe(case.study)}</span>'
    )
    if not shown.name:
        return Html(f'<li><span class="card">{inner}</span></li>')
    address = shown.address("studies/STUDY/compare", case=case.case)
    return Html(f'<li><a class="card" data-compare href="{escape(address)}">{inner}</a></li>')


def _filters(shown: Shown) -> Html:
    if not shown.name:
        return Html("")
    chosen = {field: values[0] for field, values in shown.asked.where}
    choices = {
        "part": [("", "any part"), *((value, value) for value in shown.parts if value)],
        "view": [("", "any view"), *((value, value) for value in shown.views if value)],
        "label": [("", "any label"), *((value, value) for value in LABEL_NAMES)],
    }
    counts = sorted({*_COUNTS, shown.asked.k})
    selects = [
        f'<label>{name.capitalize()} <select id="filter-{name}" name="{name}">'
        f"{options(values, chosen.get(name, ''))}</select></label>"
        for name, values in choices.items()
        if len(values) > 2 or name in chosen
    ]
    selects.append(
        f'<label>Show <select id="filter-k" name="k">{options([(str(n), str(n)) for n in counts], str(shown.asked.k))}'
        "</select></label>"
    )
    return Html(
        f'<form class="filters" method="get" action="/studies/{shown.name}" aria-describedby="filters-help">'
        f'{"".join(selects)}<button class="plain">Apply</button></form>'
        '<p id="filters-help" class="quiet">Part and view also choose who votes; the label only what is shown.</p>'
    )


def _sources(answer: Answer, shown: Shown) -> Html:
    links = []
    if shown.report:
        links.append(
            f'<a class="button plain" href="{escape(shown.address("studies/STUDY/report"))}">Report (HTML)</a>'
        )
    if shown.name:
        address = shown.address("api/studies/STUDY", download="1")
        links.append(f'<a class="button plain" href="{escape(address)}" download>Answer (JSON)</a>')
    model, index = answer.model, answer.index
    told = (
        f"Model {model.name} ({model.sha256[:8]}); index of {index.cases:,} radiographs, "
        f"{index.studies:,} studies; answered in {answer.seconds.total:.2f} s."
    )
    return join(Html(f'<p class="downloads">{" ".join(links)}</p>'), paragraph(told, "quiet"))
