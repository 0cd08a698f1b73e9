"""`mura-search index`: gathers its commands, in the order in which its help lists them."""

import typer

from cli.console import Group
from cli.index_build import build, merge
from cli.index_inspect import export, info, verify
from cli.index_update import add, compact, relabel, remove

__all__ = ["index"]

index = typer.Typer(
    cls=Group,
    name="index",
    help="Build an index of labelled studies, change it, check it, or see what it holds.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
for command in (build, add, remove, relabel, merge, verify, compact, export, info):
    index.command()(command)
