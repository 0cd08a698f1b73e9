"""DICOM's words for what a radiograph shows, in the words that the other layouts use.

A header may hold any text, so only words of these tables are passed on.
"""

import re

__all__ = ["LATERALITIES", "body_part", "laterality", "projection"]


def _by_code(table: dict[str, str]) -> dict[str, str]:
    return {code: word for word, codes in table.items() for code in codes.split()}


# PS3.16, annex L, "Correspondence of Anatomic Region Codes and Body Part Examined", and spellings that occur: the codes
# of each word. Limbs have MURA's words where MURA has one.
_PARTS = _by_code({
    "elbow": "ELBOW",
    "finger": "FINGER THUMB",
    "forearm": "FOREARM ULNA RADIUS RADIUSULNA",
    "hand": "HAND METACARPUS",
    "humerus": "HUMERUS UPPERARM",
    "arm": "ARM UPPERLIMB UPPEREXTREMITY",
    "shoulder": "SHOULDER ACJOINT",
    "clavicle": "CLAVICLE",
    "scapula": "SCAPULA",
    "wrist": "WRIST SCAPHOID CARPUS",
    "ankle": "ANKLE",
    "heel": "CALCANEUS HEEL",
    "foot": "FOOT",
    "toe": "TOE",
    "femur": "FEMUR THIGH UPPERLEG",
    "hip": "HIP",
    "knee": "KNEE PATELLA",
    "leg": "LEG LOWERLEG LOWERLIMB LOWEREXTREMITY TIBIA FIBULA TIBIAFIBULA",
    "extremity": "EXTREMITY",
    "pelvis": "PELVIS",
    "chest": "CHEST",
    "ribs": "RIB RIBS",
    "abdomen": "ABDOMEN",
    "skull": "SKULL",
    "head": "HEAD",
    "spine": "SPINE",
    "cervical spine": "CSPINE",
    "thoracic spine": "TSPINE",
    "lumbar spine": "LSPINE",
    "sacrum": "SSPINE",
    "whole body": "WHOLEBODY",
})  # fmt: skip
# PS3.3, C.8.1.1 (CR) and C.8.7.3 (DX): View Position.
_VIEWS = _by_code({
    "ap": "AP",
    "pa": "PA",
    "lateral": "LL RL LAT LATERAL LM ML MEDIOLATERAL LATEROMEDIAL",
    "decubitus": "RLD LLD",
    "oblique": "RLO LLO OBL OBLIQUE",
    "axial": "AX AXIAL SUNRISE SKYLINE TANGENTIAL",
})  # fmt: skip
LATERALITIES = {"L": "left", "R": "right", "B": "both"}  # PS3.3, C.7.6.1.1.1 and C.7.3.1; U is for unpaired parts


def body_part(text: str) -> str:
    """The word for a Body Part Examined, "" for an unknown one.

    >>> body_part("WRIST"), body_part("T SPINE"), body_part("Smith")
    ('wrist', 'thoracic spine', '')
    """
    return _PARTS.get(_letters(text), "")


def projection(text: str) -> str:
    """The word for a View Position, "" for an unknown one."""
    return _VIEWS.get(_letters(text), "")


def laterality(text: str) -> str:
    """left, right, both or ""."""
    return LATERALITIES.get(text.strip().upper(), "")


def _letters(text: str) -> str:
    return re.sub(r"[^A-Z]", "", text.upper())
