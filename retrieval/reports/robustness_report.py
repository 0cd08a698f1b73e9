"""How predictions hold under changes of the radiographs, as one page of HTML without any radiograph."""

from retrieval.evaluation.robustness import Robustness
from retrieval.images.corruptions import CORRUPTIONS
from retrieval.reports.robustness_chart import robustness_chart
from retrieval.reports.templating import render

__all__ = ["robustness_report"]


def robustness_report(result: Robustness) -> str:
    """The report: a picture of kappa under each change, and all figures."""
    names = dict.fromkeys(condition.corruption for condition in result.conditions if condition.corruption)
    return render(
        "robustness.html",
        title="Radiographs that were processed otherwise",
        sections=[("picture", "Kappa"), ("figures", "Figures")],
        result=result,
        plain=result.conditions[0],
        picture=robustness_chart(result.conditions).svg(),
        changes=[(name, CORRUPTIONS[name].about) for name in names],
    )
