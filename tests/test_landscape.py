"""Steps along the gradient, against PyTorch's layers in float64 and a loss whose shape is known."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import train
from lib.data import ROOT
from lib.engine.store import Folder
from lib.resnet import ResNet
from lib.run import Run
from lib.trainer import learning_rate
from report import landscape

TINY = Run(
    norm="bn", n=1, dataset="digits", train_size=48, batch_size=16, epochs=3, warmup_epochs=1, augment="crop",
    precision="float32", probe=True,
)  # fmt: skip


def test_along_a_straight_loss_the_gradient_stays_and_the_loss_falls_by_its_square():
    model = nn.Linear(4, 3, bias=False).double()
    x, y = torch.randn(5, 4).double(), torch.tensor([0, 1, 2, 0, 1])
    _, (gradient,) = landscape.slope(model, x, y, "l1")  # far from its kinks this loss is straight
    rows = landscape.along_the_gradient(model, x, y, "l1", [1e-6, 2e-6])
    for row, length in zip(rows, (1e-6, 2e-6), strict=True):
        assert row["loss"] - row["moved"] == pytest.approx(length * gradient.square().sum().item(), rel=1e-6)
        assert row["change"] == pytest.approx(0, abs=1e-12)


def test_along_a_parabola_the_gradient_changes_in_proportion_to_the_step():
    model, x = nn.Linear(3, 3, bias=False).double(), torch.eye(3).double()
    rows = landscape.along_the_gradient(model, x, torch.arange(3), "mse", [0.1, 0.3])
    assert rows[1]["change"] == pytest.approx(3 * rows[0]["change"]) and rows[0]["change"] == pytest.approx(0.1 * 2 / 9)


def test_a_step_of_a_network_is_pytorchs(tmp_path):
    data, model = train.load_data(TINY, tmp_path), train.new_model(TINY)
    x, y = data.normalize(data.train.images[:16]), data.train.labels[:16]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (row,) = landscape.along_the_gradient(model, x, y, "cross_entropy", [0.5])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    reference = ResNet(TINY.n, TINY.classes, "torch_bn").double()
    reference.load_state_dict(before)
    losses, gradients = [], []
    for _ in range(2):
        loss = F.cross_entropy(reference(x.double()), y)
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, list(reference.parameters())))
        with torch.no_grad():
            for p, g in zip(reference.parameters(), gradients[-1], strict=True):
                p -= 0.5 * g
    first, second = (torch.cat([g.flatten() for g in each]) for each in gradients)
    assert (row["loss"], row["moved"]) == pytest.approx(losses, rel=1e-4)
    assert row["change"] == pytest.approx(((second - first).norm() / first.norm()).item(), rel=1e-3)


@pytest.mark.parametrize("norm", ["bn", "nn"])
def test_a_run_is_followed_exactly_as_it_was_trained(tmp_path, norm):
    run = replace(TINY, norm=norm, clip_norm=1.0 if norm == "nn" else None)
    result = train.fit(run, tmp_path, progress=False)
    found = landscape.landscape(result, train.load_data(run, tmp_path))
    assert len(found) == 3 * 3 * len(landscape.STEPS) and sorted(found["epoch"].unique()) == [1, 2, 3]
    checkpoint = Folder(run, tmp_path).load_checkpoint()["model"]
    last = found[found["epoch"] == 3].iloc[0]
    lengths = [name for name in found.columns if name.startswith("|")]
    assert lengths[0] == "|conv1|" and len(lengths) == 7
    for name in lengths:
        assert last[name] == pytest.approx(checkpoint[f"{name.strip('|')}.weight"].norm().item(), rel=1e-6)
    pd.testing.assert_frame_equal(found, landscape.landscape(result, None))  # kept: the data are not asked for again


STEPS = pd.DataFrame(
    [
        ("bn", 1, 0, 0.1, 1.0, 2.0, 1.5, 0.3, 3.0, 4.0), ("bn", 1, 0, 0.1, 4.0, 2.0, 1.0, 0.6, 3.0, 4.0),
        ("bn", 1, 1, 0.1, 1.0, 2.0, 1.0, 0.1, 3.0, 4.0), ("bn", 1, 1, 0.1, 4.0, 2.0, 4.0, 0.8, 3.0, 4.0),
        ("nn", 1, 0, 0.1, 1.0, 2.0, 7.0, 5.0, 2.0, 1.0), ("nn", 1, 0, 0.1, 4.0, 2.0, 1.5, 6.0, 2.0, 1.0),
    ],
    columns=["norm", "epoch", "batch", "rate", "step", "loss", "moved", "change", "|conv1|", "|layer3.1.conv2|"],
)  # fmt: skip


def test_an_epoch_has_the_mean_over_its_batches_and_the_length_of_all_weights_together():
    rows = landscape.by_epoch(STEPS)
    assert rows.index.tolist() == [("bn", 1), ("nn", 1)]
    assert rows["change"].tolist() == pytest.approx([0.2, 5.0]) and rows["rise"].tolist() == pytest.approx([0.5, -0.5])
    assert rows["uphill"].tolist() == [1, 0] and rows["length"].tolist() == pytest.approx([5.0, 5**0.5])


def test_the_committed_steps_are_those_that_the_code_says():
    found = landscape.followed(ROOT / "outputs")
    assert set(found["norm"]) == set(landscape.FOLLOWED) and set(found["step"]) == set(landscape.STEPS)
    for (_, epoch), rows in found.groupby(["norm", "epoch"]):
        assert rows["rate"].tolist() == pytest.approx([learning_rate(Run(epochs=12), epoch - 0.5)] * len(rows))
        assert len(rows) == landscape.BATCHES * len(landscape.STEPS)


def test_effective_rates_are_by_layer_and_norm():
    rates = landscape.effective_rates(STEPS, epoch=1)
    assert rates.index.tolist() == ["stem", "3.2.2"] and rates.columns.tolist() == ["bn", "nn"]
    assert rates["bn"].tolist() == pytest.approx([0.1 / 9, 0.1 / 16]) and rates.loc["stem", "nn"] == pytest.approx(0.1 / 4)


def test_what_was_followed_is_read_and_the_rest_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(landscape.probes, "short", lambda norm, seeds: [replace(TINY, norm=norm)])
    empty = landscape.followed(tmp_path)
    assert landscape.by_epoch(empty).empty and landscape.effective_rates(empty, 6).empty
    for norm in ("bn", "gn"):
        train.fit(replace(TINY, norm=norm), tmp_path, progress=False)
    result = train.fit(replace(TINY, norm="bn"), tmp_path, progress=False)
    kept = landscape.landscape(result, train.load_data(TINY, tmp_path))
    found = landscape.followed(tmp_path)
    assert set(found["norm"]) == {"bn"}
    pd.testing.assert_frame_equal(found.drop(columns="norm").reset_index(drop=True), kept, check_dtype=False)
    (result.path / landscape.FILE).write_text("torn")
    assert landscape.followed(tmp_path).empty
