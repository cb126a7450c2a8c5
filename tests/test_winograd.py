"""The compiled convolution against PyTorch's direct one in float64, with gradients."""

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib import winograd
from lib.kernels import pixels
from lib.resnet import Conv2d

#: images, channels, filters, height, width, stride; full and other blocks of tiles, an image in parts and several at once
SHAPES = [
    (1, 16, 16, 4, 4, 1),
    (3, 16, 32, 8, 8, 1),
    (5, 48, 16, 12, 4, 2),
    (20, 3, 16, 32, 32, 1),
    (40, 16, 32, 32, 16, 2),
    (33, 32, 64, 16, 16, 2),
    (70, 64, 64, 8, 8, 1),
    (1, 1, 16, 64, 128, 1),
    (2, 80, 48, 20, 24, 1),
]


def inputs(images, channels, filters, height, width, scale=1.0):
    x = scale * torch.randn(images, channels, height, width)
    weight = torch.randn(filters, channels, 3, 3) / (9 * channels) ** 0.5
    return [t.requires_grad_() for t in (x, weight, torch.randn(filters))]


def with_gradients(function, tensors, g):
    y = function(*tensors)
    return [y, *torch.autograd.grad(y, tensors, g)]


@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_direct_convolution(shape):
    """Output and the gradients of map, weight and bias; the rounding is float32's, times the transforms' few."""
    *sizes, stride = shape
    tensors = inputs(*sizes)
    assert winograd.fits(tensors[0], tensors[1], (stride, stride))
    g = torch.randn(sizes[0], sizes[2], sizes[3] // stride, sizes[4] // stride)
    found = with_gradients(lambda *t: winograd.conv3x3(*t, stride), tensors, g)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    expected = with_gradients(lambda *t: F.conv2d(*t, stride, padding=1), exact, g.double())
    for ours, direct in zip(found, expected, strict=True):
        assert ours.shape == direct.shape
        assert (ours - direct).abs().max() < 5e-5 * direct.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 16, 32, 8, 12, 1), (5, 32, 16, 8, 12, 2), (9, 32, 64, 16, 16, 2)])
def test_the_shortcut_beside_it(shape, dtype):
    """The pixels where the shortcut starts, and the sum of both ways' gradients, as autograd would give them."""
    *sizes, stride = shape
    tensors = inputs(*sizes)
    tensors[0] = tensors[0].detach().to(dtype).requires_grad_()
    y, shortcut = winograd.conv3x3_and_shortcut(*tensors, stride)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    expected, pixels_ = F.conv2d(*exact, stride, padding=1), exact[0][:, :, ::stride, ::stride]
    assert torch.equal(shortcut.double(), pixels_)
    g, h = torch.randn(y.shape).to(dtype), torch.randn(shortcut.shape).to(dtype)
    found = torch.autograd.grad((y, shortcut), tensors, (g, h))
    wanted = torch.autograd.grad((expected, pixels_), exact, (g.double(), h.double()))
    for ours, direct, kind in zip(found, wanted, (dtype, torch.float32, torch.float32), strict=True):
        assert ours.dtype == kind
        assert (ours - direct).abs().max() < (5e-5 if kind == torch.float32 else 2**-8) * direct.abs().max()
    alone = torch.autograd.grad(winograd.conv3x3_and_shortcut(*tensors, stride)[1], tensors[0], h)[0]
    assert torch.equal(alone[:, :, ::stride, ::stride], h), "of the shortcut alone"
    alone[:, :, ::stride, ::stride] = 0
    assert not alone.any(), "and nothing between its pixels"


def test_every_weight_reaches_its_pixel():
    """The answer to one bright pixel is the weights themselves, mirrored: no tap is swapped or lost."""
    x = torch.zeros(1, 16, 8, 8)
    x[0, 3, 3, 4] = 1.0
    weight = torch.linspace(0, 1, 16 * 16 * 9).view(16, 16, 3, 3)
    y = winograd.conv3x3(x, weight, None, 1)
    torch.testing.assert_close(y[0, :, 2:5, 3:6], weight[:, 3].flip(1, 2), rtol=0, atol=1e-5)
    y[0, :, 2:5, 3:6] = 0
    assert y.abs().max() < 1e-5, "and nothing elsewhere"


