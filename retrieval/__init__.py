"""A radiograph becomes an answer.

>>> from retrieval import Searcher
>>> with Searcher.open("my-index") as searcher:                       # doctest: +SKIP
...     print(searcher.search("wrist.png").classifier.probability)
0.83
"""

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.analysis.index_table import IndexTable
    from retrieval.analysis.vote_classifier import VoteClassifier
    from retrieval.answer import Answer
    from retrieval.datasets.collection import Collection, read_collection
    from retrieval.decision.rules import Rules
    from retrieval.encoding.encoder import Encoder
    from retrieval.evaluation.evaluate import Evaluation, evaluate
    from retrieval.explain.rendering import overlay
    from retrieval.explain.smooth_grad_cam import Heatmap, Smoothing, explain_class, explain_similarity
    from retrieval.images.radiograph import Radiograph, read_radiograph
    from retrieval.indexing.build import BuildOptions, BuildReport, build_index
    from retrieval.searcher import Searcher, default_index

__all__ = [
    "Answer",
    "BuildOptions",
    "BuildReport",
    "Collection",
    "Encoder",
    "Evaluation",
    "Heatmap",
    "IndexTable",
    "Radiograph",
    "Rules",
    "Searcher",
    "Smoothing",
    "VoteClassifier",
    "build_index",
    "default_index",
    "evaluate",
    "explain_class",
    "explain_similarity",
    "overlay",
    "read_collection",
    "read_radiograph",
]

# ONNX Runtime reads this once, when it is imported: it then sends no events to its maker and leaves no file behind.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# The client of Hugging Face, from which training may fetch weights, then says nothing of this machine.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# OpenCV reads this once, when it is imported: whatever a file's header hides from ours, no more pixels are decoded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "64000000")  # `retrieval.images.radiograph.MAX_PIXELS`

# A name is imported when it is first asked for (PEP 562), so that `import retrieval` costs nothing.
_HOMES = {
    "Answer": "answer",
    "BuildOptions": "indexing.build",
    "BuildReport": "indexing.build",
    "Collection": "datasets.collection",
    "Encoder": "encoding.encoder",
    "Evaluation": "evaluation.evaluate",
    "Heatmap": "explain.smooth_grad_cam",
    "IndexTable": "analysis.index_table",
    "Radiograph": "images.radiograph",
    "Rules": "decision.rules",
    "Searcher": "searcher",
    "Smoothing": "explain.smooth_grad_cam",
    "VoteClassifier": "analysis.vote_classifier",
    "build_index": "indexing.build",
    "default_index": "searcher",
    "evaluate": "evaluation.evaluate",
    "explain_class": "explain.smooth_grad_cam",
    "explain_similarity": "explain.smooth_grad_cam",
    "overlay": "explain.rendering",
    "read_collection": "datasets.collection",
    "read_radiograph": "images.radiograph",
}


_index, _own_index = find_spec("index"), Path(__file__).resolve().parent.parent / "index"
if _index and _index.origin and Path(_index.origin).resolve().parent != _own_index:
    raise ImportError(f"{_index.origin} hides mura-search's package {_own_index}; rename that file")


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("mura-search")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
