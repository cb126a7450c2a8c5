"""Starting from another network's weights, ImageNet's file and its hash, and one class against the rest."""

import hashlib
import json
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torchvision.models._api import Weights, WeightsEnum
from torchvision.models.resnet import Bottleneck, ResNet

from lib import data, train
from lib.engine import files, weights
from lib.engine.jobs import train_group
from lib.engine.store import Folder, Result
from lib.networks import ResNet50
from lib.run import Run
from lib.study import Study
from lib.train import fit
from report import transfer
from report.build import waiting

SMALL = {
    "norm": "bn", "n": 1, "dataset": "digits", "train_size": 64, "batch_size": 32, "epochs": 1, "warmup_epochs": 0,
    "augment": "none", "precision": "float32",
}  # fmt: skip
SOURCE = Run(**SMALL, only_classes="5-9", classes=5)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    fit(SOURCE, folder, progress=False)
    return folder


def tuned(**changes):
    return Run(**SMALL | {"only_classes": "0-3", "classes": 4, "init": SOURCE.id} | changes)


def test_only_classes_are_those_images_of_each_part_in_their_order():
    whole, part = data.load("digits"), data.load("digits", only_classes="5-9")
    for name in ("train", "val", "test"):
        split, kept = getattr(whole, name), getattr(part, name)
        chosen = split.labels >= 5
        assert torch.equal(kept.images, split.images[chosen]) and torch.equal(kept.labels + 5, split.labels[chosen])
    assert part.classes == tuple("56789")


@pytest.mark.parametrize("given", ["5", "5-5", "7-5", "a-b", "-3", 5])
def test_what_names_no_two_classes_is_said(given):
    with pytest.raises(ValueError, match="it must be the first and last of two or more classes, as in 0-4"):
        data.load("digits", only_classes=given)


def test_classes_that_are_not_there_are_said():
    with pytest.raises(ValueError, match="only_classes is 5-12; digits has the classes 0 to 9"):
        data.load("digits", only_classes="5-12")
    with pytest.raises(ValueError, match=r"classes \(r\) is 10, but only_classes 0-4 has 5"):
        Run(only_classes="0-4")


def test_a_run_starts_from_anothers_weights_but_for_the_last_layer(outputs):
    model, source = train.new_model(tuned()), Result(SOURCE, outputs).model().state_dict()
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights.start_from(model, weights.initial_weights(tuned(), outputs), data.load("digits", only_classes="0-3"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name.startswith("linear.") else source[name]), name
    assert not torch.equal(fresh["conv1.weight"], source["conv1.weight"])


def test_it_trains_from_there(outputs, monkeypatch):
    real, seen = train.Trainer, []

    def watched(run, model, *rest):
        seen.append(model.conv1.weight.detach().clone())
        return real(run, model, *rest)

    monkeypatch.setattr(train, "Trainer", watched)
    fit(tuned(), outputs, progress=False)
    assert len(seen) == 1 and torch.equal(seen[0], Result(SOURCE, outputs).model().conv1.weight)
    assert tuned().id != tuned(init="").id


def test_a_source_that_is_not_finished_or_another_network_is_said(outputs, tmp_path):
    with pytest.raises(ValueError, match="which is no finished run in"):
        fit(tuned(), tmp_path, progress=False)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ValueError, match="which differs in n; it must be a run of the same network"):
        fit(tuned(n=2), outputs, progress=False)
    with pytest.raises(
        ValueError, match="init is 'imagenet'; it must be the id of a run, or imagenet if the model is resnet50"
    ):
        tuned(init="imagenet")


def test_a_diverged_run_is_no_start(outputs, monkeypatch):
    monkeypatch.setattr(Result, "diverged", True)
    with pytest.raises(ValueError, match="whose loss became no number; give a run that converged, or another seed"):
        weights.initial_weights(tuned(), outputs)


def test_a_worker_without_the_source_gets_its_weights(outputs, tmp_path):
    start = weights.initial_weights(tuned(), outputs)
    ((_, files),) = train_group([tuned()], tmp_path, tmp_path, None, False, {tuned().init: start}, 1)
    here = fit(tuned(), outputs, progress=False)
    assert files["best.safetensors"] == (here.path / "best.safetensors").read_bytes()


