"""Ask about every study of a folder or a collection, labelled or not, to compare their scores with the index's."""

from collections.abc import Callable
from pathlib import Path

from index.errors import IndexFailure
from retrieval.datasets.collection import Collection
from retrieval.errors import RadiographError
from retrieval.evaluation.drift import Drift, drift_between, scored
from retrieval.searcher import Searcher
from retrieval.worklist.worklist import Entry, Skipped, StudyFiles, find_studies, query_study

__all__ = ["drift_of"]


def drift_of(
    searcher: Searcher, data: Collection | Path, progress: Callable[[int, int], None] | None = None
) -> tuple[Drift, tuple[Skipped, ...]]:
    """The drift of the studies of a collection, or of a folder as `worklist` takes it; and those that were not read.

    The patient of a study that the index holds is left out. `progress` gets (studies done, all). Raises RadiographError
    where no study can be read, IndexFailure where the index has no scores of its own to compare with.
    """
    if searcher.reference is None:
        raise IndexFailure(
            f"{searcher.index.path} does not know the scores of its own studies: it was built by an older version, or "
            "the model was trained on nearly all of its patients; build or calibrate it again with other studies"
        )
    studies, skipped = find_studies(data) if isinstance(data, Path) else (_studies(data), [])
    entries: list[Entry] = []
    for done, study in enumerate(studies, 1):
        read = query_study(searcher, study)
        if isinstance(read, Entry):
            entries.append(read)
        else:
            skipped.append(read)
        if progress:
            progress(done, len(studies))
    drift = drift_between(searcher.reference, [scored(entry.answer) for entry in entries])
    if drift is None:
        reason = f"; the first: {skipped[0].reason}" if skipped else ""
        raise RadiographError(f"none of {len(studies):,} studies could be read{reason}")
    return drift, tuple(skipped)


def _studies(collection: Collection) -> list[StudyFiles]:
    """The studies of a collection, in its order."""
    files: dict[str, list[Path]] = {}
    for case in collection.cases:
        files.setdefault(case.study, []).append(Path(case.path))
    return [StudyFiles(study, tuple(paths)) for study, paths in files.items()]
