"""`mura-search index regions`: encode the regions of indexed radiographs, so that they can be searched."""

from typing import Annotated

import typer

from cli.console import note_few, print_result, progress, radiographs
from cli.options.common import AsJson, IndexFolder, index_path

__all__ = ["regions"]


def regions(
    again: Annotated[bool, typer.Option("--again", help="Encode the regions of all radiographs again.")] = False,
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Encode the regions of the indexed radiographs that have none, from their files, for mura-search --region.

    Each radiograph gets four regions, where the network's attention is strongest. That takes five times as long as
    indexing. If it is interrupted, the same command continues.
    """
    from retrieval.search_by.region import add_regions

    with progress("encoding regions") as show:
        done, unread = add_regions(index_path(index), again=again, progress=show)
    if not as_json:
        note_few("without regions", unread)
    reasons = [{"case": case, "reason": reason} for case, reason in unread]
    text = f"Encoded the regions of {radiographs(done)}; not read: {len(unread):,}."
    print_result(as_json, "mura-search/regions/1", {"encoded": done, "unread": reasons}, text)
