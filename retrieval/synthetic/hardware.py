"""Metal in a bone: wires, screws and plates, and how much of it the rays cross."""

from dataclasses import dataclass
from math import cos, hypot, pi, sin

import numpy as np

from retrieval.synthetic.finger import Frame, Point, Pose
from retrieval.synthetic.thickness_maps import Map, Tissue, Window

__all__ = ["Implant", "Plate", "Rod", "draw_implant"]

Solid = tuple[float, float, float]  # mm along the bone, toward radial, toward palmar


@dataclass(frozen=True, slots=True)
class Rod:
    """A wire or screw in a bone's frame; a screw has a `thread` (its depth, mm) and a `head` (its radius, mm)."""

    bone: int
    start: Solid
    end: Solid
    radius: float
    thread: float = 0.0
    head: float = 0.0


@dataclass(frozen=True, slots=True)
class Plate:
    """A plate over a `stretch` of a bone, `distance` mm from its axis toward `side`, with `holes` along it."""

    bone: int
    stretch: Point
    side: float
    distance: float
    width: float
    thick: float
    holes: tuple[float, ...]


Implant = Rod | Plate


def draw_implant(tissue: Tissue, implant: Implant, frame: Frame, pose: Pose) -> None:
    """Add an implant to the metal and mark it as the finding."""
    window, metal = (
        _plate(tissue, implant, frame, pose) if isinstance(implant, Plate) else _rod(tissue, implant, frame, pose)
    )
    tissue.metal[window] += metal
    tissue.finding[window] |= metal > 0.05


def _rod(tissue: Tissue, rod: Rod, frame: Frame, pose: Pose) -> tuple[Window, Map]:
    c, s = cos(pose.theta), sin(pose.theta)
    (x0, r0, p0), (x1, r1, p1) = rod.start, rod.end
    y0, y1 = r0 * c + p0 * s, r1 * c + p1 * s
    window = tissue.camera.window([frame.at(x0, y0), frame.at(x1, y1)], max(rod.radius, rod.head) + 1.0)
    x, y = tissue.camera.local(frame, window)
    dx, dy = x1 - x0, y1 - y0
    flat, deep = hypot(dx, dy), (p1 - p0) * c - (r1 - r0) * s
    along = np.clip(((x - x0) * dx + (y - y0) * dy) / max(flat * flat, 1e-6), 0.0, 1.0)
    off2 = (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2
    radius = rod.radius + rod.thread * np.sin(along * (flat * 2.0 * pi / 0.9))
    # The nearer the rod points to the viewer, the more of it each ray crosses.
    steep = min(hypot(flat, deep) / max(flat, 1e-6), 4.0)
    metal = 2.0 * np.sqrt(np.maximum(radius * radius - off2, 0.0)) * steep
    cap = 1.6 * np.sqrt(np.maximum(rod.head**2 - (x - x0) ** 2 - (y - y0) ** 2, 0.0))
    return window, np.maximum(metal, cap)


def _plate(tissue: Tissue, plate: Plate, frame: Frame, pose: Pose) -> tuple[Window, Map]:
    edgewise = pose.shows(plate.side)
    flatwise = max(0.0, 1.0 - edgewise * edgewise) ** 0.5
    start, stop = plate.stretch
    half = 0.5 * (plate.width * flatwise + plate.thick * abs(edgewise))
    middle = plate.distance * edgewise
    window = tissue.camera.window([frame.at(start, middle), frame.at(stop, middle)], half + 2.0)
    x, y = tissue.camera.local(frame, window)
    y = y - middle
    gap = np.min(np.abs(x - np.asarray(plate.holes)[:, None, None]), axis=0)
    # Narrower between the holes, rounded at the ends.
    waist = half * (1.0 - 0.22 * flatwise * np.clip((gap - 1.0) / 1.2, 0.0, 1.0))
    inside = np.minimum(np.minimum(x - start, stop - x) + half * 0.5, waist - np.abs(y))
    metal = np.clip(inside / 0.25, 0.0, 1.0) * (plate.width * plate.thick / (2.0 * half))
    hole = np.clip((np.sqrt(gap * gap + y * y) - 0.95) / 0.3, 0.0, 1.0)
    return window, np.asarray(metal * (1.0 - flatwise * (1.0 - hole)))
