"""Random views of prepared radiographs, a batch at a time, lesions moving along."""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

__all__ = ["augment"]


def augment(pictures: Tensor, coverage: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3 or 1, S, S) and lesion coverage (B, 1, s, s), both in [0, 1], each turned, scaled and lit anew.

    Geometry: either side up or mirrored (a left hand is a mirrored right one), rotation within 25 degrees, scale within
    15 %, shift within 6 %. Light: gamma and contrast (exposure), a little noise, and now and then inverted polarity.
    """
    B = len(pictures)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(B, generator=generator)

    angle = uniform(-1, 1) * math.radians(25) + math.pi * (torch.rand(B, generator=generator) < 0.25)
    scale = torch.exp(uniform(-1, 1) * math.log(1.15))
    mirror = torch.where(torch.rand(B, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        (
            torch.stack((cos * mirror, -sin, uniform(-0.06, 0.06)), 1),
            torch.stack((sin * mirror, cos, uniform(-0.06, 0.06)), 1),
        ),
        1,
    )
    moved = _warp(pictures, theta)
    light = moved.clamp(0, 1) ** torch.exp(uniform(-0.35, 0.35)).view(B, 1, 1, 1)
    light = (light - 0.5) * uniform(0.8, 1.2).view(B, 1, 1, 1) + 0.5 + uniform(-0.08, 0.08).view(B, 1, 1, 1)
    light = light + 0.02 * torch.randn(light.shape, generator=generator) * uniform(0, 1).view(B, 1, 1, 1)
    light = torch.where((torch.rand(B, generator=generator) < 0.05).view(B, 1, 1, 1), 1 - light, light)
    return light.clamp(0, 1), _warp(coverage, theta)


def _warp(images: Tensor, theta: Tensor) -> Tensor:
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
