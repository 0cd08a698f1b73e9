"""Random views of prepared radiographs, a batch at a time, lesions moving along."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as v2

__all__ = ["augment"]


def augment(pictures: Tensor, coverage: Tensor, seed: int, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Pictures (B, C, S, S) and lesion coverage (B, 1, s, s), both in [0, 1], each turned, scaled and lit at random.

    Geometry: either side up or mirrored (a left hand is a mirrored right one), rotation within 25 degrees, scale within
    15 %, shift within 6 %. Light: gamma, contrast and brightness (exposure), a little noise, and sometimes inverted
    polarity. `strength` multiplies all ranges; how often is mirrored and inverted stays. The same for the same seed on
    the same kind of device; the caller's random state is not changed.

    torchvision's v2 classes draw once for a whole batch; here every picture has a draw of its own, so its functions are
    called picture by picture.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(len(pictures), 11, generator=generator).tolist()
    if pictures.device.type != "cpu":  # drawn where it is needed: the CPU would take longer than the network
        generator = torch.Generator(pictures.device).manual_seed(seed)
    noise = torch.randn(pictures.shape, generator=generator, device=pictures.device)
    viewed = [_view(*given, strength) for given in zip(pictures, coverage, noise, draws, strict=True)]
    return torch.stack([picture for picture, _ in viewed]), torch.stack([covered for _, covered in viewed])


def _view(
    picture: Tensor, coverage: Tensor, noise: Tensor, draws: list[float], strength: float
) -> tuple[Tensor, Tensor]:
    mirrored, turned, angle, scale, right, down, gamma, contrast, brightness, grain, inverted = draws

    def within(draw: float, most: float) -> float:
        return strength * most * (2 * draw - 1)

    def moved(image: Tensor) -> Tensor:
        side = image.shape[-1]
        image = v2.horizontal_flip(image) if mirrored < 0.5 else image
        result: Tensor = v2.affine(
            image,
            angle=within(angle, 25) + (180 if turned < 0.25 else 0),
            translate=[within(right, 0.06) * side, within(down, 0.06) * side],
            scale=1.15 ** within(scale, 1),
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        return result

    lit = v2.adjust_gamma(moved(picture).clamp(0, 1), gamma=2 ** within(gamma, 0.5))
    exposed = (lit - 0.5) * (1 + within(contrast, 0.2)) + 0.5 + within(brightness, 0.08)
    lit = exposed + strength * 0.02 * grain * noise
    lit = v2.invert(lit.clamp(0, 1)) if inverted < 0.05 else lit.clamp(0, 1)
    return lit, moved(coverage)