def test_a_backbone_of_another_network_is_refused_before_training(tmp_path):
    cnn = Run(**SMALL | {"model": "cnn", "norm": "dropout"})
    fit(cnn, tmp_path, progress=False)
    with pytest.raises(ValueError, match="a run of the model cnn; it must be one of a resnet"):
        Study("smoke", "digits", outputs=tmp_path).transfer(cnn.id)


def test_a_study_trains_the_source_first(tmp_path):
    study = Study("smoke", "digits", outputs=tmp_path, jobs=1)
    found = study.fit(["transfer"], progress=False)
    backbone, fine = (found[name][0].run for name in ("backbone", "fine-tuned at 0.01"))
    assert fine.init == backbone.id and Folder(backbone, tmp_path).sound
    assert (backbone.only_classes, fine.only_classes, found["scratch at 0.01"][0].run.init) == ("5-9", "0-4", "")


def small_resnet():
    return ResNet(Bottleneck, [1, 1, 1, 1], width_per_group=4)


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """A network with ResNet-50's last width and some of its blocks, and a file of weights for it, which torchvision's own code
    takes from PyTorch Hub's folder: (the file, its state)."""
    monkeypatch.setattr(torchvision.models, "resnet50", small_resnet)
    torch.manual_seed(7)
    state = small_resnet().state_dict()
    torch.save(state, tmp_path / "weights.pth")
    digest = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()[:8]

    class Small(WeightsEnum):
        V1 = Weights(url=f"http://127.0.0.1:9/resnet50-{digest}.pth", transforms=None, meta={})

    monkeypatch.setattr(weights, "weights_entry", lambda: Small.V1)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "weights.pth", state


def test_weights_come_from_a_file_and_then_from_the_cache(imagenet):
    file, state = imagenet
    with pytest.raises(ValueError, match=r"are not in .* and could not be downloaded from http://127.0.0.1:9/resnet50-"):
        weights.imagenet_weights()
    for _ in range(2):
        found = weights.imagenet_weights(file)
        assert found.keys() == {name for name in state if not name.startswith("fc.")}
        assert all(torch.equal(found[name], state[name]) for name in found)
        file = ""


def test_a_host_of_weights_that_says_nothing_is_given_up(imagenet, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:

        class Small(WeightsEnum):
            V1 = Weights(url=f"http://127.0.0.1:{silent.getsockname()[1]}/resnet50-01234567.pth", transforms=None, meta={})

        monkeypatch.setattr(weights, "weights_entry", lambda: Small.V1)
        monkeypatch.setattr(files, "SILENCE", 0.2)
        with pytest.raises(ValueError, match=r"could not be downloaded from http.*timed out"):
            weights.imagenet_weights()


def test_another_file_is_refused_and_a_damaged_cache_too(imagenet):
    file, _ = imagenet
    weights.imagenet_weights(file)
    other = file.with_name("other.pth")
    other.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"other.pth is not torchvision's resnet50-.*: its SHA-256 does not begin with"):
        weights.imagenet_weights(other)
    with pytest.raises(ValueError, match=r"nowhere\.pth, which is no file"):
        weights.imagenet_weights(file.with_name("nowhere.pth"))
    weights.weights_file().write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="is damaged: its SHA-256 does not begin with"):
        weights.imagenet_weights()
    assert weights.imagenet_weights(file).keys()  # a good file takes its place
    assert weights.imagenet_weights().keys()


def test_the_backbone_sees_images_as_imagenets_were(imagenet):
    file, state = imagenet
    digits = data.load("digits", train_size=64)
    model = transfer.backbone("resnet50", digits, "outputs", file)
    reference = small_resnet().eval()
    reference.load_state_dict(state)
    reference.fc = torch.nn.Identity()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    raw = digits.test.images[:3] / 255
    x = (raw - mean[:, None, None]) / std[:, None, None]
    expected = reference(F.interpolate(x, (224, 224), mode="bilinear"))
    with torch.no_grad():
        found = model.features(digits.normalize(digits.test.images[:3]))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    untrained = transfer.backbone("resnet50", digits, "outputs", trained=False)
    assert not torch.equal(untrained.body.conv1.weight, model.body.conv1.weight)


