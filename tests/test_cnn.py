"""The six-convolution network: its layers as they were printed, what it refuses, its losses, and that it trains and resumes."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import train
from lib.data import load
from lib.engine import machine
from lib.engine.store import Folder
from lib.networks import ACTIVATIONS, CNN
from lib.run import Run
from lib.train import Trainer, fit, loss_of, new_model, new_optimizer

# Parameters of each layer and its output, as reference document 004 prints them.
PRINTED = {
    "Conv2d": [
        (168, (6, 30, 30)), (440, (8, 13, 13)), (90, (10, 13, 13)), (132, (12, 13, 13)), (182, (14, 13, 13)),
        (240, (16, 13, 13)),
    ],
    "MaxPool2d": [(0, (6, 15, 15))],
    "BatchNorm2d": [(28, (14, 13, 13))],
    "Linear": [(2_769_920, (1024,)), (524_800, (512,)), (131_328, (256,)), (2_570, (10,))],
    "BatchNorm1d": [(1_024, (512,))],
}  # fmt: skip
SMALL = {
    "model": "cnn",
    "dataset": "digits",
    "train_size": 64,
    "batch_size": 32,
    "epochs": 3,
    "warmup_epochs": 0,
    "precision": "float32",
}


def layers(model):
    """name of the kind -> (parameters, shape of the output) of each layer, in the order in which they are called."""
    found = {}

    def note(module, _, output):
        size = sum(p.numel() for p in module.parameters())
        found.setdefault(type(module).__name__, []).append((size, tuple(output.shape[1:])))

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    model(torch.zeros(2, 3, 32, 32))
    return found


def test_layers_are_those_that_were_printed():
    found = layers(CNN(10))
    assert {kind: found[kind] for kind in PRINTED} == PRINTED
    assert sum(p.numel() for p in CNN(10).parameters()) == 3_430_922


def test_dropout_stands_where_the_norms_stood():
    found = layers(CNN(10, "dropout"))
    assert found["Dropout2d"] == [(0, (14, 13, 13))] and found["Dropout"] == [(0, (512,))]
    assert {kind: found[kind] for kind in ("Conv2d", "Linear")} == {kind: PRINTED[kind] for kind in ("Conv2d", "Linear")}
    assert not any("Norm" in kind for kind in found)
    assert not {"Dropout2d", "Dropout", "BatchNorm2d", "BatchNorm1d"} & layers(CNN(10, "nn")).keys()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_the_one_asked_for(name):
    found = layers(CNN(10, "torch_bn", name))
    assert len(found[ACTIVATIONS[name].__name__]) == 9  # after all ten layers with weights but the last
    others = {kind.__name__ for kind in ACTIVATIONS.values()} - {ACTIVATIONS[name].__name__}
    assert not others & found.keys()


def test_losses_are_those_of_one_hot_targets():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])
    target = F.one_hot(labels, 4).float()
    assert loss_of(logits, labels, "cross_entropy") == nn.CrossEntropyLoss()(logits, labels)
    assert loss_of(logits, labels, "mse") == nn.MSELoss()(logits, target)
    assert loss_of(logits, labels, "l1") == nn.L1Loss()(logits, target)


@pytest.mark.parametrize(
    "kwargs, says",
    [
        ({"model": "vgg"}, "unknown model 'vgg'; allowed are resnet, cnn, resnet50"),
        ({"model": "cnn", "norm": "bn"}, "unknown norm 'bn'; allowed are torch_bn, dropout, nn"),
        ({"norm": "dropout"}, "unknown norm 'dropout'; allowed are torch_bn, bn"),
        ({"activation": "tanh"}, "unknown activation 'tanh'; allowed are relu"),
        ({"model": "cnn", "activation": "gelu"}, "unknown activation 'gelu'; allowed are relu, identity, tanh, sigmoid"),
        ({"criterion": "hinge"}, "unknown criterion 'hinge'; allowed are cross_entropy, mse, l1"),
    ],
)
def test_what_cannot_be_is_said(kwargs, says):
    with pytest.raises(ValueError, match=says):
        Run(**kwargs)


def test_images_of_another_size_are_averaged_to_the_printed_one():
    assert CNN(10)(torch.zeros(2, 3, 64, 48)).shape == CNN(10)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match=r"was given shape \(2, 3, 7, 32\); it takes \(N, 3, H, W\), both sides at least 8"):
        CNN(10)(torch.zeros(2, 3, 7, 32))


def test_a_last_batch_of_one_is_refused_where_it_has_no_variance():
    data = load("digits", "data", 0, 65)
    with pytest.raises(ValueError, match="65 images in batches of 32 leave a batch of one image"):
        train.check_data(Run(**SMALL | {"train_size": 65}), data)
    train.check_data(Run(**SMALL | {"train_size": 65, "norm": "dropout"}), data)


def test_new_fields_leave_the_ids_of_earlier_runs_alone():
    assert Run(augment="crop+flip").id == "cifar10-torch_bn-n2-b128-e100-s0-9e21af40"
    assert Run().id == "cifar10-torch_bn-n2-b128-e100-s0-fb545889"
    assert len({Run().id, Run(criterion="mse").id, Run(model="cnn").id, Run(model="cnn", activation="tanh").id}) == 4
    assert Run(model="cnn").id.startswith("cifar10-torch_bn-cnn-b128-e100-s0-")


def test_a_run_from_before_a_field_came_is_read(tmp_path):
    run = Run(n=1, dataset="digits", train_size=64, batch_size=32, epochs=1, warmup_epochs=0)
    fit(run, tmp_path, progress=False)
    folder = Folder(run, tmp_path)
    config = json.loads((folder.path / "config.json").read_text())
    for name in ("model", "activation", "criterion"):
        del config[name]
    folder.write_json("config.json", config)
    folder.seal()
    assert folder.sound


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "l1"])
def test_it_learns_with_each_loss(loss):
    run = Run(**SMALL | {"criterion": loss, "optimizer": "adam", "lr": 1e-3, "augment": "none", "schedule": "constant"})
    data, model = load("digits", "data", 0, 64), new_model(run)
    trainer = Trainer(run, model, new_optimizer(run, model), data)
    with machine.one_cpu_thread():
        losses = [trainer.epoch(epoch, Bar())["train_loss"] for epoch in range(1, 16)]
    assert losses[-1] < 0.5 * losses[0]


class Bar:
    def update(self):
        pass


def test_dropout_resumes_bit_for_bit(tmp_path, monkeypatch):
    run = Run(**SMALL | {"norm": "dropout"})
    whole = fit(run, tmp_path / "whole", progress=False)
    save = Folder.save_checkpoint

    def stop_after_two(self, state):
        save(self, state)
        if state["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "save_checkpoint", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        fit(run, tmp_path / "stopped", progress=False)
    monkeypatch.undo()
    torch.manual_seed(99)
    resumed = fit(run, tmp_path / "stopped", progress=False)
    columns = ["train_loss", "val_loss"]
    assert resumed.history[columns].equals(whole.history[columns])
    assert whole.history["train_loss"].nunique() == 3
