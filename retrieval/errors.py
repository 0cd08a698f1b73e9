"""What can go wrong between a file and an answer; continues the tree of `index.errors`.

MuraSearchError
├── RadiographError        a file that cannot be read as a radiograph
├── CollectionError        a folder or table of labelled radiographs that cannot be used
├── SiteKeyError           the key that patients' identifiers are hashed with cannot be used
├── BundleError            a model bundle that does not fit or is damaged
├── EvaluationError        an evaluation that would not be honest, or has nothing to evaluate
├── HeatmapError           a heatmap that cannot be written where it was asked for
├── OutputError            a file of results that cannot be written
├── DicomResultError       an answer that cannot be written as DICOM
└── ArchiveError           an archive, asked by DICOMweb or DIMSE, that does not do what it was asked for
"""

from index.errors import MissingExtra, MuraSearchError

__all__ = [
    "ArchiveError",
    "BundleError",
    "CollectionError",
    "DicomResultError",
    "EvaluationError",
    "HeatmapError",
    "MissingExtra",
    "MuraSearchError",
    "OutputError",
    "RadiographError",
    "SiteKeyError",
]


class RadiographError(MuraSearchError):
    pass


class CollectionError(MuraSearchError):
    pass


class SiteKeyError(MuraSearchError):
    pass


class BundleError(MuraSearchError):
    pass


class HeatmapError(MuraSearchError):
    pass


class EvaluationError(MuraSearchError):
    pass


class OutputError(MuraSearchError):
    pass


class DicomResultError(MuraSearchError):
    pass


class ArchiveError(MuraSearchError):
    pass