def test_resnet50_trains_from_imagenets_weights(imagenet, tmp_path, monkeypatch):
    weights.imagenet_weights(imagenet[0])
    changes = {"model": "resnet50", "norm": "torch_bn", "init": "imagenet", "train_size": 8, "batch_size": 4, "lr": 1e-4}
    run = Run(**SMALL | {"n": 2} | changes)
    data_of_run = data.load("digits", train_size=8)
    small = data.Data(*(split.take(slice(8)) for split in (data_of_run.train, data_of_run.val, data_of_run.test)),
                      data_of_run.classes, data_of_run.mean, data_of_run.std)  # fmt: skip
    result = fit(run, tmp_path, progress=False, data=small)
    assert result.run.id.startswith("digits-torch_bn-resnet50-b4-e1-s0-")
    monkeypatch.setattr("lib.engine.jobs.held_data", lambda *_: small)  # and so does a worker, which reads the weights itself
    train_group([replace(run, seed=1)], tmp_path, tmp_path, None, False, {"imagenet": None}, 1)
    assert Folder(replace(run, seed=1), tmp_path).sound
    assert isinstance(result.model(), ResNet50) and len(result.correct()) == 8
    weights.weights_file().unlink()  # a finished run is read without them
    assert Study("smoke", "digits", outputs=tmp_path).fit_all({"": [run]}, progress=False)[""][0].score() == result.score()


def test_a_backbone_that_diverged_is_said_and_what_would_start_from_it_is_left_out(tmp_path):
    study = Study("smoke", "digits", outputs=tmp_path, changes={"norm": "nn", "lr": 1e12, "clip_norm": None}, jobs=1)
    found = study.fit_all(study.transfer(), progress=False)
    assert list(found) == ["backbone", "scratch at 0.1", "scratch at 0.01"] and found["backbone"][0].diverged
    assert study.fit_all(study.transfer(), progress=False).keys() == found.keys()  # and again, with all that there is finished
    assert "09_transfer" not in waiting(study)  # for what can never come
    assert transfer.usable(found, "study") == "" and transfer.comparable(found) == {}
    scores, curves = transfer.machines(study, "", "2")
    assert len(scores) == 4 and scores.isna().all(axis=None) and not curves


def test_one_seed_whose_backbone_diverged_leaves_the_others(tmp_path):
    study = Study("smoke", "digits", seeds=(0, 1), outputs=tmp_path, jobs=1)
    first = study.transfer()["backbone"][0]
    study.fit_all({"": [first]}, progress=False)
    path = Folder(first, tmp_path).path / "metrics.json"
    Folder(first, tmp_path).write_json("metrics.json", json.loads(path.read_text()) | {"status": "diverged"})
    Folder(first, tmp_path).seal()
    found = study.fit_all(study.transfer(), progress=False)
    kept, planned = transfer.comparable(found), study.transfer()
    assert {name: [result.run.seed for result in results] for name, results in kept.items()} == {
        name: [1] for name in planned if name != "backbone"
    }
    assert transfer.usable(found, "study") == planned["backbone"][1].id


class Scored:
    def __init__(self, val, test, failed=False):
        self.accuracy, self.failed = {"val": val, "test": test}, failed

    def score(self, name="accuracy", split="test"):
        return self.accuracy[split]


def test_each_start_counts_at_the_learning_rate_that_is_better_on_validation_data():
    accuracies = {"scratch at 0.1": [(0.5, 0.9), (0.6, 0.9)], "scratch at 0.01": [(0.7, 0.1), (0.5, 0.1)],
                  "fine-tuned at 0.1": [(0.9, 0.5), (0.9, 0.5)]}  # fmt: skip
    found = {name: [Scored(*pair) for pair in pairs] for name, pairs in accuracies.items()}
    assert transfer.starts(found) == {"scratch": found["scratch at 0.01"], "fine-tuned": found["fine-tuned at 0.1"]}
    found["scratch at 0.01"][1].failed = found["fine-tuned at 0.1"][0].failed = True
    assert transfer.starts(found) == {"scratch": found["scratch at 0.1"]}


