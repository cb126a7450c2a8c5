"""Test images as another camera would have taken them: with less contrast, brighter or darker, blurred.

`with_contrast`, `brighter` and `blurred` take images (N, 3, H, W), uint8 or float, with pixels in levels from 0 to 255, and
return float32 of the same shape, neither clipped nor rounded. `shifted` does all three, then clips and rounds once. Nothing is
random. ValueError for images of another shape and for numbers that cannot be.
"""

import torch
from torch import Tensor

from lib.run import at_least

CUT = 4  # standard deviations from its middle at which the Gaussian ends, as in scipy.ndimage


def with_contrast(images: Tensor, factor: float) -> Tensor:
    """Every pixel moved towards its image's mean m over channels and places, m + factor · (x − m): 1 leaves the image as it is,
    0 makes it grey."""
    at_least("contrast", factor, 0, float)
    x = levels(images)
    mean = x.mean((1, 2, 3), keepdim=True)
    return x if factor == 1 else mean + factor * (x - mean)


def brighter(images: Tensor, shift: float) -> Tensor:
    """Every pixel `shift` levels brighter, or darker where that is negative: 0 leaves the image as it is."""
    at_least("brightness", shift, -255, float)
    return levels(images) + shift


def blurred(images: Tensor, sigma: float) -> Tensor:
    """The image under a Gaussian with a standard deviation of `sigma` pixels, mirrored at its outermost pixels: 0 leaves the
    image as it is. `sigma` is at most the image's longer side."""
    at_least("blur", sigma, 0, float)
    x = levels(images)
    if sigma > max(x.shape[2:]):
        raise ValueError(f"blur is {sigma!r}; it must be at most {max(x.shape[2:])}, the longer side of these images")
    return gaussian(x.shape[2], sigma).to(x) @ x @ gaussian(x.shape[3], sigma).to(x).T if sigma else x


def shifted(images: Tensor, contrast: float = 1.0, brightness: float = 0.0, blur: float = 0.0) -> Tensor:
    """The images first blurred, then with that contrast, then that brightness, at last clipped to 0 … 255 and rounded to whole
    levels (a half to the even one): uint8 (N, 3, H, W). Without a change, the pixels that were given."""
    return brighter(with_contrast(blurred(images, blur), contrast), brightness).clamp(0, 255).round().to(torch.uint8)


def gaussian(size: int, sigma: float) -> Tensor:
    """The blur of a line of `size` pixels as a matrix, float64 (size, size), whose rows have the sum 1."""
    reach = int(CUT * sigma + 0.5)
    offset = torch.arange(-reach, reach + 1)
    weight = torch.exp(-0.5 * (offset.double() / sigma) ** 2)
    place = (torch.arange(size)[:, None] + offset) % (around := max(2 * size - 2, 1))  # there and back in two mirrors
    place = torch.minimum(place, around - place)
    return torch.zeros(size, size).double().scatter_add_(1, place, (weight / weight.sum()).expand(size, -1))


def levels(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images have the shape {tuple(images.shape)}; it must be (N, 3, H, W)")
    return images.float()
