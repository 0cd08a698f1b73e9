"""What can go wrong in training; continues the tree of `index.errors`.

MuraSearchError
└── TrainingError          no weights, unsuitable data, or an export that does not match
"""

from index.errors import MuraSearchError

__all__ = ["TrainingError"]


class TrainingError(MuraSearchError):
    pass
