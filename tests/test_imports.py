"""Imports point one way, each library has its room, and what does not need a library does not wait for it."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("retrieval", "index", "training", "cli", "web")

# Each package and those of ours that it may import.
MAY_IMPORT = {
    "index": set(),
    "retrieval": {"index"},
    "training": {"index", "retrieval"},
    "cli": {"index", "retrieval", "training", "web"},
    "web": {"index", "retrieval", "training"},
}
# The order of the modules and sub-packages of each package: each imports only what stands before it, or its own.
ORDER = {
    "index": (
        "case errors closing atomic checksums lock sqlite vectors milvus generation vector_update filed integrity hits "
        "opening reader frozen merge writer filing builder export"
    ),
    "retrieval": (
        "errors notices wording formats images encoding decision datasets answer query explain query_checks scores "
        "searcher search_by analysis indexing dicom audit evaluation worklist reports synthetic"
    ),
    "training": "errors recipe types distributed signals data model export loop experiments",
    "web": "errors settings models metrics responses connections security service routes app server",
}
# Each library and the packages that import it.
ROOMS = {
    **dict.fromkeys(("torch", "torchvision", "timm", "onnx", "pickle"), ("training",)),  # pickle: its error, no more
    **dict.fromkeys(("sqlite3", "faiss", "pymilvus", "pyarrow", "tenacity"), ("index",)),
    **dict.fromkeys(("pydicom", "highdicom", "dicomweb_client", "requests", "urllib3", "pynetdicom"), ("retrieval",)),
    **dict.fromkeys(("jinja2", "pandas", "sklearn"), ("retrieval",)),
    **dict.fromkeys(("typer", "rich"), ("cli",)),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "prometheus_client"), ("web",)),
    "pydantic": ("training", "web"),
}
ONE_FILE = ("faiss", "jinja2", "pandas", "pyarrow", "pymilvus", "tenacity")
# What reads DICOM, and what writes it: each a file with a reason, and none that a query of a PNG imports.
DICOM_FILES = {
    "retrieval/images/dicom_reader.py": {"pydicom"},
    "retrieval/dicom/source_instances.py": {"pydicom"},
    "retrieval/dicom/structured_report.py": {"pydicom", "highdicom"},
    "retrieval/dicom/secondary_capture.py": {"pydicom", "highdicom"},
    "retrieval/dicom/results.py": {"pydicom"},
    "retrieval/dicom/dicomweb.py": {"dicomweb_client", "requests", "urllib3"},
    "retrieval/dicom/storage_scp.py": {"pynetdicom"},
    "retrieval/dicom/storage_scu.py": {"pynetdicom"},
}
DICOM = set().union(*DICOM_FILES.values())
NOWHERE = ("matplotlib", "scipy")
HEAVY = ("torch", "torchvision", "pandas", "sklearn", "matplotlib", "scipy")

WEB = ("fastapi", "uvicorn", "starlette")


def imports_of(source: str) -> Iterator[str]:
    """Every module that a source imports, at whatever depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def broken_rules(files: dict[str, str]) -> list[str]:
    """What the sources of files, by their path from the root, do that the rules above do not allow."""
    broken = []
    homes: dict[str, list[str]] = {}
    for path, source in files.items():
        package = path.split("/", maxsplit=1)[0]
        for module in imports_of(source):
            name = module.split(".")[0]
            if name in PACKAGES and name != package and name not in MAY_IMPORT[package]:
                broken.append(f"{path}: {package} may not import {module}")
            if name == "":
                broken.append(f"{path}: {module} is relative; write it out")
            if name in NOWHERE or package not in ROOMS.get(name, (package,)):
                broken.append(f"{path}: {name} belongs to {ROOMS.get(name, 'no package')}")
            if name in DICOM and name not in DICOM_FILES.get(path, set()) and package == "retrieval":
                broken.append(f"{path}: {name} is for {sorted(DICOM_FILES)}")
            if name in ONE_FILE and path not in homes.setdefault(name, []):
                homes[name].append(path)
    broken += [f"{name} is imported in {len(paths)} files: {paths}" for name, paths in homes.items() if len(paths) > 1]
    return broken


