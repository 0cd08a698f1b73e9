"""Keeps values of DICOM headers, such as names, out of warnings, logs and the sentences of errors."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from retrieval.errors import MissingExtra, redacted_traceback
from retrieval.images.dicom_header import DicomError

__all__ = ["as_sentence", "be_silent"]

logger = logging.getLogger("mura-search")

_PYDICOMS = r"pydicom(\.|$)|highdicom|dicomweb_client|pynetdicom|pylibjpeg|openjpeg|libjpeg|retrieval\.dicom\w*$"


def be_silent() -> None:
    """Keep values of headers out of this process's warnings and logs, where pydicom and what uses it put them."""
    if ("ignore", None, Warning, re.compile(_PYDICOMS), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PYDICOMS)
    for name in ("pydicom", "highdicom", "dicomweb_client", "pynetdicom", "retrying", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextmanager
def as_sentence(sentence: str) -> Iterator[None]:
    """Turn whatever pydicom and the decoders raise at damaged bytes into a DicomError of one sentence."""
    try:
        yield
    except (DicomError, MissingExtra):
        raise
    except Exception as error:  # broad: they raise anything, with values of the header in it
        logger.debug("%s", redacted_traceback(error))
        raise DicomError(sentence) from None
