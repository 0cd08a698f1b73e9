"""`mura-search index`: gathers its commands, in the order in which its help lists them."""

import typer

from cli.commands import Group, add_command
from cli.index_build import build, import_, merge
from cli.index_calibrate import calibrate
from cli.index_filing import filed, relabel, set_aside, undo
from cli.index_inspect import export, info, list_, show, verify
from cli.index_project import project
from cli.index_regions import regions
from cli.index_update import add, compact, remove, update

__all__ = ["index"]

index = typer.Typer(
    cls=Group,
    name="index",
    help="Build an index of labelled studies, change it, check it, or show what it holds.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
for command, *lines in (
    (build, "index build MURA-v1.1 --split train --part finger", "index build cases.csv --index hand-index"),
    (add, "index add new-cases.csv", "index add MURA-v1.1 --split train --part wrist"),
    (update, "index update corrected.csv"),
    (remove, "index remove --patient patient00042", "index remove --study s1 --study s2 --dry-run"),
    (relabel, "index relabel s1 abnormal", 'index relabel s1 normal --note "second reading"'),
    (set_aside, 'index set-aside s1 --reason "two patients on one film"'),
    (undo, "index undo", "index undo 17"),
    (filed, "index filed"),
    (calibrate, "index calibrate local-studies", "index calibrate --undo"),
    (merge, "index merge south-index --prefix south/", "index merge shard-1 shard-2 --index joined"),
    (verify, "index verify", "index verify --index hand-index"),
    (compact, "index compact", "index compact --recall 0.999"),
    (regions, "index regions", "index regions --again"),
    (project, "index project", "index project --method pca"),
    (export, "index export all.parquet", "index export all.csv"),
    (import_, "index import all.parquet --index copy"),
    (list_, "index list --part finger --label abnormal"),
    (show, "index show s1"),
    (info, "index info", "index info --json"),
):
    add_command(index, command, None, *lines)
