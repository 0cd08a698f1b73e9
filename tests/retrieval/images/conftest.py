"""What the tests of images share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture
def right(write_dicom: Callable[..., Path]) -> NDArray[np.int64]:
    """The arm of `tests.dicom_files` through the window of all 12 bits."""
    from tests.dicom_files import FULL, arm, read

    pixels, codes = read(write_dicom("right.dcm", arm(), **FULL))
    assert codes == []
    assert pixels.max() > 240
    return pixels
