"""The network against the paper's counts and an independent implementation."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import resnet
from lib.engine.compiled import Bf16InFloat32, bf16_is_emulated, compiled
from lib.norms import NORMS, BatchNorm2d
from lib.resnet import ResNet


@pytest.mark.parametrize(
    "n, norm, count", [(2, "torch_bn", 172_506), (2, "bn", 172_506), (3, "bn", 269_722), (9, "gn", 853_018)]
)
def test_parameter_count(n, norm, count):
    assert sum(p.numel() for p in ResNet(n, 10, norm).parameters()) == count


def test_gates_and_biases_are_all_that_other_norms_add():
    channels = 16 * 5 + 32 * 4 + 64 * 4
    assert sum(p.numel() for p in ResNet(2, 10, "bin").parameters()) == 172_506 + channels
    assert sum(p.numel() for p in ResNet(2, 10, "nn").parameters()) == 172_506 - 2 * channels + channels


@pytest.mark.parametrize("n", [1, 2, 3])
def test_layers_with_weights(n):
    layers = [m for m in ResNet(n, 10).modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 6 * n + 2


def reference_forward(state: dict, x: torch.Tensor, n: int) -> torch.Tensor:
    """A CIFAR ResNet in the order of a state dict, written with functions: option A with zeros on both sides."""
    values = iter(v for name, v in state.items() if "num_batches" not in name)

    def conv_bn(x, stride=1):
        x = F.conv2d(x, next(values), stride=stride, padding=1)
        weight, bias, mean, var = (next(values) for _ in range(4))
        return F.batch_norm(x, mean, var, weight, bias)

    x = F.relu(conv_bn(x))
    for stage in range(3):
        for block in range(n):
            stride = 2 if stage and not block else 1
            y = conv_bn(F.relu(conv_bn(x, stride)))
            if stride == 2:
                x = x[:, :, ::2, ::2]
                zeros = torch.zeros_like(x[:, : x.shape[1] // 2])
                x = torch.cat([zeros, x, zeros], 1)
            x = F.relu(x + y)
    return F.linear(x.mean((2, 3)), next(values), next(values))


@pytest.mark.parametrize("norm", ["torch_bn", "bn"])
def test_same_function_as_an_independent_network(norm):
    model = ResNet(2, 7, norm).double()
    for _ in range(3):
        model(torch.randn(8, 3, 16, 16, dtype=torch.float64))  # running statistics away from their start
    model.eval()
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(model(x), reference_forward(model.state_dict(), x, 2), rtol=1e-9, atol=1e-9)


def test_every_block_has_the_norm_it_was_asked_for():
    for norm in NORMS:
        kinds = {type(m).__name__ for m in ResNet(2, 10, norm).modules() if "Norm" in type(m).__name__}
        assert len(kinds) == (0 if norm == "nn" else 1), (norm, kinds)
        model = ResNet(2, 10, norm)
        assert all((m.bias is not None) == (norm == "nn") for m in model.modules() if isinstance(m, nn.Conv2d))
        assert sum(name.endswith(("norm1", "norm2")) for name, _ in model.named_modules()) == 13
    assert sum(isinstance(m, BatchNorm2d) for m in ResNet(2, 10, "bn").modules()) == 13


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (256, 256), (32, 48)])
def test_any_size_that_the_strides_divide(size):
    model = ResNet(1, 25).eval()
    x = torch.randn(1, 3, *size)
    features = model.features(x)
    assert features.shape == (1, 64)
    assert torch.equal(model(x), model.linear(features))
    assert model.layer1(model.conv1(x)).shape[2:] == size


def test_with_fixup_a_block_starts_as_its_shortcut():
    torch.manual_seed(0)
    he = ResNet(2, 10, "nn")
    torch.manual_seed(0)
    model = ResNet(2, 10, "nn", initialization="fixup")
    x = torch.randn(2, 3, 16, 16)
    assert not model(x).any()
    for (name, block), usual in zip(model.named_modules(), he.modules(), strict=True):
        if isinstance(block, resnet.Block):
            torch.testing.assert_close(block.conv1.weight, usual.conv1.weight / 6**0.5)
            maps = torch.rand(2, block.conv1.in_channels, 8, 8)
            assert torch.equal(block(maps), block.shortcut(maps)), name
    torch.testing.assert_close(model.conv1.weight, he.conv1.weight)
    with pytest.raises(ValueError, match="unknown initialization 'xavier'; allowed are he, fixup"):
        ResNet(2, 10, initialization="xavier")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_bf16_without_instructions_for_it_is_bf16(stride, bias):
    """Against float64 sums of products of rounded values: output and gradients are those, rounded to bf16."""
    torch.manual_seed(0)
    layer = Bf16InFloat32(16, 32, 3, stride, padding=1, bias=bias)
    if bias:
        nn.init.normal_(layer.bias)
    x = torch.randn(4, 16, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    g = torch.randn(y.shape).bfloat16()
    y.backward(g)

    inputs = [t.detach().bfloat16().double().requires_grad_() for t in (x, *layer.parameters())]
    expected = F.conv2d(*inputs, stride=stride, padding=1)
    expected.backward(g.double())
    ours = (y.detach(), x.grad, *(p.grad for p in layer.parameters()))
    for found, exact in zip(ours, (expected.detach(), *(t.grad for t in inputs)), strict=True):
        rounded = exact.bfloat16().double()
        assert (found.double() != rounded).double().mean() < 0.01, "float32 sums may round otherwise, but seldom"
        torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-5)


def test_bf16_is_only_replaced_where_it_is_wanted_and_emulated(monkeypatch):
    layer, x = Bf16InFloat32(3, 4, 3, padding=1, bias=False), torch.randn(2, 3, 4, 4)
    assert torch.equal(layer(x), F.conv2d(x, layer.weight, padding=1)), "float32 stays float32"
    flags = {"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}
    for own, emulated in (
        ({}, True),
        ({"amx_bf16": True}, False),
        ({"avx512_bf16": True}, False),
        ({"architecture": "arm64"}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda own=own: flags | own)
        assert bf16_is_emulated.__wrapped__() == emulated
        monkeypatch.setattr("lib.engine.compiled.bf16_is_emulated", lambda emulated=emulated: emulated)
        assert type(compiled(ResNet(1, 10)).conv1) is (Bf16InFloat32 if emulated else nn.Conv2d)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_shortcut_is_a_slice_with_zeros_whose_gradient_keeps_its_layout(dtype):
    x = torch.randn(3, 16, 8, 12).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    block = resnet.Block(16, 32, 2, "bn", 4)
    found, slice_ = block.shortcut(x), F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
    assert torch.equal(found, slice_)
    g = torch.randn_like(found)
    gradient = torch.autograd.grad(found, x, g)[0]
    assert torch.equal(gradient, torch.autograd.grad(slice_, x, g)[0])
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_shapes_without_numbers():
    with torch.device("meta"):
        model = ResNet(2, 10, "bn")
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 10)
