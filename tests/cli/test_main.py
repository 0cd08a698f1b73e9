"""The words of the command line, its versions, and its errors."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import Result

import retrieval
from index.errors import MissingExtra, MuraSearchError
from retrieval.encoding.bundle import BUNDLED, Bundle

Run = Callable[..., Result]
COMMAND = [sys.executable, "-c", "from cli.main import main; main()"]
ROOT = Path(__file__).parent.parent.parent


def test_alone_it_prints_help_with_three_examples(run: Run) -> None:
    result = run()
    assert result.exit_code == 0
    examples = result.stdout.split("Examples:")[1].splitlines()
    assert sum(line.strip().startswith("mura-search ") for line in examples) == 3
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_version(run: Run) -> None:
    """It names what is installed; that it imports none of it is held by tests/test_imports.py."""
    first, python, runtime, faiss, model = run("--version").stdout.splitlines()
    assert first == f"mura-search {retrieval.__version__}" == f"mura-search {version('mura-search')}"
    assert python == f"Python {platform.python_version()}"
    assert re.fullmatch(r"ONNX Runtime [\d.]+", runtime)
    assert re.fullmatch(r"FAISS [\d.]+(post\d+)?", faiss)
    assert model == f"bundled model {Bundle.open(BUNDLED).name}"


def test_version_without_a_runtime(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.main.installed", lambda package: None)
    assert "ONNX Runtime is not installed\nFAISS is not installed\n" in run("--version").stdout


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "--version"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.startswith("mura-search ")


@pytest.mark.parametrize("file", ["index.py", "web.py", "retrieval/__init__.py", "training.py"])
def test_a_file_that_hides_a_package_is_named(tmp_path: Path, file: str) -> None:
    hiding = tmp_path / file
    hiding.parent.mkdir(exist_ok=True)
    hiding.write_text("raise SystemExit('this was imported')")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; from cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    package = ROOT / hiding.relative_to(tmp_path).parts[0].removesuffix(".py")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {hiding} hides mura-search's package {package}. Rename it, ")
    assert done.stderr.count("\n") == 1


def test_a_script_beside_a_file_named_index_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "index.py").touch()
    (tmp_path / "script.py").write_text("from retrieval import Searcher")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert f"ImportError: {tmp_path / 'index.py'} hides mura-search's package {ROOT / 'index'}" in done.stderr


@pytest.mark.parametrize("arguments", [["x.png"], ["--k", "3", "x.png"], ["x.png", "--json"], ["--json", "x.png"]])
def test_what_is_no_command_is_a_query(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no index at ")


def test_a_mistyped_command_is_no_query(run: Run) -> None:
    result = run("indx", "build")
    assert result.exit_code == 2
    assert "Did you mean 'index'?" in result.stderr


def test_a_file_with_a_name_like_a_command_is_a_query(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "indx").touch()
    assert run("indx").stderr.startswith("error: no index at ")


@pytest.mark.parametrize(
    "arguments", [["--k", "0", "x.png"], ["--k", "many", "x.png"], ["--colour", "x.png"], ["query"], ["index", "bild"]]
)
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (MuraSearchError("the index\nis \x1b[31mred"), 1, "error: the index is \ufffd[31mred\n"),
        (PermissionError(13, "Permission denied", "model"), 1, "error: Permission denied: model\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("7 of 9 are done"), 130, "interrupted; 7 of 9 are done\n"),
    ],
)
def test_each_failure_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, line: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("retrieval.searcher.Searcher.open", fail)
    result = run("x.png")
    assert (result.exit_code, result.stderr, result.stdout) == (code, line, "")


def test_a_bug_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("retrieval.searcher.Searcher.open", fail)
    with pytest.raises(ZeroDivisionError):
        run("x.png")


def test_a_reader_that_goes_away_ends_it_quietly(place: Path) -> None:
    """As in `mura-search ... | head`: the pipe is closed before anything is written to it."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, "index", "info", "--index", place], stdout=write, stderr=subprocess.PIPE, cwd=ROOT, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def complete(words: str) -> list[str]:
    """What bash would offer for the last of the words."""
    environment = {
        "_MURA_SEARCH_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(COMMAND, env=os.environ | environment, capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.split()


def test_completion() -> None:
    assert complete("mura-search in") == ["index"]
    assert complete("mura-search index re") == ["remove", "relabel", "regions"]
    assert "--patient" in complete("mura-search x.png --")


@pytest.mark.parametrize(
    ("words", "threads"), [(["none.png"], "1"), (["index", "info", "nowhere"], "1"), (["train", "nowhere"], None)]
)
def test_all_but_learning_multiplies_on_one_thread(words: list[str], threads: str | None) -> None:
    """OpenBLAS reads how many threads to start as NumPy is imported, so it has to be said before."""
    code = (
        "import os, sys; from cli.main import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit: print(repr(os.environ.get('OPENBLAS_NUM_THREADS')))\n"
    )
    unset = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    for environment, wanted in ((unset, threads), ({**unset, "OPENBLAS_NUM_THREADS": "3"}, "3")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
        )
        assert done.stdout.splitlines()[-1] == repr(wanted)  # what the user says holds


@pytest.mark.parametrize("words", [["demo"], ["index", "build", "cases.csv"], ["index", "add", "cases.csv"]])
def test_windows_is_told_at_once_what_does_not_work_there(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Windows has no module fcntl; nothing was tried on Windows itself."""
    monkeypatch.setattr("index.lock.fcntl", None)
    result = run(*words)
    assert result.exit_code == 1
    assert result.stderr == "error: an index can be built and changed on Linux and macOS only; on Windows, use WSL\n"


def test_a_module_that_windows_lacks_is_not_offered_by_an_extra() -> None:
    assert str(MissingExtra("fcntl", "train")) == "this command needs Linux or macOS; on Windows, use WSL"
