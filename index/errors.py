"""Every error this tool raises on purpose.

    MuraSearchError            one sentence: what is wrong and what to do
    ├── MissingExtra           a package of an optional extra is not installed
    └── IndexFailure           an index cannot be used
        ├── IndexMissing       no index at the path
        ├── IndexSchema        written by another version of the format
        ├── IndexDamaged       the bytes are not those that were written
        ├── IndexBusy          another process writes, or the path is taken
        ├── IndexUnreachable   the Milvus server does not answer
        └── ChangeRefused      a reader's change that cannot be made, or not be undone

`retrieval.errors` continues the tree. The command line prints the message after `error: ` and exits 1.
"""

__all__ = [
    "ChangeRefused",
    "IndexBusy",
    "IndexDamaged",
    "IndexFailure",
    "IndexMissing",
    "IndexSchema",
    "IndexUnreachable",
    "MissingExtra",
    "MuraSearchError",
]


class MuraSearchError(Exception):
    """Base of all; `str(error)` is a sentence for the user."""


class MissingExtra(MuraSearchError):
    """A package that an optional extra brings is not installed.

    >>> str(MissingExtra("faiss", "cpu"))
    'faiss is not installed; run: pip install "mura-search[cpu]"'
    """

    def __init__(self, package: str, extra: str) -> None:
        if package in {"fcntl", "resource"}:  # modules of Python that Windows lacks
            super().__init__("this command needs Linux or macOS; on Windows, use WSL")
            return
        super().__init__(f'{package} is not installed; run: pip install "mura-search[{extra}]"')
        self.package, self.extra = package, extra


class IndexFailure(MuraSearchError):
    pass


class IndexMissing(IndexFailure):
    pass


class IndexSchema(IndexFailure):
    pass


class IndexDamaged(IndexFailure):
    pass


class IndexBusy(IndexFailure):
    pass


class IndexUnreachable(IndexFailure):
    pass


class ChangeRefused(IndexFailure):
    pass
