"""Every command: its help, its size, and how its options become dataclasses."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner, Result

from cli.commands import expand
from cli.main import app

Run = Callable[..., Result]
# What Typer shows for an option or argument without a metavar.
RAW_TYPE = re.compile(r"<[\w\[\]| ]+>|\b(TEXT|INTEGER|FLOAT|PATH|RANGE)\b(?! {2,})|list\[")


def commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, *words, name)
        else:
            yield (*words, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_all_commands_are_walked() -> None:
    assert len(COMMANDS) == 32


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_help_page_has_examples_and_no_python_types(run: Run, words: tuple[str, ...]) -> None:
    text = run(*words, "--help").stdout
    page, _, ending = text.partition("Example")
    lines = [line for line in ending.splitlines() if line.startswith("    mura-search ")]
    assert len(lines) in {1, 2}
    own = " ".join(words)
    assert any(line.startswith(f"    mura-search {own}") or own == "query" for line in lines)
    assert not RAW_TYPE.search(page)
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_example_names_options_that_exist(run: Run, words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert set(re.findall(r"--[\w-]+", command.epilog)) <= known


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_function_is_large(words: tuple[str, ...]) -> None:
    function = inspect.unwrap(COMMANDS[words].callback)
    assert len(inspect.signature(function).parameters) <= 15
    assert len(inspect.getsourcelines(function)[0]) <= 60


def test_raw_types_are_recognised() -> None:
    """The search above finds what Typer shows by default."""
    plain = typer.Typer(rich_markup_mode=None)

    @plain.command()
    def command(files: list[str], size: int = 1) -> None: ...

    assert len(RAW_TYPE.findall(CliRunner().invoke(plain, ["--help"]).stdout)) >= 2


@dataclass(frozen=True)
class Base:
    size: Annotated[int, typer.Option(metavar="N")]
    names: Annotated[list[str] | None, typer.Option("--name", metavar="NAME")] = None


@dataclass(frozen=True)
class Options(Base):
    deep: Annotated[bool, typer.Option("--deep")] = False


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a", "--size", "3"], ("a", Options(3), 1.0)),
        (["a", "--name", "x", "--size", "3", "--name", "y", "--deep"], ("a", Options(3, ["x", "y"], True), 1.0)),
        (["a", "--size", "0", "--share", "0.5"], ("a", Options(0), 0.5)),
    ],
)
def test_a_dataclass_becomes_options(arguments: list[str], expected: tuple[object, ...]) -> None:
    received: list[tuple[object, ...]] = []

    def command(file: Annotated[str, typer.Argument()], options: Options, share: float = 1.0) -> None:
        received.append((file, options, share))

    plain = typer.Typer()
    plain.command()(expand(command))
    assert CliRunner().invoke(plain, arguments).exit_code == 0
    assert received == [expected]


def test_a_field_without_a_default_is_required() -> None:
    def command(options: Options) -> None: ...

    plain = typer.Typer(rich_markup_mode=None)
    plain.command()(expand(command))
    result = CliRunner().invoke(plain, [])
    assert (result.exit_code, "--size" in result.stderr) == (2, True)


def test_an_option_name_that_is_used_twice_is_a_bug() -> None:
    def command(options: Options, size: int = 1) -> None: ...

    with pytest.raises(ValueError, match="size"):
        expand(command)


def test_paths_and_texts_are_read_without_pydantic() -> None:
    script = (
        "import sys\n"
        "from cli.main import Loaded\n"
        "query = Loaded()['query']\n"
        "words = ['pa.png', 'lateral.png', '--index', 'hands', '--part', 'hand', '--part', 'wrist', '--json']\n"
        "given = query.make_context('query', words).params\n"
        "assert 'pydantic' not in sys.modules\n"
        "print(given['files'], given['index'], given['part'], given['as_json'], given['patient'], given['k'])\n"
        "print(query.make_context('query', ['pa.png', '--k', '7']).params['k'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{[Path('pa.png'), Path('lateral.png')]} hands ['hand', 'wrist'] True None 5",
        "7",
    ]
