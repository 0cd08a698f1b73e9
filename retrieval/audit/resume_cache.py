"""What a deep audit has encoded, kept on the disk until the audit is finished."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from index.builder import IndexBuilder
from index.errors import IndexFailure
from retrieval.datasets.collection import Collection
from retrieval.encoding.bundle import Bundle
from retrieval.errors import CollectionError
from retrieval.indexing.build import fingerprint

__all__ = ["kept", "kept_place"]


def kept_place(collection: Collection) -> Path:
    """Where an audit of a collection keeps what it has encoded: below MURA_SEARCH_CACHE, else in the user's cache."""
    from platformdirs import user_cache_path

    cache = os.environ.get("MURA_SEARCH_CACHE") or user_cache_path("mura-search")
    root = str(collection.root.resolve())
    return Path(cache) / "audit" / hashlib.sha256(root.encode(errors="surrogateescape")).hexdigest()[:16]


@contextmanager
def kept(place: Path, collection: Collection, bundle: Bundle) -> Iterator[IndexBuilder | None]:
    """A partial index for what is encoded in the block; left where the block is interrupted, removed where it ends.

    It holds what an interrupted block left there, if the model, the collection and its files are the same. It is None
    where nothing can be kept: the folder cannot be written, another process has it, or a name is no text. Its owner
    alone can read it.
    """
    build = None
    with suppress(IndexFailure, CollectionError, OSError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        same = f"{fingerprint(collection, bundle)} {_files(collection)}"
        build = IndexBuilder.start(place, model=bundle.folder, dimension=bundle.dimension, fingerprint=same)
    if build is None:
        yield None
        return
    with build:
        yield build
        with suppress(IndexFailure, OSError):  # what is left there takes room, and the audit is done all the same
            build.discard()


def _files(collection: Collection) -> str:
    """A hash that is another one where a file was changed."""
    found = hashlib.sha256()
    for case in collection.cases:
        with suppress(OSError):
            state = Path(case.path).stat()
            found.update(f"{case.case} {state.st_size} {state.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return found.hexdigest()
