"""The encoded radiographs of a deep audit, on the disk until the audit is finished.

The cache is a partial index (`index.builder`), so an interrupted audit goes on where it stopped.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from index.builder import IndexBuilder
from index.errors import IndexFailure
from retrieval.datasets.cache_folder import cache_folder
from retrieval.datasets.collection import Collection
from retrieval.encoding.bundle import Bundle
from retrieval.errors import CollectionError
from retrieval.indexing.build import fingerprint

__all__ = ["resume_cache", "resume_path"]


def resume_path(collection: Collection) -> Path:
    """The path of a collection's resume cache, in the cache folder."""
    root = str(collection.root.resolve())
    return cache_folder() / "audit" / hashlib.sha256(root.encode(errors="surrogateescape")).hexdigest()[:16]


@contextmanager
def resume_cache(path: Path, collection: Collection, bundle: Bundle) -> Iterator[IndexBuilder | None]:
    """Open the resume cache at `path`, readable by its owner alone. It is removed at the end of the block.

    An interrupted block leaves the cache. The next block finds its radiographs there, if the model, the collection and
    the files are the same. None where no cache can be used: the folder cannot be written, another process uses it, or a
    file's name is not UTF-8.
    """
    build = None
    with suppress(IndexFailure, CollectionError, OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        same = f"{fingerprint(collection, bundle)} {_files_fingerprint(collection)}"
        build = IndexBuilder.start(path, model=bundle.folder, dimension=bundle.dimension, fingerprint=same)
    if build is None:
        yield None
        return
    with build:
        yield build
        with suppress(IndexFailure, OSError):  # the audit is done; a cache that cannot be removed only takes room
            build.discard()


def _files_fingerprint(collection: Collection) -> str:
    """A hash of the files' sizes and times, which changes with any file."""
    digest = hashlib.sha256()
    for case in collection.cases:
        with suppress(OSError):
            status = Path(case.path).stat()
            digest.update(f"{case.case} {status.st_size} {status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
