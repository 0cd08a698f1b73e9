"""What the path of a radiograph says of its patient and study, where it is one of MURA's."""

import re
from itertools import pairwise
from pathlib import Path

__all__ = ["COPIED", "PATIENT", "STUDY", "mura_patient", "mura_study"]

COPIED = r"((?:[ _-]*(?:\(\d+\)|copy|copie|kopie|copia))*)"  # what file managers add to the name of a copy
PATIENT = re.compile(r"patient[ _-]?(\w+?)" + COPIED, re.IGNORECASE)
STUDY = re.compile(r"(study[ _-]?[a-z0-9]*?)(?:[ _-]*(positive|negative|abnormal|normal))?" + COPIED, re.IGNORECASE)


def mura_patient(path: Path) -> tuple[str, ...]:
    """The patients whom the parts of a path may name, as MURA's folders do; an index may or may not hold them."""
    named = filter(None, map(PATIENT.fullmatch, path.absolute().parts))
    return tuple(dict.fromkeys(name for match in named for name in (match[0], f"patient{match[1]}")))


def mura_study(path: Path) -> str:
    """The folder of the study that a path of MURA lies in, "" for another path."""
    names = path.absolute().parts
    for number, (patient, study) in enumerate(pairwise(names)):
        if PATIENT.fullmatch(patient) and STUDY.fullmatch(study):
            return "/".join(names[: number + 2])
    return ""
