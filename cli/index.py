"""`mura-search index`: gathers its commands, in the order in which its help lists them."""

import typer

from cli.building import build, merge
from cli.changing import add, compact, relabel, remove
from cli.telling import export, info, verify
from cli.terminal import Group

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
