"""DICOM's words for what a radiograph shows, in the words that the other layouts use.

The header's own text is not passed on, since anything may have been typed into it: only what these tables hold.
"""

import re

__all__ = ["LATERALITIES", "body_part", "laterality", "projection"]

# PS3.16, annex L, "Correspondence of Anatomic Region Codes and Body Part Examined": its names of limbs, and spellings
# met in the wild, each with MURA's name where MURA has one. What is no limb keeps its name.
_PARTS = {
    "ELBOW": "elbow",
    "FINGER": "finger",
    "THUMB": "finger",
    "FOREARM": "forearm",
    "ULNA": "forearm",
    "RADIUS": "forearm",
    "RADIUSULNA": "forearm",
    "HAND": "hand",
    "METACARPUS": "hand",
    "HUMERUS": "humerus",
    "UPPERARM": "humerus",
    "ARM": "arm",
    "UPPERLIMB": "arm",
    "UPPEREXTREMITY": "arm",
    "SHOULDER": "shoulder",
    "CLAVICLE": "clavicle",
    "SCAPULA": "scapula",
    "ACJOINT": "shoulder",
    "WRIST": "wrist",
    "SCAPHOID": "wrist",
    "CARPUS": "wrist",
    "ANKLE": "ankle",
    "CALCANEUS": "heel",
    "HEEL": "heel",
    "FOOT": "foot",
    "TOE": "toe",
    "FEMUR": "femur",
    "THIGH": "femur",
    "UPPERLEG": "femur",
    "HIP": "hip",
    "KNEE": "knee",
    "PATELLA": "knee",
    "LEG": "leg",
    "LOWERLEG": "leg",
    "LOWERLIMB": "leg",
    "LOWEREXTREMITY": "leg",
    "TIBIA": "leg",
    "FIBULA": "leg",
    "TIBIAFIBULA": "leg",
    "EXTREMITY": "extremity",
    "PELVIS": "pelvis",
    "CHEST": "chest",
    "RIB": "ribs",
    "RIBS": "ribs",
    "ABDOMEN": "abdomen",
    "SKULL": "skull",
    "HEAD": "head",
    "SPINE": "spine",
    "CSPINE": "cervical spine",
    "TSPINE": "thoracic spine",
    "LSPINE": "lumbar spine",
    "SSPINE": "sacrum",
    "WHOLEBODY": "whole body",
}

# PS3.3, C.8.1.1 (CR) and C.8.7.3 (DX): View Position.
_VIEWS = {
    "AP": "ap",
    "PA": "pa",
    "LL": "lateral",
    "RL": "lateral",
    "LAT": "lateral",
    "LATERAL": "lateral",
    "LM": "lateral",
    "ML": "lateral",
    "MEDIOLATERAL": "lateral",
    "LATEROMEDIAL": "lateral",
    "RLD": "decubitus",
    "LLD": "decubitus",
    "RLO": "oblique",
    "LLO": "oblique",
    "OBL": "oblique",
    "OBLIQUE": "oblique",
    "AX": "axial",
    "AXIAL": "axial",
    "SUNRISE": "axial",
    "SKYLINE": "axial",
    "TANGENTIAL": "axial",
}

LATERALITIES = {"L": "left", "R": "right", "B": "both"}  # PS3.3, C.7.6.1.1.1 and C.7.3.1; U is for what is unpaired


def body_part(text: str) -> str:
    """A Body Part Examined in small letters, "" where the table has none.

    >>> body_part("WRIST"), body_part("T SPINE"), body_part("Smith")
    ('wrist', 'thoracic spine', '')
    """
    return _PARTS.get(_bare(text), "")


def projection(text: str) -> str:
    """A View Position in small letters, "" where the table has none."""
    return _VIEWS.get(_bare(text), "")


def laterality(text: str) -> str:
    """left, right, both or ""."""
    return LATERALITIES.get(text.strip().upper(), "")


def _bare(text: str) -> str:
    return re.sub(r"[^A-Z]", "", text.upper())
