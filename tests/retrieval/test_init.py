import subprocess
import sys
from importlib import import_module

import pytest

import retrieval


def test_every_name_is_that_of_its_home() -> None:
    assert list(retrieval.__all__) == sorted(retrieval.__all__)
    assert set(retrieval._HOMES) == set(retrieval.__all__) <= set(dir(retrieval))
    for name, home in retrieval._HOMES.items():
        assert getattr(retrieval, name) is getattr(import_module(f"retrieval.{home}"), name)


def test_unknown_names_are_missing() -> None:
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = retrieval.nothing_such


def test_importing_costs_nothing_and_querying_needs_no_torch() -> None:
    script = """
import sys
import retrieval
assert not {"numpy", "cv2"} & set(sys.modules), "heavy"
from retrieval import Searcher
assert not {"torch", "pandas", "sklearn", "matplotlib", "faiss", "onnxruntime", "scipy"} & set(sys.modules), "heavier"
"""
    subprocess.run([sys.executable, "-c", script], check=True)
