"""Test images as another camera would have taken them: with less contrast, darker, blurred, noisy, pale or compressed.

Each function takes images uint8 (N, 3, H, W) and returns such images: clipped to 0 … 255 and rounded, but for the saturation,
which torchvision rounds down. The same images give the same result. ValueError for a strength that cannot be.
"""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from lib.run import at_least


def with_contrast(images: Tensor, factor: float) -> Tensor:
    """Every pixel moved towards its image's mean m over channels and places, m + factor · (x − m): 1 leaves the image as it is,
    0 makes it grey."""
    at_least("contrast", factor, 0, float)
    mean = images.float().mean((1, 2, 3), keepdim=True)
    return levels(mean + factor * (images - mean))


def brighter(images: Tensor, shift: float) -> Tensor:
    """Every pixel `shift` levels brighter, or darker where that is negative: 0 leaves the image as it is."""
    at_least("brightness", shift, -255, float)
    return levels(images.float() + shift)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """The image under a Gaussian with a standard deviation of `sigma` pixels, cut off at 4 of them and mirrored at the image's
    outermost pixels: 0 leaves the image as it is. 4 `sigma` and a half are below the shorter side, or it is a ValueError."""
    at_least("blur", sigma, 0, float)
    reach = int(4 * sigma + 0.5)
    if reach >= min(images.shape[2:]):
        raise ValueError(f"blur is {sigma!r}; it must be below {(min(images.shape[2:]) - 0.5) / 4:g} for these images")
    return levels(functional.gaussian_blur(images.float(), 2 * reach + 1, sigma)) if reach else images


def noisy(images: Tensor, sigma: float) -> Tensor:
    """Every value with a normal deviate of `sigma` levels added to it, always the same ones: 0 leaves the image as it is."""
    at_least("noise", sigma, 0, float)
    return levels(images.float() + sigma * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)))


def with_saturation(images: Tensor, factor: float) -> Tensor:
    """Every pixel moved towards its own grey, in torchvision's weights: 1 leaves the image as it is, 0 takes its colours."""
    at_least("saturation", factor, 0, float)
    return functional.adjust_saturation(images, factor)


def compressed(images: Tensor, quality: int) -> Tensor:
    """Every image written as JPEG and read again. `quality`: from 1, the worst, to 100."""
    if not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality!r}; it must be an integer from 1 to 100")
    return functional.jpeg(images, quality)


def levels(values: Tensor) -> Tensor:
    """Numbers as pixels: clipped to 0 … 255 and rounded, a half to the even one."""
    return values.clamp(0, 255).round().to(torch.uint8)
