"""The documentation against the code: its examples run, its lists are complete, its links lead somewhere."""

import ast
import doctest
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cli.main import app
from retrieval.encoding.bundle import BUNDLED, Bundle

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md"), ROOT / "retrieval" / "model" / "README.md"])
PRODUCT = ("retrieval", "index", "training", "web", "cli")
# Python's and the shell's own, which only say where a user's folders are or what kind of terminal there is.
SYSTEM = {"HOME", "NO_COLOR", "PATH", "TERM"}


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(DOCS / "python.md"), module_relative=False)
    assert failed == 0
    assert tried > 30


def test_every_environment_variable_is_documented() -> None:
    used = {name for package in PRODUCT for file in (ROOT / package).rglob("*.py") for name in variables(file)}
    section = (DOCS / "reference.md").read_text(encoding="utf-8").split("## Environment variables")[1].split("\n## ")[0]
    listed = {name for line in section.splitlines() for name in re.findall(r"`([A-Z][A-Z_]+)`", line.split(" | ")[0])}
    assert used - SYSTEM == listed


def variables(file: Path) -> Iterator[str]:
    """The names in capitals that a file passes to os.environ, to Typer as envvar, or keeps as a constant for that."""
    text = file.read_text(encoding="utf-8")
    if "environ" not in text and "envvar" not in text and "MURA_SEARCH_" not in text:
        return
    for node in ast.walk(ast.parse(text)):
        literals: list[ast.expr] = []
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
            literals = [node.slice]
        elif isinstance(node, ast.Call) and re.search(r"environ\.\w+$|getenv$", ast.unparse(node.func)):
            literals = node.args[:1]
        elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]).endswith("environ"):
            literals = [node.left]
        elif isinstance(node, ast.Assign) or (isinstance(node, ast.keyword) and node.arg == "envvar"):
            literals = [node.value]
        for literal in literals:
            if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                own = literal.value.startswith("MURA_SEARCH_")
                if re.fullmatch(r"[A-Z][A-Z_]+", literal.value) and (own or not isinstance(node, ast.Assign)):
                    yield literal.value


def commands(command: Any, name: str) -> Iterator[tuple[str, set[str]]]:
    if hasattr(command, "commands"):
        for word, inner in command.commands.items():
            yield from commands(inner, f"{name} {word}")
    else:
        options = (parameter for parameter in command.params if parameter.param_type_name == "option")
        yield name, {max(option.opts, key=len) for option in options}


def test_every_command_and_option_is_documented() -> None:
    section = (DOCS / "reference.md").read_text(encoding="utf-8").split("## Commands")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `mura-search ")]
    listed = {row[0].strip("| `"): set(re.findall(r"`(--[a-z-]+)`", row[-1])) for row in rows}
    assert listed == dict(commands(get_command(app), "mura-search"))


def test_every_json_schema_is_documented() -> None:
    sources = (file.read_text(encoding="utf-8") for package in PRODUCT for file in (ROOT / package).rglob("*.py"))
    used = {schema for text in sources for schema in re.findall(r"mura-search/([a-z-]+/\d)\b", text)} - {"model/1"}
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert used == set(re.findall(r"`(?:mura-search/)?([a-z-]+/\d)`", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    folders = "|".join((*PRODUCT, "tests", "benchmarks", "experiments", "docs"))
    named = re.findall(rf"\b((?:{folders})/[\w/.-]+\.(?:py|md|toml|csv|json|svg))\b", text)
    if page.name != "CHANGELOG.md":
        assert [file for file in named if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("name", ["answer.svg", "terminal.svg"])
def test_a_recorded_answer_can_be_shown_and_is_of_the_bundled_model(name: str) -> None:
    text = "".join(ET.parse(DOCS / name).getroot().itertext()).replace("\xa0", " ")
    bundle = Bundle.open(BUNDLED)
    assert f"Model {bundle.name} ({bundle.sha256[:8]})" in text
    assert "(missing)" not in text


def test_the_index_leads_to_every_page() -> None:
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {page.name for page in DOCS.glob("*.md")} - {"index.md"}
    assert pages <= set(re.findall(r"\]\(([\w.]+)\)", text))


def test_the_experiments_that_docs_name_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"-m (experiments\.\w+)", page.read_text(encoding="utf-8")):
            assert (ROOT / f"{name.replace('.', '/')}.py").is_file(), f"{page.name} names {name}"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110
