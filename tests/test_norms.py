"""The norms against PyTorch's own layers in float64, and the bugs that earlier implementations had."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest
import torch
from torch import nn

from lib import checks, norms
from lib.data import ROOT
from lib.engine.compiled import Compiled, compiled, takes
from lib.norms import NORMS, BatchInstanceNorm2d, BatchNorm2d, GroupNorm2d, InstanceNorm2d, LayerNorm2d
from lib.resnet import ResNet

SHAPES = {"4×8×5×3": (4, 8, 5, 3), "2×2 maps": (4, 8, 2, 2), "1×1 maps": (6, 8, 1, 1), "batch of one": (1, 8, 4, 4)}
OFFSETS = {"mean 0": (0.0, 1.0), "mean 1e4, std 0.1": (1e4, 0.1)}
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def image(shape, mean=0.0, std=1.0, form=torch.contiguous_format, dtype=torch.float64):
    return (mean + std * torch.randn(shape, dtype=torch.float64)).to(dtype).contiguous(memory_format=form)


@pytest.mark.parametrize("name", ["BN", "IN", "BIN", "LN", "GN"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("offset", OFFSETS)
def test_equal_to_pytorch(name, training, form, shape, offset):
    ours, theirs = checks.pairs(8)[name]
    if name in ("IN", "BIN") and shape == "1×1 maps":
        with pytest.raises(ValueError):
            ours(torch.zeros(6, 8, 1, 1))
        return
    gaps = checks.compare(ours, theirs, image(SHAPES[shape], *OFFSETS[offset], form), training)
    assert len(gaps) == {"BN": 7, "BIN": 8}.get(name, 4)
    assert max(gaps.values()) < 1e-9, gaps


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
@pytest.mark.parametrize("dtype, gap", [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=["plain", "compiled"])
def test_running_statistics_follow_pytorch_over_batches(momentum, dtype, gap):
    ours, theirs = BatchNorm2d(3, momentum=momentum).to(dtype), nn.BatchNorm2d(3, momentum=momentum).to(dtype)
    for step in range(4):
        x = image((5, 3, 2, 2), mean=step, std=1 + step, dtype=dtype)
        ours(x), theirs(x)
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=gap, atol=gap)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x), rtol=gap, atol=gap)


@pytest.mark.parametrize("norm", ["bn", "in", "bin", "ln", "gn"])
def test_gradients_by_finite_differences(norm):
    layer = norms.make_norm(norm, 4, group_size=2).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.uniform_(0.2, 0.8)
    names = [name for name, _ in layer.named_parameters()]

    def function(x, *params):
        return torch.func.functional_call(layer, dict(zip(names, params, strict=True)), (x,))

    # In float64, so this is the plain form; the compiled one is held against it below.
    inputs = [image((2, 4, 2, 3)).requires_grad_(), *(p.detach().clone().requires_grad_() for p in layer.parameters())]
    assert torch.autograd.gradcheck(function, inputs)


def test_one_parameter_set_and_no_more():
    for norm in ("bn", "in", "ln", "gn"):
        assert {n: p.shape for n, p in norms.make_norm(norm, 8).named_parameters()} == {"weight": (8,), "bias": (8,)}
    assert set(dict(BatchInstanceNorm2d(8).named_parameters())) == {"weight", "bias", "rho"}
    assert list(dict(BatchNorm2d(8).named_buffers())) == ["running_mean", "running_var", "num_batches_tracked"]
    for layer in (BatchNorm2d(8, affine=False), InstanceNorm2d(8, affine=False), GroupNorm2d(2, 8, affine=False)):
        assert not list(layer.parameters())
        assert layer(image((2, 8, 3, 3), dtype=torch.float32)).std() == pytest.approx(1, abs=0.05)


def test_each_key_has_its_layer_whose_settings_are_seen():
    assert {norm: repr(norms.make_norm(norm, 8)) for norm in NORMS if norm not in ("torch_bn", "nn")} == {
        "bn": "BatchNorm2d(8, eps=1e-05, affine=True, momentum=0.1)",
        "in": "InstanceNorm2d(8, eps=1e-05, affine=True)",
        "bin": "BatchInstanceNorm2d(8, eps=1e-05, affine=True, momentum=0.1)",
        "ln": "LayerNorm2d(8, eps=1e-05, affine=True)",
        "gn": "GroupNorm2d(2, 8, eps=1e-05, affine=True)",
    }
    assert type(norms.make_norm("torch_bn", 8)) is nn.BatchNorm2d and type(norms.make_norm("nn", 8)) is nn.Identity
    assert norms.make_norm("gn", 8, 1).num_groups == 8 and "eps=1.0" in repr(BatchNorm2d(8, eps=1))


@pytest.mark.parametrize("given, statistics", [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_precision_of_the_statistics(monkeypatch, given, statistics):
    seen, real = [], norms.moments
    monkeypatch.setattr(norms, "moments", lambda x: seen.append(x.dtype) or real(x))
    x = image((2, 4, 3, 3), dtype=getattr(torch, given))
    assert BatchNorm2d(4)(x).dtype == x.dtype and seen == [getattr(torch, statistics)]


def test_affine_false_bin_keeps_its_gate():
    layer = BatchInstanceNorm2d(8, affine=False)
    assert list(dict(layer.named_parameters())) == ["rho"]
    layer(image((2, 8, 3, 3), dtype=torch.float32)).square().sum().backward()
    assert layer.rho.grad is not None


@pytest.mark.parametrize("norm", ["in", "ln", "gn"])
def test_images_do_not_see_each_other(norm):
    layer, x = norms.make_norm(norm, 8).double(), image((4, 8, 3, 3))
    alone = torch.cat([layer(one[None]) for one in x])
    assert torch.equal(layer(x), alone)


@pytest.mark.parametrize("norm", ["bn", "bin"])
def test_evaluation_does_not_depend_on_the_other_images(norm):
    layer = norms.make_norm(norm, 8).double()
    layer(image((4, 8, 3, 3), mean=3))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.eval()
    x = image((4, 8, 3, 3))
    assert torch.equal(layer(x), torch.cat([layer(one[None]) for one in x]))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())  # nor does it move them


@pytest.mark.parametrize("norm", ["bn", "bin", "in", "ln", "gn"])
def test_state_dict_round_trip(norm, tmp_path):
    layer = norms.make_norm(norm, 8)
    layer(image((4, 8, 3, 3), mean=3, dtype=torch.float32))
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    other = norms.make_norm(norm, 8)
    other.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    x = image((4, 8, 3, 3), dtype=torch.float32)
    assert torch.equal(layer.eval()(x), other.eval()(x))


def test_bn_state_loads_into_pytorch_and_keeps_no_graph():
    ours, theirs = BatchNorm2d(8), nn.BatchNorm2d(8)
    ours(image((4, 8, 3, 3), mean=3, dtype=torch.float32).requires_grad_())
    assert not ours.running_mean.requires_grad and ours.running_mean.grad_fn is None
    theirs.load_state_dict(ours.state_dict())
    x = image((4, 8, 3, 3), dtype=torch.float32)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("norm", ["bn", "bin", "in", "ln", "gn"])
def test_statistics_are_float32_under_bf16_autocast(norm):
    """bf16 sums over 4,096 values would be off by percents; the output may only carry bf16's last digit."""
    layer = norms.make_norm(norm, 8)
    x = image((4, 8, 32, 32), mean=5, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    exact = norms.make_norm(norm, 8).double()(x.double())
    assert y.dtype == torch.bfloat16
    assert checks.largest(y, exact) < 2**-8
    assert all(value.dtype == torch.float32 for name, value in layer.state_dict().items() if "num" not in name)


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", ["BN", "IN", "LN", "GN"])
def test_float32_survives_a_large_mean(name, form):
    ours, theirs = checks.pairs(16)[name]
    x = image((8, 16, 8, 8), 1e3, 0.1, form, torch.float32)
    exact = theirs.double()(x.double().contiguous())
    assert (ours(x) - exact).abs().max() < 0.01


@pytest.mark.parametrize("name", ["BN", "IN", "LN", "GN"])
def test_at_a_large_mean_ours_is_the_one_nearer_to_the_truth(name):
    """Taking 1e4 from values near 1e4 is exact, and no norm sees it; so the built-in layer on what is left is the truth."""
    pair, x = checks.pairs(16)[name], image((16, 16, 32, 32), 1e4, 0.1)
    g, results = torch.randn_like(x), []
    for layer, shift in (*zip(pair, (0, 0), strict=True), (pair[1], 1e4)):
        layer = layer.double()
        layer.zero_grad()
        values = (x - shift).requires_grad_()
        layer(values).backward(g)
        results.append((values.grad, layer.weight.grad.clone()))
    ours, theirs, truth = results
    for mine, other, exact in zip(ours, theirs, truth, strict=True):
        assert checks.largest(mine, exact) < 5e-9
        assert checks.largest(mine, exact) <= 2 * checks.largest(other, exact)


@pytest.mark.parametrize("name", ["BN", "IN", "BIN", "LN", "GN"])
def test_float32_as_in_training_is_near_to_the_truth(name):
    ours, theirs = checks.pairs(16)[name]
    x = image((8, 16, 32, 32))
    own = x.float().contiguous(memory_format=torch.channels_last)
    errors = checks.compare(ours, theirs, x, own=own)
    of_gate = errors.pop("gradient of rho", 0.0)  # a sum over all places of differences between two norms, which nearly cancel
    assert 0 < max(errors.values()) < 1e-5 and of_gate < 2e-4
    assert {"output", "gradient of x", "gradient of weight", "gradient of bias"} <= errors.keys()
    wrong = type(ours)(4, 16, eps=1e-3) if name == "GN" else type(ours)(16, eps=1e-3)
    wrong.load_state_dict(ours.state_dict())
    assert checks.compare(wrong, theirs, x, own=own)["output"] > 1e-5  # what the comparison would see


def test_group_norm_with_one_channel_per_group_is_instance_norm_and_with_one_group_layer_norm():
    x = image((3, 8, 4, 4))
    torch.testing.assert_close(GroupNorm2d(8, 8).double()(x), InstanceNorm2d(8).double()(x))
    torch.testing.assert_close(GroupNorm2d(1, 8).double()(x), LayerNorm2d(8).double()(x))
    assert not torch.allclose(GroupNorm2d(2, 8).double()(x), GroupNorm2d(4, 8).double()(x))  # the group count counts


def test_backward_twice_when_the_graph_is_kept():
    layer, x = BatchNorm2d(4).double(), image((2, 4, 3, 3)).requires_grad_()
    y = layer(x).square().sum()
    y.backward(retain_graph=True)
    once = x.grad.clone()
    y.backward()
    torch.testing.assert_close(x.grad, 2 * once)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_gate_learns_and_stays_between_0_and_1(optimizer):
    layer = BatchInstanceNorm2d(6)
    assert torch.equal(layer.rho.detach(), torch.ones(6))
    opt = optimizer([layer.rho], lr=0.7)
    norms.keep_gates(layer, opt)
    direction = torch.tensor([1.0, -1.0, 1.0, -1.0, 0.3, -0.3])
    seen = []
    for _ in range(20):
        opt.zero_grad()
        layer(image((4, 6, 3, 3), dtype=torch.float32))
        (layer.rho * direction).sum().backward()
        opt.step()
        assert layer.rho.min() >= 0 and layer.rho.max() <= 1
        seen.append(layer.rho.detach().clone())
    assert seen[-1][0] == 0 and seen[-1][1] == 1  # both ends are reached, neither is passed
    assert not torch.equal(seen[0], torch.ones(6))


def test_one_value_is_fine_for_bn_in_eval():
    assert BatchNorm2d(8).eval()(torch.zeros(1, 8, 1, 1)).shape == (1, 8, 1, 1)


def test_no_torch_normalization_function_is_called(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a built-in normalization was called")

    for owner, names in ((nn.functional, ["batch_norm", "instance_norm", "layer_norm", "group_norm"]), (torch, [
        "batch_norm", "instance_norm", "layer_norm", "group_norm", "native_batch_norm", "native_group_norm",
        "native_layer_norm", "batch_norm_stats"])):  # fmt: skip
        for name in names:
            monkeypatch.setattr(owner, name, refuse)
    x = image((2, 8, 3, 3), dtype=torch.float32).requires_grad_()
    for norm in set(NORMS) - {"torch_bn"}:
        norms.make_norm(norm, 8)(x).sum().backward()
    with pytest.raises(AssertionError, match="built-in"):
        norms.make_norm("torch_bn", 8)(x)


# The compiled form, which a run takes in float32 and bfloat16 on a CPU; all of the above is the plain form.


@pytest.mark.parametrize("norm", ["bn", "in", "bin", "ln", "gn"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("with_shortcut", [False, True], ids=["alone", "shortcut"])
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("shape", [(4, 8, 5, 3), (2, 16, 32, 32), (1, 4, 2, 2), (3, 12, 7, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_compiled_form_is_the_plain_form(norm, training, with_shortcut, relu, shape, dtype, form):
    generator = torch.Generator().manual_seed(shape[0])
    x, shortcut, g = ((2 + torch.randn(shape, generator=generator)).to(dtype).contiguous(memory_format=form) for _ in range(3))
    found = []
    for kind in (dtype, torch.float64):
        layer = norms.make_norm(norm, shape[1])
        values = torch.rand(3, shape[1], generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            for p, value in zip(layer.parameters(), values, strict=False):
                p.copy_(value)
            for name, buffer in layer.named_buffers():
                buffer.add_(0.5 if "running" in name else 0)
        compiled(layer.train(training).to(torch.promote_types(kind, torch.float32)))
        assert takes(layer, x.to(kind)) == (kind is dtype)
        inputs = [t.to(kind).requires_grad_() for t in ([x, shortcut] if with_shortcut else [x])]
        y = layer(*inputs, relu=relu)
        assert y.dtype == kind
        grads = torch.autograd.grad(y, [*inputs, *layer.parameters()], g.to(kind))
        found.append([y.detach(), *grads, *layer.buffers()])
    mine, reference = ([t.double() for t in tensors] for tensors in found)
    for a, b in zip(mine, reference, strict=True):
        tolerance = 1e-5 if dtype == torch.float32 or a.dim() < 4 else 2**-8
        assert checks.largest(a, b) <= tolerance * max(1.0, b.abs().max().item()), norm


@pytest.mark.parametrize("norm", ["bn", "in", "bin", "ln", "gn"])
@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="there is one core")
def test_the_number_of_threads_changes_no_bit(norm):
    torch.manual_seed(0)
    x, g = torch.randn(9, 16, 8, 8), torch.randn(9, 16, 8, 8)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            layer, leaf = compiled(norms.make_norm(norm, 16)), x.clone().requires_grad_()
            y = layer(leaf, relu=True)
            found.append([y, *torch.autograd.grad(y, [leaf, *layer.parameters()], g)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_form_lets_nan_and_infinity_through(dtype):
    """A ReLU that turned NaN into zero would hide that a run diverged."""
    for bad in (float("nan"), float("inf")):
        x = torch.ones(2, 4, 3, 3, dtype=dtype)
        x[1, 2, 0, 0] = bad
        y = compiled(InstanceNorm2d(4))(x, relu=True)
        assert y[1, 2].isnan().any() and y[0].isfinite().all() and y[1, :2].isfinite().all()


def test_bfloat16_is_rounded_to_nearest_even():
    layer = compiled(BatchNorm2d(4).eval())
    layer.eps = 1e-30
    x = torch.randn(64, 4, 5, 5).bfloat16()
    with torch.no_grad():
        layer.weight.fill_(1 + 2**-10)
        expected = (x.float() * layer.weight[0]).bfloat16()
        assert torch.equal(layer(x), expected)


def test_a_shortcut_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="shortcut has shape"):
        compiled(BatchNorm2d(4))(torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 1, 3))


def test_weights_may_change_between_forward_and_backward():
    layer, x = compiled(BatchInstanceNorm2d(4)), torch.randn(2, 4, 3, 3, requires_grad=True)
    y = layer(x)
    (expected,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    with torch.no_grad():
        layer.weight.zero_(), layer.rho.zero_()
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], expected)


@pytest.mark.parametrize("affine", [True, False])
def test_a_layer_in_another_precision_than_the_loops_take(affine):
    for layer in (BatchNorm2d(4, affine=affine), BatchInstanceNorm2d(4, affine=affine), LayerNorm2d(4, affine=affine)):
        y = compiled(layer.bfloat16())(torch.randn(3, 4, 5, 5).bfloat16())
        assert y.dtype == torch.bfloat16 and y.isfinite().all()


def test_no_nan_is_rounded_to_a_number():
    layer = compiled(InstanceNorm2d(2))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0x7FFFFFFF, 0x7FC00000], dtype=torch.int32).view(torch.float32))
    assert layer(torch.randn(1, 2, 3, 3).bfloat16()).isnan().all()


ONE_THREAD = """
import torch
torch.set_num_threads(1)
from lib.engine.compiled import compiled
from lib.norms import BatchNorm2d
compiled(BatchNorm2d(8))(torch.randn(4, 8, 4, 4, requires_grad=True)).sum().backward()
print(torch.get_num_threads())
"""


def test_the_compiled_norms_leave_pytorchs_number_of_threads_alone():
    """Numba and PyTorch share OpenMP's; one that sets it would make a run on one thread a run on all."""
    kwargs = {"capture_output": True, "text": True, "cwd": ROOT, "env": os.environ | {"NUMBA_NUM_THREADS": "2"}}
    done = subprocess.run([sys.executable, "-c", ONE_THREAD], check=True, **kwargs)
    assert done.stdout == "1\n"


@pytest.mark.parametrize("norm", NORMS)
def test_second_derivatives_are_right_or_refused(norm):
    """A Hessian-vector product of a whole network: that of central differences by the plain norms, an error by the compiled."""
    torch.manual_seed(0)
    network = ResNet(1, 3, norm).double()
    with torch.no_grad():  # off the zeros, where ReLU has no derivative
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    x, y = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    weights = list(network.parameters())
    along = [torch.randn_like(w) for w in weights]

    def slopes(step=0.0, **kwargs):
        moved = {name: w + step * v.to(w) for (name, w), v in zip(network.named_parameters(), along, strict=True)}
        loss = nn.functional.cross_entropy(torch.func.functional_call(network, moved, x.to(weights[0].dtype)), y)
        return torch.autograd.grad(loss, weights, **kwargs)

    found = torch.autograd.grad(slopes(create_graph=True), weights, along, materialize_grads=True)
    ahead, behind = slopes(1e-6), slopes(-1e-6)
    error = sum((h - (a - b) / 2e-6).square().sum() for h, a, b in zip(found, ahead, behind, strict=True))
    assert error < 1e-8 * sum(h.square().sum() for h in found)
    weights = list(compiled(network.float()).parameters())
    if norm not in ("torch_bn", "nn"):
        with pytest.raises(RuntimeError, match="no second derivative"):
            slopes(create_graph=True)


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("momentum", [0, 0.0, 0.25, 1, 1.0, None])
def test_the_edges_of_what_the_checks_allow_are_pytorchs(momentum, fast):
    """One channel, exactly two values to a channel or a map, groups of one channel, a momentum of 0 or 1."""
    torch.manual_seed(0)
    cases = [
        (BatchNorm2d(1, momentum=momentum), nn.BatchNorm2d(1, momentum=momentum), (2, 1, 1, 1)),
        (BatchNorm2d(3, momentum=momentum), nn.BatchNorm2d(3, momentum=momentum), (1, 3, 2, 1)),
        (InstanceNorm2d(1), nn.InstanceNorm2d(1, affine=True), (1, 1, 1, 2)),
        (LayerNorm2d(1), nn.GroupNorm(1, 1), (2, 1, 2, 1)),
        (GroupNorm2d(4, 4), nn.GroupNorm(4, 4), (2, 4, 2, 1)),
        (GroupNorm2d(1, 1), nn.GroupNorm(1, 1), (1, 1, 3, 3)),
        (BatchInstanceNorm2d(1, momentum=momentum), checks.ComposedBIN(1), (1, 1, 2, 1)),
    ]
    for ours, theirs, shape in cases:
        ours = compiled(ours) if fast else ours
        if isinstance(theirs, checks.ComposedBIN):
            theirs.bn.momentum = momentum
            theirs.bias.data.zero_()
        for _ in range(3):
            x = torch.randn(shape)
            torch.testing.assert_close(ours(x), theirs(x), atol=2e-4, rtol=2e-4)
        for buffer in ("running_mean", "running_var", "num_batches_tracked"):
            if hasattr(ours, buffer):
                expected = getattr(getattr(theirs, "bn", theirs), buffer)
                torch.testing.assert_close(getattr(ours, buffer), expected, atol=1e-5, rtol=1e-5)


def test_the_switch_keeps_weights_names_and_classes():
    plain = ResNet(1, 10, "bin")
    fast = compiled(copy.deepcopy(plain))
    assert repr(fast).replace("Fused", "") == repr(plain) and isinstance(fast, ResNet)
    assert all(torch.equal(value, fast.state_dict()[name]) for name, value in plain.state_dict().items())
    assert type(compiled(fast)) is type(fast)  # once is enough
    assert not any(isinstance(m, Compiled) for m in plain.modules())
    x = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(fast(x), plain(x), atol=1e-4, rtol=1e-4)


def test_compiled_norms_without_a_folder_to_keep_them_in(tmp_path):
    """A checkout and a home that cannot be written: here files stand where the folders would be, which stops root too."""
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "lib" / "engine" / "__pycache__").write_text("")
    (tmp_path / "home").write_text("")
    code = (
        "import os, torch; from lib.engine.compiled import compiled; from lib.resnet import ResNet; "
        "print(compiled(ResNet(1, 10, 'bn'))(torch.randn(2, 3, 8, 8)).shape, os.environ['NUMBA_CACHE_DIR'])"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "XDG"))}
    env |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shape, _, folder = done.stdout.strip().rpartition(" ")
    assert shape == "torch.Size([2, 10])" and list(Path(folder).rglob("*.nbc"))
    assert done.stderr == f"compiled norms are kept in {folder}: no other cache folder can be written\n"
