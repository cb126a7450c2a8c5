"""Changed test images against scipy, PIL, closed forms and the pixels that were given."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage

from lib.shifts import blurred, brighter, compressed, noisy, with_contrast, with_saturation

UNCHANGED = {with_contrast: 1.0, brighter: 0, blurred: 0.0, noisy: 0, with_saturation: 1.0}


@pytest.fixture
def images():
    """uint8 (5, 3, 36, 32): noise, whose values reach 0 and 255."""
    pixels = torch.randint(0, 256, (5, 3, 36, 32), dtype=torch.uint8)
    pixels[:, :, 0, 0], pixels[:, :, 0, 1] = 0, 255
    return pixels


def as_pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def as_images(pictures):
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures])


@pytest.mark.parametrize("change", [*UNCHANGED, compressed], ids=lambda change: change.__name__)
def test_pixels_stay_pixels_and_what_was_given_stays_as_it_is(images, change):
    before, strength = images.clone(), 10 if change is compressed else 0.5
    after = change(images, strength)
    assert after.dtype == torch.uint8 and after.shape == images.shape and torch.equal(images, before)
    assert torch.equal(after, change(images, strength))  # nothing is random
    if change is not compressed:
        assert torch.equal(change(images, UNCHANGED[change]), images)
    if change is not noisy:
        assert torch.equal(after, change(images.flip(0), strength).flip(0))  # whatever else is in the batch


@pytest.mark.parametrize("factor", [0.0, 0.25, 0.9])
def test_contrast_keeps_the_mean_and_scales_the_deviation_of_each_image(images, factor):
    before, after = images.double(), with_contrast(images, factor).double()
    assert torch.allclose(after.mean((1, 2, 3)), before.mean((1, 2, 3)), atol=0.5)
    assert torch.allclose(after.std((1, 2, 3)), factor * before.std((1, 2, 3)), atol=0.5)


@pytest.mark.parametrize("factor", [0.3, 1.4])
def test_contrast_of_grey_images_is_that_of_pil(images, factor):
    """PIL's mean is a weighted one of the channels, rounded to a whole level, so that only grey images are comparable."""
    grey = images[:, :1].expand(-1, 3, -1, -1)
    theirs = as_images(ImageEnhance.Contrast(as_pil(image)).enhance(factor) for image in grey)
    assert (theirs.int() - with_contrast(grey, factor).int()).abs().max() <= 1


def test_brightness_in_closed_form():
    images = torch.tensor([0, 100, 250], dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    for shift, expected in {20: [20, 120, 255], -20: [0, 80, 230], 0.5: [0, 100, 250], 1.5: [2, 102, 252]}.items():
        assert brighter(images, shift)[:, 0, 0, 0].tolist() == expected  # a half to the even level


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 7.0])
def test_blur_is_scipys(images, sigma):
    theirs = ndimage.gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=4.0)
    assert np.abs(blurred(images, sigma).numpy() - theirs).max() < 0.501


def test_noise_has_its_deviation_and_is_another_for_every_value():
    grey = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
    added = noisy(grey, 10).double() - 128
    assert abs(added.std().item() - 10) < 0.1 and abs(added.mean().item()) < 0.1
    assert abs(np.corrcoef(added.flatten(2).mean(1)[0], added.flatten(2).mean(1)[1])[0, 1]) < 0.1


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.5])
def test_saturation_is_pils(images, factor):
    theirs = as_images(ImageEnhance.Color(as_pil(image)).enhance(factor) for image in images)
    assert (theirs.int() - with_saturation(images, factor).int()).abs().max() <= 1


def test_compression_is_pils(images):
    soft, files = blurred(images, 2), []
    for image in soft:
        as_pil(image).save(file := io.BytesIO(), "jpeg", quality=20)
        files.append(file)
    theirs = as_images(Image.open(file) for file in files).int()
    assert (theirs - compressed(soft, 20).int()).abs().double().mean() < 1.5 < (theirs - soft.int()).abs().double().mean()


def test_a_constant_image_stays_constant():
    images = torch.full((2, 3, 16, 16), 77, dtype=torch.uint8)
    assert torch.equal(with_contrast(blurred(images, 2), 0.2), images)


@pytest.mark.parametrize(
    "change, strength, said",
    [
        (with_contrast, -0.1, "contrast is -0.1; it must be a number of at least 0"),
        (with_contrast, math.nan, "contrast is nan; it must be a number of at least 0"),
        (with_contrast, "1", "contrast is '1'; it must be a number of at least 0"),
        (brighter, math.inf, "brightness is inf; it must be a number of at least -255"),
        (brighter, -256, "brightness is -256; it must be a number of at least -255"),
        (blurred, -1, "blur is -1; it must be a number of at least 0"),
        (blurred, 13.0, "blur is 13.0; it must be below 7.875 for these images"),
        (noisy, -1, "noise is -1; it must be a number of at least 0"),
        (with_saturation, None, "saturation is None; it must be a number of at least 0"),
        (compressed, 0, "quality is 0; it must be an integer from 1 to 100"),
        (compressed, 0.5, "quality is 0.5; it must be an integer from 1 to 100"),
    ],
)
def test_strengths_that_cannot_be(images, change, strength, said):
    with pytest.raises(ValueError) as error:
        change(images, strength)
    assert str(error.value) == said
