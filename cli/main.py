"""The `mura-search` command: gathers the commands, and turns an error into one line and an exit code."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import retrieval
from cli.commands import Group, add_command, examples
from cli.console import note
from index.errors import MuraSearchError
from retrieval.wording import DISCLAIMER

__all__ = ["app", "main"]

# The other commands multiply only small matrices. OpenBLAS's threads would wait busily for the next product, and take
# the cores from the encoder: a heatmap takes twice as long with them (docs/heatmap.md), an index a quarter longer.
LEARNING = ("train", "experiment")
# What each command is for, and examples. Its module is imported when it is used, so that a query starts at once.
COMMANDS = {
    "query": ("Ask about a study.", "pa.png lateral.png", "study/ --heatmap heatmap.png --report answer.html"),
    "demo": ("Try everything on synthetic radiographs.", "demo", "demo --keep demo --serve"),
    "serve": (
        "Serve the page to ask on, and the HTTP API.",
        "serve --open",
        "serve --host 0.0.0.0 --token-file token.txt",
    ),
    "worklist": (
        "Rank the studies of a folder for reading.",
        "worklist inbox --html list.html",
        "worklist inbox --watch",
    ),
    "label": (
        "Say which unlabelled studies to label first.",
        "label inbox --csv to-label.csv",
    ),
    "evaluate": (
        "Measure how well an index predicts on new patients.",
        "evaluate MURA-v1.1 --split valid --html report.html",
    ),
    "drift": ("See whether scores differ from those of the index.", "drift inbox", "drift inbox --csv drift.csv"),
    "train": ("Train a model on labelled radiographs.", "train MURA-v1.1 --out run --dry-run"),
    "experiment": ("Train and compare a grid of models.", "experiment report MURA-v1.1 --out runs"),
    "audit": ("Check a collection of labelled radiographs.", "audit MURA-v1.1 --deep --sheet findings.html"),
    "phantom": ("Draw synthetic radiographs.", "phantom synthetic --patients 200"),
    "dicomweb": ("Ask about a study of an archive, by DICOMweb.", "dicomweb https://HOST/dicom-web --study 1.2.3.4"),
    "scp": ("Answer for studies that are sent by DICOM.", "scp --spool spool --send-to PACS@10.1.0.2:104"),
    "index": ("Build, change and check an index of labelled studies.",),
}


class Loaded(Mapping[str, Any]):
    """The commands by name, each imported when it is asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS

    def __getitem__(self, name: str) -> Any:
        short_help, *lines = COMMANDS[name]
        command = getattr(import_module(f"cli.{name}"), name)
        if isinstance(command, typer.Typer):
            group = typer.main.get_group(command)
            group.short_help = short_help
            return group
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        add_command(app, command, short_help, *lines)
        return typer.main.get_command(app)


class Commands(Group):
    """Unless the first word is a command or an option of `mura-search` itself, the words are a query."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = Loaded()  # type: ignore[assignment]  # nobody adds to it

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and self.is_query(ctx, args[0]):
            args = ["query", *args]
        if args and args[0] not in LEARNING:
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported
        return super().parse_args(ctx, args)

    def is_query(self, ctx: Any, word: str) -> bool:
        options = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if word in self.commands or word.partition("=")[0] in options:
            return False
        # A mistyped command is left to Typer, which suggests the right one.
        return word.startswith("-") or not get_close_matches(word, self.commands) or Path(word).exists()

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # raises BrokenPipeError here, not while the interpreter shuts down
        except KeyboardInterrupt as interrupt:
            stop("; ".join(["interrupted", *map(str, interrupt.args)]), code=130)
        except MuraSearchError as error:
            stop(f"error: {error}")
        except BrokenPipeError:
            raise  # Typer's to handle: `mura-search ... | head` ends quietly
        except OSError as error:
            stop(f"error: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return result


def stop(message: str, code: int = 1) -> NoReturn:
    """Print the message as one line on stderr and exit with `code`."""
    note(" ".join(message.split()))
    raise typer.Exit(code)


# Rich would draw boxes around the help, and would take longer to import than everything else that --help needs.
app = typer.Typer(
    cls=Commands,
    name="mura-search",
    epilog=examples(
        "demo                                   try it, without data",
        "index build MURA-v1.1 --split train    index labelled studies",
        "pa.png lateral.png                     ask about a study",
    )
    + f"\n\n{DISCLAIMER}",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def versions() -> Iterator[str]:
    """What a bug report needs, one line each. Nothing of it is imported."""
    yield f"mura-search {retrieval.__version__}"
    yield f"Python {sys.version.split()[0]}"
    for name, packages in (("ONNX Runtime", ("onnxruntime", "onnxruntime-gpu")), ("FAISS", ("faiss-cpu", "faiss-gpu"))):
        yield f"{name} {next(filter(None, map(installed, packages)), 'is not installed')}"
    about = json.loads((Path(retrieval.__file__).parent / "model" / "model.json").read_bytes())
    yield f"bundled model {about['name']}"


def installed(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def print_version(wanted: bool) -> None:
    if wanted:
        print(*versions(), sep="\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the versions and exit.")
    ] = False,
) -> None:
    """Reads a radiograph and answers with a diagnosis and its evidence.

    The evidence is the classifier's probability of abnormality, the vote of the most similar labelled studies, and
    these studies. `mura-search FILE...` is short for `mura-search query FILE...`.
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def main() -> None:
    app(prog_name="mura-search")