def test_the_class_is_one_that_the_backbone_has_not_seen():
    classes = ("a", "b", "c", "d", "e")
    assert transfer.chosen_class("", classes, "study") == "b" and transfer.chosen_class("", classes, "resnet50") == "c"
    assert transfer.chosen_class("", classes[:3], "study") == "c" and transfer.chosen_class("a", classes, "study") == "a"
    assert transfer.chosen_class(2, tuple("0123456789"), "study") == "2"
    with pytest.raises(ValueError, match="unknown positive 'c'; allowed are a, b"):
        transfer.chosen_class("c", classes, "study")
    with pytest.raises(ValueError, match=r"weights is 'w\.pth', which only the backbone resnet50 takes; the backbone is study"):
        transfer.check_weights("study", "w.pth")


def test_machines_on_an_untrained_and_a_trained_network(outputs):
    study = Study("smoke", "digits", outputs=outputs)
    scores, curves = transfer.machines(study, SOURCE.id, "2")
    assert list(scores.index) == list(curves) == ["linear, trained", "rbf, trained", "linear, untrained", "rbf, untrained"]
    assert all(curve["recall"].iloc[[0, -1]].tolist() == [1, 0] for curve in curves.values())
    right = 1 - (study.data().test.labels == 2).double().mean().item()
    assert np.allclose(scores["always the rest"], right) and np.allclose(scores["gain"], scores["accuracy"] - right)
    assert (scores["gain low"] <= scores["gain"]).all() and scores["C"].isin(transfer.PENALTIES).all()
    assert scores.loc["linear, trained", "ROC area"] != scores.loc["linear, untrained", "ROC area"]


def test_both_starts_have_the_same_learning_rates(tmp_path):
    plan = Study("smoke", "digits", outputs=tmp_path).transfer("resnet50")
    assert {name: (runs[0].lr, runs[0].init) for name, runs in plan.items()} == {
        "scratch at 0.1": (0.1, ""), "scratch at 0.01": (0.01, ""),
        "fine-tuned at 0.1": (0.1, "imagenet"), "fine-tuned at 0.01": (0.01, "imagenet"),
    }  # fmt: skip


def blobs(seed, count=200):
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 10 == 0
    return rng.normal(size=(count, 3)) + 8 * y[:, None], y


@pytest.mark.parametrize("kernel", transfer.KERNELS)
def test_a_machine_tells_apart_what_can_be_told_apart(kernel):
    c, values = transfer.one_against_rest(blobs(0), blobs(1), blobs(2), kernel)
    assert ((values > 0) == blobs(2)[1]).all() and c in transfer.PENALTIES
    scores = transfer.binary_scores(blobs(2)[1], values)
    assert (
        scores["accuracy"] == scores["precision"] == scores["recall"] == scores["ROC area"] == 1
        and scores["always the rest"] == 0.9
    )


def test_scores_of_one_class_against_the_rest_by_hand():
    labels = np.array([True, True, False, False, False, False, False, False, False, False])
    values = np.array([0.9, -0.5, 0.8, -1, -1.1, -1.2, -1.3, -1.4, -1.5, -1.6])
    scores = transfer.binary_scores(labels, values)
    assert scores["gain"] == pytest.approx(0) and scores["gain low"] < 0 < scores["gain high"]
    assert (scores["accuracy"], scores["always the rest"], scores["precision"], scores["recall"]) == (0.8, 0.8, 0.5, 0.5)
    assert scores["ROC area"] == pytest.approx(15 / 16)  # of 16 pairs, one is in the wrong order
    assert scores["average precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    none = transfer.binary_scores(labels, values - 1)
    assert np.isnan(none["precision"]) and none["recall"] == 0  # of nothing, no share can be right


def test_a_backbone_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="init or backbone is 'nothing', which is no finished run in"):
        transfer.backbone("nothing", data.load("digits", train_size=64), tmp_path)