@pytest.mark.parametrize("stride", [1, 2])
def test_bfloat16_is_the_rounded_float32(stride):
    x, weight, bias = inputs(6, 16, 32, 16, 16)
    half = x.detach().bfloat16()
    y = winograd.conv3x3(half, weight, bias, stride)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, winograd.conv3x3(half.float(), weight, bias, stride).bfloat16())
    g = torch.randn(y.shape).bfloat16()
    function = lambda *t: winograd.conv3x3(*t, stride)  # noqa: E731
    ours = with_gradients(function, [half.requires_grad_(), weight, bias], g)
    wide = with_gradients(function, [half.detach().float().requires_grad_(), weight, bias], g.float())
    assert torch.equal(ours[1], wide[1].bfloat16())
    assert torch.equal(ours[2], wide[2]) and torch.equal(ours[3], wide[3])


def test_what_is_not_a_number_stays_so():
    x = torch.zeros(1, 16, 8, 8)
    x[0, 0, 0, 0] = torch.nan
    for dtype in (torch.float32, torch.bfloat16):
        y = winograd.conv3x3(x.to(dtype), torch.ones(16, 16, 3, 3), None, 1)
        assert y[0, :, :2, :2].isnan().all()
        assert not y[0, :, 4:, 4:].isnan().any()


def test_memory_format_changes_nothing():
    x, weight, _ = inputs(3, 16, 16, 8, 12)
    plain = winograd.conv3x3(x, weight, None, 1)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    assert torch.equal(plain, winograd.conv3x3(x, weight, None, 1))
    assert pixels(plain).flags.c_contiguous


def test_the_same_twice_and_with_any_number_of_threads():
    before = torch.get_num_threads()
    tensors, g = inputs(9, 32, 32, 16, 16), torch.randn(9, 32, 16, 16)
    found = {}
    try:
        for turn, threads in enumerate((1, 1, 2)):
            torch.set_num_threads(threads)
            found[turn] = with_gradients(lambda *t: winograd.conv3x3(*t, 1), tensors, g)
            assert numba.get_num_threads() == min(threads, numba.config.NUMBA_NUM_THREADS)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    for k in (0, 1):  # the map and its gradient; the weights' one is added up from the threads' parts
        assert torch.equal(found[0][k], found[2][k])
    assert (found[0][2] - found[2][2]).abs().max() < 5e-5 * found[0][2].abs().max()


def test_only_the_gradients_that_are_wanted():
    x, weight, _ = inputs(2, 16, 16, 8, 8)
    y = winograd.conv3x3(x.detach(), weight, None, 1)
    y.sum().backward()
    assert x.grad is None and weight.grad is not None
    some, all_ = (torch.autograd.grad(winograd.conv3x3(x, w, None, 1).sum(), x)[0] for w in (weight.detach(), weight))
    assert torch.equal(some, all_)


@pytest.mark.parametrize(
    "x, weight, stride",
    [
        (torch.zeros(1, 16, 6, 8), torch.zeros(16, 16, 3, 3), 1),
        (torch.zeros(1, 16, 8, 8), torch.zeros(8, 16, 3, 3), 1),
        (torch.zeros(1, 16, 8, 8), torch.zeros(16, 16, 5, 5), 1),
        (torch.zeros(1, 16, 8, 8), torch.zeros(16, 16, 3, 3), 3),
        (torch.zeros(0, 16, 8, 8), torch.zeros(16, 16, 3, 3), 1),
        (torch.zeros(16, 8, 8), torch.zeros(16, 16, 3, 3), 1),
        (torch.zeros(1, 16, 8, 8).double(), torch.zeros(16, 16, 3, 3).double(), 1),
        (torch.zeros(1, 32, 8, 8), torch.zeros(16, 16, 3, 3), 1),
    ],
)
def test_what_does_not_fit_is_left_to_pytorch(x, weight, stride):
    assert not winograd.fits(x, weight, (stride, stride))


def test_the_layer_takes_it_where_it_fits(monkeypatch):
    taken = []
    ours = winograd.conv3x3
    monkeypatch.setattr(winograd, "conv3x3", lambda *args: taken.append(1) or ours(*args))
    layer = Conv2d(16, 16, 3, padding=1)
    x = torch.ones(1, 16, 8, 8)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1), rtol=1e-4, atol=1e-5)
    layer(torch.ones(1, 16, 7, 8))  # does not
    assert len(taken) == 1


def test_transforms_are_adjoint():
    """<T a, b> = <a, T' b> for each pair, on the vectors of one tile row."""
    rng = np.random.default_rng(0)
    for there, back, short, long in (
        (winograd.forward_b, winograd.backward_b, 6, 6),
        (winograd.backward_a, winograd.forward_a, 4, 6),
        (winograd.forward_g, winograd.backward_g, 3, 6),
    ):
        a, b = rng.standard_normal(short), rng.standard_normal(long)
        assert np.dot(there.py_func(*a), b) == pytest.approx(np.dot(a, back.py_func(*b)), rel=1e-12)
