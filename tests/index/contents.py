"""What an index is to hold and to find, without the code that does it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.case import Case
from index.hits import Hit
from index.reader import IndexReader

__all__ = ["Sample", "assert_holds", "chosen", "everything_in", "oracle"]

Sample = tuple[list[Case], NDArray[np.float32], list[bytes], NDArray[np.float32]]


def chosen(sample: Sample, rows: list[int]) -> Sample:
    """These rows of a sample."""
    cases, embeddings, thumbnails, logits = sample
    return [cases[n] for n in rows], embeddings[rows], [thumbnails[n] for n in rows], logits[rows]


def assert_holds(place: Path, sample: Sample) -> None:
    """The index answers as one that was built of exactly these cases."""
    cases, embeddings, thumbnails, logits = sample
    with IndexReader.open(place) as folder:
        folder.verify()
        assert folder.cases() == cases
        assert folder.embeddings().tobytes() == embeddings.tobytes()
        assert folder.logits().tobytes() == logits.tobytes()
        assert [folder.thumbnail(case.case) for case in cases] == thumbnails
        assert folder.info()["cases"] == len(cases)


def everything_in(place: Path) -> bytes:
    """The bytes of all files of an index."""
    return b"".join(file.read_bytes() for file in sorted(place.rglob("*")) if file.is_file())


def oracle(
    sample: Sample, query: NDArray[np.float32], k: int, where: dict[str, list[str]], excluded: set[str]
) -> list[Hit]:
    """The k nearest studies by definition: every case is compared."""
    cases, embeddings, _, _ = sample
    similarities = (embeddings.astype(np.float64) @ query.astype(np.float64)).astype(np.float32).tolist()
    hits: dict[str, Hit] = {}
    for row in sorted(range(len(cases)), key=lambda row: (-similarities[row], row)):
        case = cases[row]
        fits = all(
            (case.label_name if field == "label" else getattr(case, field)) in values for field, values in where.items()
        )
        if fits and case.patient not in excluded:
            hits.setdefault(case.study, Hit(similarities[row], case))
    return list(hits.values())[:k]
