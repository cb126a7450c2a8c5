"""Changed test images against scipy, PIL, closed forms and the pixels that were given."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage

from lib.shifts import blurred, brighter, gaussian, shifted, with_contrast


@pytest.fixture
def images():
    """uint8 (5, 3, 12, 9): noise, whose values reach 0 and 255."""
    pixels = torch.randint(0, 256, (5, 3, 12, 9), dtype=torch.uint8)
    pixels[:, :, 0, 0], pixels[:, :, 0, 1] = 0, 255
    return pixels


def test_no_change_gives_the_same_pixels(images):
    whole = shifted(images)
    assert whole.dtype == torch.uint8 and torch.equal(whole, images)
    for same in (with_contrast(images, 1.0), brighter(images, 0), blurred(images, 0.0), blurred(images, 0.05)):
        assert same.dtype == torch.float32 and torch.equal(same, images.float())


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.5])
def test_contrast_keeps_the_mean_and_scales_the_deviation_of_each_image(images, factor):
    before, after = images.double(), with_contrast(images, factor).double()  # not clipped
    assert torch.allclose(after.mean((1, 2, 3)), before.mean((1, 2, 3)), atol=1e-4)
    assert torch.allclose(after.std((1, 2, 3)), factor * before.std((1, 2, 3)), atol=1e-4)
    assert torch.equal(after, with_contrast(images.flip(0), factor).flip(0).double())  # whatever else is in the batch


@pytest.mark.parametrize("factor", [0.3, 1.4])
def test_contrast_of_grey_images_is_that_of_pil(images, factor):
    """PIL's mean is a weighted one of the channels, rounded to a whole level, so that only grey images are comparable."""
    grey = images[:, :1].expand(-1, 3, -1, -1)
    for image, ours in zip(grey, shifted(grey, contrast=factor), strict=True):
        theirs = ImageEnhance.Contrast(Image.fromarray(image.permute(1, 2, 0).numpy())).enhance(factor)
        assert np.abs(np.asarray(theirs).astype(int) - ours.permute(1, 2, 0).numpy()).max() <= 1


def test_brightness_in_closed_form():
    values = torch.tensor([0, 100, 250], dtype=torch.uint8)
    images = values[:, None, None, None].expand(-1, 3, 4, 4)
    assert brighter(images, 20)[:, 0, 0, 0].tolist() == [20, 120, 270] and brighter(images, -20)[0, 0, 0, 0] == -20
    assert shifted(images, brightness=20)[:, 0, 0, 0].tolist() == [20, 120, 255]
    assert shifted(images, brightness=-20)[:, 0, 0, 0].tolist() == [0, 80, 230]
    assert shifted(images, brightness=0.5)[:, 0, 0, 0].tolist() == [0, 100, 250]  # a half to the even level
    assert shifted(images, brightness=1.5)[:, 0, 0, 0].tolist() == [2, 102, 252]


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 7.0])
def test_blur_is_scipys(images, sigma):
    theirs = ndimage.gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=4.0)
    assert np.abs(blurred(images, sigma).numpy() - theirs).max() < 2e-4


@pytest.mark.parametrize("size", [1, 2, 3])
def test_blur_of_a_line_that_is_shorter_than_the_gaussian(size):
    line = np.eye(size)
    assert np.allclose(gaussian(size, 2.0).T, ndimage.gaussian_filter1d(line, 2.0, axis=1, mode="mirror", truncate=4.0))


def test_a_constant_image_stays_constant():
    images = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(shifted(images, contrast=0.2, blur=2), images)
    assert (shifted(images, contrast=1.5, brightness=-7, blur=1) == 70).all()


def test_the_order_is_blur_contrast_brightness_and_pixels_are_clipped_and_rounded_once(images):
    x = ndimage.gaussian_filter(images.double().numpy(), (0, 0, 0.7, 0.7), mode="mirror", truncate=4.0)
    mean = x.mean((1, 2, 3), keepdims=True)
    expected = np.clip(mean + 1.5 * (x - mean) - 60, 0, 255)
    assert (expected == 0).any() and np.abs(shifted(images, 1.5, -60, 0.7).double().numpy() - expected).max() <= 0.5 + 1e-3
    assert torch.equal(shifted(images, 1.5, -60, 0.7), shifted(images.clone(), 1.5, -60, 0.7))
    stepwise = shifted(shifted(images, contrast=1.5), brightness=-60)  # clipped twice
    assert not torch.equal(shifted(images, contrast=1.5, brightness=-60), stepwise)


def test_what_was_given_stays_as_it_is(images):
    before = images.clone()
    floats = images.float()
    shifted(images, 0.5, 3, 1), with_contrast(floats, 0.5), brighter(floats, 3), blurred(floats, 1)
    assert torch.equal(images, before) and torch.equal(floats, before.float())


@pytest.mark.parametrize(
    "given, said",
    [
        ({"contrast": -0.1}, "contrast is -0.1; it must be a number of at least 0"),
        ({"contrast": math.nan}, "contrast is nan; it must be a number of at least 0"),
        ({"contrast": "1"}, "contrast is '1'; it must be a number of at least 0"),
        ({"brightness": math.inf}, "brightness is inf; it must be a number of at least -255"),
        ({"brightness": -256}, "brightness is -256; it must be a number of at least -255"),
        ({"blur": -1}, "blur is -1; it must be a number of at least 0"),
        ({"blur": 13.0}, "blur is 13.0; it must be at most 12, the longer side of these images"),
    ],
)
def test_numbers_that_cannot_be(images, given, said):
    with pytest.raises(ValueError) as error:
        shifted(images, **given)
    assert str(error.value) == said


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 8), (2, 8, 8, 3)])
def test_images_of_another_shape(shape):
    for change in (shifted, lambda x: with_contrast(x, 1), lambda x: brighter(x, 0), lambda x: blurred(x, 0)):
        with pytest.raises(ValueError) as error:
            change(torch.zeros(shape))
        assert str(error.value) == f"images have the shape {shape}; it must be (N, 3, H, W)"
