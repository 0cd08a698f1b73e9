"""`mura-search audit`: what a collection holds, and what is wrong with it."""

from cli.terminal import AsJson, Data, Layout, Part, Split, print_json, progress

__all__ = ["audit"]


def audit(data: Data, part: Part = None, split: Split = None, layout: Layout = None, as_json: AsJson = False) -> None:
    """Count a collection, compare a MURA copy with the published counts, and list what is unreadable or doubled."""
    from retrieval.audit import audit as examine

    from retrieval.collection import read_collection

    collection = read_collection(data, layout, part, split)
    with progress("reading") as show:
        result = examine(collection, progress=show)
    if as_json:
        print_json(result.to_dict())
