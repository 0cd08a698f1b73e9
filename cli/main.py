"""The `mura-search` command: gathers the commands, and turns what goes wrong into one line and an exit code."""

import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cli.audit import audit
from cli.console import Group, note
from cli.demo import demo
from cli.dicomweb import dicomweb
from cli.evaluate import evaluate
from cli.experiment import experiment
from cli.index import index
from cli.phantom import phantom
from cli.query import query
from cli.scp import scp
from cli.serve import serve
from cli.train import train
from cli.worklist import worklist
from index.errors import MuraSearchError

__all__ = ["app", "main"]

EXAMPLES = """
Examples:

\b
  mura-search demo                                   try it, without data
  mura-search index build MURA-v1.1 --split train    index labelled studies
  mura-search pa.png lateral.png                     ask about a study

Not a medical device: research and teaching only.
"""


# What all others multiply with NumPy is small. OpenBLAS's threads would wait busily for the next product, and take
# the cores from the encoder: a heatmap takes twice as long with them (docs/heatmap.md), an index a quarter longer.
LEARNING = ("train", "experiment")


class Commands(Group):
    """A first word that is neither a command nor an option of `mura-search` itself is something to query."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and self.is_query(ctx, args[0]):
            args = ["query", *args]
        if args and args[0] not in LEARNING:
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported
        return super().parse_args(ctx, args)

    def is_query(self, ctx: Any, word: str) -> bool:
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if word in self.commands or word.partition("=")[0] in own:
            return False
        # A mistyped command is left to Typer, which suggests the right one.
        return word.startswith("-") or not get_close_matches(word, self.commands) or Path(word).exists()

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # a reader that has gone away is noticed here, not while the interpreter shuts down
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
    """Say what went wrong in one line on stderr and leave with `code`."""
    note(" ".join(message.split()))
    raise typer.Exit(code)


# Rich would draw boxes around the help, and would take longer to import than everything else that --help needs.
app = typer.Typer(
    cls=Commands,
    name="mura-search",
    epilog=EXAMPLES,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(short_help="Ask about a study.")(query)
app.command(short_help="Try everything on synthetic radiographs.")(demo)
app.command(short_help="Serve the page to ask on, and the HTTP API.")(serve)
app.add_typer(index, short_help="Build, change and check an index of labelled studies.")
app.command(short_help="Rank the studies of a folder for reading.")(worklist)
app.command(short_help="Measure how well an index reads new patients.")(evaluate)
app.command(short_help="Train a model on labelled radiographs.")(train)
app.command(short_help="Train and compare a grid of models.")(experiment)
app.command(short_help="Check a collection of labelled radiographs.")(audit)
app.command(short_help="Draw synthetic radiographs.")(phantom)
app.command(short_help="Ask about a study of an archive, by DICOMweb.")(dicomweb)
app.command(short_help="Answer for studies that are sent by DICOM.")(scp)


def print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print("mura-search", version("mura-search"))
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Reads a radiograph and answers with a diagnosis and its evidence.

    The evidence: the probability of abnormality by a learned classifier, the vote of the most similar labelled
    studies, and those studies. `mura-search FILE...` is short for `mura-search query FILE...`.
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def main() -> None:
    app(prog_name="mura-search")
