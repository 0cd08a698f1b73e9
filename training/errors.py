"""What can go wrong in training; continues the tree of `index.errors`.

MuraSearchError
└── TrainingError          no weights, unsuitable data, or an export that does not match
    └── WeightsUnavailable pretrained weights that cannot be downloaded here
"""

from index.errors import MuraSearchError

__all__ = ["TrainingError", "WeightsUnavailable"]


class TrainingError(MuraSearchError):
    pass


class WeightsUnavailable(TrainingError):
    pass