def run_time_imports(source: str) -> Iterator[str]:
    """The modules that a source imports when it runs, so without those that only its type hints need."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    yield from imports_of(ast.unparse(tree))


def out_of_order(files: dict[str, str]) -> list[str]:
    """The imports that run against `ORDER`, and the cycles of modules, of the sources by their path from the root."""
    broken = []
    modules: dict[str, set[str]] = {}
    for path, source in files.items():
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        package, _, inside = module.partition(".")
        own = [name for name in run_time_imports(source) if name.split(".")[0] == package and name != package]
        if not inside or package not in ORDER:
            continue
        modules[module] = set(own)
        order = ORDER[package].split()
        unit = inside.split(".")[0]
        if unit not in order:
            broken.append(f"{path}: {unit} is not in the order of {package}")
            continue
        for name in own:
            target = name.split(".")[1]
            if target not in order[: order.index(unit) + 1]:
                broken.append(f"{path}: {unit} may not import {name}")
    try:
        graphlib.TopologicalSorter(modules).prepare()
    except graphlib.CycleError as error:
        broken.append(f"a cycle of imports: {' -> '.join(error.args[1])}")
    return broken


def sources() -> dict[str, str]:
    return {
        file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*.py"))
    }


def test_every_file_keeps_the_rules() -> None:
    files = sources()
    assert len(files) > 30
    assert broken_rules(files) == []


def test_imports_follow_the_order_of_the_sub_packages() -> None:
    assert out_of_order(sources()) == []


@pytest.mark.parametrize(
    "files",
    [
        {"index/sqlite/a.py": "from index.vectors.base import Demand"},
        {"retrieval/images/a.py": "def late():\n    import retrieval.searcher"},
        {"retrieval/strange/a.py": ""},
        {"retrieval/images/a.py": "import retrieval.images.b", "retrieval/images/b.py": "import retrieval.images.a"},
    ],
)
def test_an_import_against_the_order_is_noticed(files: dict[str, str]) -> None:
    assert len(out_of_order(files)) == 1


@pytest.mark.parametrize(
    "files",
    [
        {"retrieval/a.py": "import torch"},
        {"retrieval/a.py": "def late():\n    from torch.nn import functional"},
        {"retrieval/a.py": "from training.loop.run import train"},
        {"index/a.py": "from retrieval.decision.vote import Neighbour"},
        {"training/a.py": "import cli.main"},
        {"index/a.py": "from typer import Option"},
        {"index/a.py": "import faiss", "index/b.py": "import faiss"},
        {"retrieval/a.py": "import scipy"},
        {"retrieval/a.py": "import pydicom"},
        {"retrieval/images/dicom_reader.py": "import highdicom"},
        {"cli/a.py": "from pydicom import Dataset"},
        {"cli/a.py": "from . import main"},
        {"cli/a.py": "import sqlite3"},
    ],
)
def test_a_broken_rule_is_noticed(files: dict[str, str]) -> None:
    assert len(broken_rules(files)) == 1


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a process has imported when `mura-search ARGUMENTS` is done."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    modules = set(done.stderr.split("\n")[-2].split())
    assert "typer" in modules
    return modules


def packages(modules: set[str]) -> set[str]:
    """Those of others, without the standard library's."""
    return {module.partition(".")[0] for module in modules} - {*PACKAGES, *sys.stdlib_module_names}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--version"],
        ["--help"],
        ["query", "--help"],
        ["index", "build", "-h"],
        ["train", "--help"],
        ["serve", "--help"],
    ],
)
def test_help_waits_for_nothing_but_typer(arguments: list[str]) -> None:
    command = [sys.executable, "-c", "import sys, typer; print(*sys.modules)"]
    typer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    modules = loaded_by(*arguments)
    assert packages(modules) <= packages(set(typer.split()))
    assert not modules & {*HEAVY, "numpy", "cv2", "faiss", "onnxruntime", "rich", "sqlite3", *DICOM, *WEB}


def test_a_query_of_a_png_imports_no_dicom() -> None:
    script = "import sys\nimport retrieval.searcher, cli.query, cli.render_answer\nprint(*sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    modules = set(done.stdout.split())
    assert "retrieval.images.radiograph" in modules
    assert not modules & {*DICOM, *HEAVY, *(path.replace("/", ".").removesuffix(".py") for path in DICOM_FILES)}
