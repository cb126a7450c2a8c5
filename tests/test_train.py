"""Training: what is learned, resumed, chosen and kept apart."""

import contextlib
import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tqdm.auto import tqdm

from lib import data as data_module
from lib import norms, train
from lib.data import ROOT
from lib.engine import machine, verify
from lib.engine.store import Folder, Result, results, stored
from lib.norms import BatchInstanceNorm2d
from lib.resnet import ResNet
from lib.run import Run

TINY = Run(
    norm="bn", n=1, dataset="digits", train_size=48, batch_size=16, epochs=3, warmup_epochs=1, augment="crop",
    precision="float32",
)  # fmt: skip
VALUES = ["epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "q01", "q20", "q80", "q99"]


def fit(run, folder, **kwargs) -> Result:
    return train.fit(run, folder, device="cpu", progress=False, **kwargs)


def test_it_learns(tmp_path):
    run = replace(TINY, train_size=256, epochs=8, lr=0.05, augment="none")
    result = fit(run, tmp_path)
    history = result.history
    assert list(history["epoch"]) == list(range(1, 9))
    with_softmax_before_the_loss = np.log(1 + 9 / np.e)  # the least such a loss can be for 10 classes
    assert history["train_loss"].iloc[-1] < with_softmax_before_the_loss < history["train_loss"].iloc[0]
    assert result.score("accuracy", "test") > 0.5
    assert result.best_epoch == history.loc[history["val_accuracy"].idxmax(), "epoch"]
    assert result.score("accuracy", "val") == pytest.approx(history["val_accuracy"].max())  # the best weights were restored


def test_a_finished_run_is_returned_and_not_trained_again(tmp_path, monkeypatch):
    first = fit(TINY, tmp_path)
    monkeypatch.setattr(train, "train", lambda *args: pytest.fail("trained again"))
    monkeypatch.setattr(train, "load_data", lambda *args: pytest.fail("data read again"))
    assert fit(TINY, tmp_path).metrics == first.metrics


@pytest.mark.parametrize("stop_after, norm, optimizer", [(1, "bn", "sgd"), (2, "bin", "adam"), (2, "bin", "sgd")])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, monkeypatch, stop_after, norm, optimizer):
    run = replace(TINY, norm=norm, optimizer=optimizer, lr=0.1 if optimizer == "sgd" else 0.01)
    whole = fit(run, tmp_path / "whole")
    real, calls = train.Trainer.paused_epoch, itertools.count(1)

    def stopping(*args):
        if next(calls) > stop_after:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "paused_epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(run, tmp_path / "parts")
    assert not Folder(run, tmp_path / "parts").done
    with pytest.raises(FileNotFoundError, match="is not finished"):
        Result(run, tmp_path / "parts")
    resumed = fit(run, tmp_path / "parts")
    pd.testing.assert_frame_equal(resumed.history[VALUES], whole.history[VALUES], check_exact=True)
    assert resumed.metrics["splits"] == whole.metrics["splits"]
    for name, array in whole.predictions.items():
        assert np.array_equal(array, resumed.predictions[name])
    assert (resumed.path / "best.safetensors").read_bytes() == (whole.path / "best.safetensors").read_bytes()


@pytest.mark.parametrize("norm", ["torch_bn", "bn", "in", "bin", "ln", "gn", "nn"])
def test_every_norm_trains_deterministically_in_bf16(tmp_path, norm):
    run = replace(TINY, norm=norm, precision="bf16", epochs=1, clip_norm=1.0)
    a, b = fit(run, tmp_path / "a"), fit(run, tmp_path / "b")
    pd.testing.assert_frame_equal(a.history[VALUES], b.history[VALUES], check_exact=True)
    assert np.isfinite(a.history["train_loss"]).all()
    assert all(p.dtype == torch.float32 for p in a.model().parameters())


def test_variants_start_from_the_same_weights_and_see_the_same_batches():
    a, b = (train.new_model(replace(TINY, norm=norm)) for norm in ("torch_bn", "bn"))
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(x, y), name
    other = train.new_model(replace(TINY, norm="bn", seed=1))
    assert not torch.equal(a.conv1.weight, other.conv1.weight)
    before = torch.random.get_rng_state()
    train.new_model(TINY)
    assert torch.equal(before, torch.random.get_rng_state())  # the caller's random numbers are left alone


def test_our_bn_trains_like_pytorchs(tmp_path):
    ours, theirs = (fit(replace(TINY, norm=norm), tmp_path) for norm in ("bn", "torch_bn"))
    gap = (ours.history["train_loss"] - theirs.history["train_loss"]).abs()
    assert gap.iloc[0] < 1e-3 and gap.max() < 0.05


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_schedule_warms_up_and_never_climbs_again(schedule):
    run = Run(schedule=schedule)
    times = np.linspace(0, 100, 4001)[1:]
    rates = np.array([train.learning_rate(run, t) for t in times])
    warm = times <= run.warmup_epochs
    assert (np.diff(rates[warm]) > 0).all()
    assert rates.max() == pytest.approx(run.lr)
    assert (np.diff(rates[~warm]) <= 0).all()
    last = {"cosine": 0, "step": 0.001, "constant": 0.1}[schedule]
    assert rates[-1] == pytest.approx(last, abs=1e-9)


def test_optimizer_has_what_the_run_promises():
    run = Run(norm="bin")
    model = train.new_model(run)
    others, rhos = train.new_optimizer(run, model).param_groups
    assert others["momentum"] == rhos["momentum"] == 0.9
    assert others["weight_decay"] == 5e-4 and rhos["weight_decay"] == 0
    assert {id(p) for p in rhos["params"]} == {id(m.rho) for m in model.modules() if isinstance(m, BatchInstanceNorm2d)}
    assert len(others["params"]) + len(rhos["params"]) == len(list(model.parameters()))
    decayed, bare, rhos = train.new_optimizer(replace(run, bias_decay=False), model).param_groups
    assert {p.ndim for p in decayed["params"]} == {2, 4} and {p.ndim for p in bare["params"]} == {1}
    assert bare["weight_decay"] == 0 and bare["lr_scale"] == decayed["lr_scale"] == 1 and len(rhos["params"]) == 13


def test_gates_move_in_training_and_stay_in_range(tmp_path):
    rho = torch.cat(
        [p.detach() for name, p in fit(replace(TINY, norm="bin"), tmp_path).model().named_parameters() if "rho" in name]
    )
    assert (rho < 1).any() and rho.min() >= 0 and rho.max() <= 1


def test_gates_that_do_not_learn_stay_where_they_start(tmp_path):
    gates = norms.gates(fit(replace(TINY, norm="bin", gate=0.25, gate_lr=0), tmp_path).model())
    assert len(gates) > 3 and all((rho == 0.25).all() for rho in gates.values())


def test_a_ghost_batch_has_statistics_of_its_own():
    """One step of SGD over 32 images whose statistics are those of 8, against PyTorch's layers, fed with 8 at a time."""
    run = replace(TINY, norm="bn", batch_size=32, train_size=32, ghost_batch=8, momentum=0.0, weight_decay=0.0, warmup_epochs=0)
    data, model = train.load_data(run, "data"), train.new_model(run)
    reference = ResNet(run.n, run.classes, "torch_bn").double()
    reference.load_state_dict(model.state_dict())
    trainer = train.Trainer(run, model, train.new_optimizer(run, model), data)
    trainer.epoch(1, tqdm(disable=True))

    x, y = trainer.data.batch(data_module.epoch_plan(trainer.data, 32, run.augment, run.seed, 1))
    for part, labels in zip(x.double().split(8), y.split(8), strict=True):
        (torch.nn.functional.cross_entropy(reference(part), labels) / 4).backward()
    with torch.no_grad():
        for p in reference.parameters():
            p -= trainer.lr[0].double() * p.grad
    expected = reference.state_dict()
    assert all(torch.allclose(t.double(), expected[name].double(), atol=1e-5) for name, t in model.state_dict().items())
    assert expected["norm1.num_batches_tracked"] == 4


def test_early_stopping_by_patience(tmp_path, monkeypatch):
    accuracies = iter([0.3, 0.5, 0.5, 0.4, 0.9, 0.9])
    real = train.evaluate

    def scripted(model, data, split, loss):
        found = real(model, data, split, loss)
        return found | {"accuracy": next(accuracies, 0.0)}

    monkeypatch.setattr(train, "evaluate", scripted)
    result = fit(replace(TINY, epochs=6, patience=2), tmp_path)
    assert result.metrics["epochs_run"] == 4 and result.best_epoch == 2  # a tie is no improvement


def test_the_test_split_has_no_part_in_training_or_choice(tmp_path, monkeypatch):
    """The same run with another test split: everything but the test scores stays bit for bit."""
    real = data_module.load

    def shuffled(*args):
        found = real(*args)
        return replace(found, test=data_module.Split(255 - found.test.images, found.test.labels.flip(0)))

    a = fit(TINY, tmp_path / "a")
    monkeypatch.setattr(data_module, "load", shuffled)
    b = fit(TINY, tmp_path / "b")
    pd.testing.assert_frame_equal(a.history[VALUES], b.history[VALUES], check_exact=True)
    assert (a.path / "best.safetensors").read_bytes() == (b.path / "best.safetensors").read_bytes()
    assert a.metrics["splits"]["val"] == b.metrics["splits"]["val"]
    assert a.metrics["splits"]["test"] != b.metrics["splits"]["test"]


def test_test_split_is_read_once_after_the_last_epoch(tmp_path, monkeypatch):
    reads, real = [], train.evaluate

    def watched(model, data, split, loss):
        reads.append("test" if split is data.test else "other")
        return real(model, data, split, loss)

    monkeypatch.setattr(train, "evaluate", watched)
    fit(TINY, tmp_path)
    assert reads == ["other"] * (TINY.epochs + 2) + ["test"]


def test_divergence_ends_the_run_and_is_recorded(tmp_path):
    result = fit(replace(TINY, norm="nn", lr=1e4, clip_norm=None), tmp_path)
    assert result.diverged and result.metrics["epochs_run"] < 4
    assert len(result.history) == result.metrics["epochs_run"]
    assert not np.isfinite(result.history["train_loss"].iloc[-1])


def test_stored_predictions_give_the_stored_scores(tmp_path):
    result = fit(TINY, tmp_path)
    data = train.load_data(TINY, "data")
    found = train.evaluate(result.model(), data, data.test)  # reloaded from safetensors
    assert np.array_equal(found["predictions"], result.predictions["test_predictions"])
    assert result.score() == result.correct().mean() == found["accuracy"]
    assert np.array_equal(result.predictions["test_labels"], data.test.labels.numpy())


def test_features_need_no_second_forward(tmp_path):
    result = fit(TINY, tmp_path)
    data = train.load_data(TINY, "data")
    found = train.evaluate(result.model(), data, data.val)
    assert found["features"].shape == (len(data.val), 64)
    assert found["features"].min() >= 0


def test_results_table_has_a_row_per_run_and_split(tmp_path):
    a, b = fit(TINY, tmp_path), fit(replace(TINY, norm="gn"), tmp_path)
    written = pd.read_csv(tmp_path / "results.csv")
    about = ["run_id", "split", "loss", "accuracy", "micro_f1", "macro_f1", "best_epoch", "status", "device", "code"]
    assert list(written.columns) == [*about, *Run.__dataclass_fields__]
    assert len(written) == 6 and set(written["run_id"]) == {a.run.id, b.run.id}
    row = written[(written["norm"] == "gn") & (written["split"] == "test")].iloc[0]
    assert row["accuracy"] == pytest.approx(b.score())
    pd.testing.assert_frame_equal(
        results(stored(tmp_path), tmp_path), results(sorted((a, b), key=lambda r: r.run.id), tmp_path)
    )


def test_a_probes_test_images_are_never_scored(tmp_path, capsys, monkeypatch):
    evaluate, seen = train.evaluate, []
    monkeypatch.setattr(train, "evaluate", lambda *args: seen.append(len(args[2])) or evaluate(*args))
    usual, probe = fit(TINY, tmp_path), fit(replace(TINY, probe=True), tmp_path)
    train_size, val_size, test_size = (len(usual.correct(split)) for split in ("train", "val", "test"))
    assert len({train_size, val_size, test_size}) == 3  # so that a split is known by its size
    assert (seen.count(test_size), seen.count(train_size)) == (1, 2)
    assert usual.score(split="val") == probe.score(split="val") and usual.run.id != probe.run.id
    assert set(probe.metrics["splits"]) == {"train", "val"} and not any("test" in name for name in probe.predictions)
    for ask in (probe.score, probe.correct):
        with pytest.raises(ValueError, match=f"run {probe.run.id} is a probe, scored on train and val images, not on test"):
            ask()
    assert Folder(probe.run, tmp_path).sound and len(stored(tmp_path)) == 2
    written = pd.read_csv(tmp_path / "results.csv").groupby("run_id")["split"].agg(list).to_dict()
    assert written == {usual.run.id: ["train", "val", "test"], probe.run.id: ["train", "val"]}
    assert verify.main(["--outputs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"{probe.run.id}: val accuracy" in said and f"{probe.run.id}: test" not in said and "2 runs checked" in said
    assert fit(replace(TINY, init=probe.run.id), tmp_path).score() >= 0  # others may start from it


def test_a_probe_whose_files_disagree_is_damaged(tmp_path):
    folder = Folder(fit(replace(TINY, epochs=1, probe=True), tmp_path).run, tmp_path)
    content = json.loads((folder.path / "metrics.json").read_text())
    content["splits"]["val"]["macro_f1"] += 0.01
    folder.write_json("metrics.json", content)
    folder.seal()
    assert folder.damage() == {"metrics.json": "has scores that predictions.npz does not give"}


def test_probe_on_the_command_line(tmp_path, capsys):
    options = "--dataset digits --n 1 --epochs 1 --warmup-epochs 1 --train-size 32 --precision float32 --device cpu --probe"
    assert train.main([*options.split(), "--outputs", str(tmp_path)]) == 0
    (result,) = stored(tmp_path)
    assert result.run.probe and f"{result.run.id}: val accuracy {result.score(split='val'):.4f}" in capsys.readouterr().out


def test_test_scores_of_old_probes_are_in_no_table():
    """Committed runs that are no longer of the study: of 12 epochs, or with another border than the reflected one."""
    found = [result for result in stored(ROOT / "outputs") if result.run.model == "resnet"]
    others = [r.run for r in found if not r.run.probe]
    tried = {run.id for run in others if run.epochs == 12 or (run.epochs == 100 and run.augment != Run.augment)}
    assert tried and tried == set((ROOT / "outputs" / "probes.txt").read_text().split()) & {result.run.id for result in found}
    splits = results(found, ROOT / "outputs").groupby("run_id")["split"].agg(list).to_dict()
    assert splits == {r.run.id: ["train", "val", "test"][: 2 if r.run.probe or r.run.id in tried else 3] for r in found}


def test_wrong_class_count_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"classes .r. is 5, but digits has 10 classes"):
        fit(replace(TINY, classes=5), tmp_path)
    assert not list(tmp_path.iterdir())


def test_size_that_the_strides_do_not_divide(tmp_path):
    from test_data import write_folder

    path = write_folder(tmp_path / "birds", size=(18, 16))
    run = replace(
        TINY, dataset=f"folder:{path}", classes=3, train_size=None, data_hash=data_module.fingerprint(f"folder:{path}")
    )
    with pytest.raises(ValueError, match="16×18; both sides must be multiples of 4"):
        fit(run, tmp_path / "outputs")


def test_config_is_saved_with_the_result(tmp_path):
    config = json.loads((fit(TINY, tmp_path).path / "config.json").read_text())
    del config["code_version"]
    assert Run(**config) == TINY


SINGLE = {
    "bn": ("bn", 17, "17 images in batches of 16 leave a batch of one image"),
    "torch_bn": ("torch_bn", 1, "batches of 1 leave"),
    "in": ("in", 16, "the last maps have one pixel, so in has no variance"),
    "bin": ("bin", 16, "the last maps have one pixel, so bin has no variance"),
}


@pytest.mark.parametrize("norm, images, says", SINGLE.values(), ids=SINGLE)
def test_a_variance_of_one_value_is_refused_before_training(norm, images, says):
    run, known = replace(TINY, norm=norm, batch_size=min(images, 16)), data_module.load("digits", train_size=32)

    def of_size(side):
        return replace(
            known, train=data_module.Split(known.train.images[:images, :, :side, :side], known.train.labels[:images])
        )

    with pytest.raises(ValueError, match=says):
        train.check_data(run, of_size(4))
    train.check_data(run, of_size(8))


def test_command_line_takes_n_r_and_every_other_field(tmp_path, capsys):
    options = "--dataset digits --n 1 --norm gn --group-size 8 --epochs 1 --warmup-epochs 1 --train-size 32 --precision float32"
    assert train.main([*options.split(), "--device", "cpu", "--outputs", str(tmp_path)]) == 0
    (result,) = stored(tmp_path)
    assert result.run.augment == "crop", "digits are not mirrored"
    assert (result.run.n, result.run.norm, result.run.group_size, result.run.train_size) == (1, "gn", 8, 32)
    assert f"test accuracy {result.score():.4f}" in capsys.readouterr().out
    assert train.main([*options.split(), "--classes", "7", "--outputs", str(tmp_path / "other")]) == 2
    assert capsys.readouterr().err == "error: classes (r) is 7, but digits has 10 classes; give that number\n"
    assert train.main([*options.split(), "--device", "tpu", "--outputs", str(tmp_path / "other")]) == 2
    assert capsys.readouterr().err.startswith("error: device is 'tpu'; here are cpu")


def test_a_home_folder_is_one_place_for_runs_and_table(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fit(replace(TINY, epochs=1), "~/found")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found"]
    assert len(pd.read_csv(tmp_path / "found" / "results.csv")) == 3


def test_float32_is_full_float32_and_the_setting_is_given_back():
    settings = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "tf32"
        with pytest.raises(KeyError), machine.full_float32():
            assert [setting.fp32_precision for setting in settings] == ["ieee", "ieee"]
            raise KeyError
        assert [setting.fp32_precision for setting in settings] == ["tf32", "tf32"]
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def test_all_that_trained_a_run_are_written_down(tmp_path, monkeypatch):
    places, real = iter(("here", "there", "there")), train.Trainer.paused_epoch
    monkeypatch.setattr(machine, "device_name", lambda device: next(places))
    calls = itertools.count(1)

    def stopping(*args):
        if next(calls) in (2, 4):
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(train.Trainer, "paused_epoch", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(TINY, tmp_path)
    env = fit(TINY, tmp_path).env
    assert env["device"] == "here; there" and env["threads"] == 1 and env["versions"]["torch"] == torch.__version__


class NoWaiting(torch.utils._python_dispatch.TorchDispatchMode):
    """Fails where Python asks a tensor for its value, which on a GPU waits for all that was queued before."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, "a step asked for a tensor's value"
        assert function is not torch.ops.aten.nonzero.default, "the shape depends on values"
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("norm", ["torch_bn", "bn", "in", "bin", "ln", "gn", "nn"])
def test_a_step_asks_for_no_value_and_repeats_without_new_arguments(monkeypatch, norm):
    """What a CUDA graph needs, checked where there is no GPU: the step reads its batch and rate from tensors alone."""
    monkeypatch.setattr("lib.engine.compiled.takes", lambda norm, x: False)  # the form that a GPU takes
    run = replace(TINY, norm=norm, clip_norm=1.0, epochs=2)
    data = train.load_data(run, "data")
    trained = []
    for guard in (contextlib.nullcontext(), NoWaiting()):
        model = train.new_model(run)
        optimizer = train.new_optimizer(run, model)
        trainer = train.Trainer(run, model, optimizer, data)
        trainer.epoch(1, tqdm(disable=True))  # momentum is there from the first step on
        trainer.at.zero_()
        with guard:
            trainer.step(run.batch_size)
        trained.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(trained[0].values(), trained[1].values(), strict=True))


def test_a_graph_takes_over_after_the_eager_steps(monkeypatch):
    """The order of eager steps, capture and replays, with a stand-in for CUDA that runs at replay what it recorded."""
    calls, step = [], train.Trainer.step

    class Graph:
        def replay(self):
            calls.append("replay")
            step(self.trainer, run.batch_size)

    run = replace(TINY, train_size=72, batch_size=16)  # four full batches and one of 8
    model = train.new_model(run)
    trainer = train.Trainer(run, model, train.new_optimizer(run, model), train.load_data(run, "data"))
    Graph.trainer = trainer
    recording = []

    @contextlib.contextmanager
    def capture(graph, stream):
        calls.append("capture")
        recording.append(True)
        yield
        recording.pop()

    def stepping(self, size):
        if not recording:
            calls.append(size)
            step(self, size)

    stream = type("Stream", (), {"__init__": lambda self, device=None: None, "wait_stream": lambda self, other: None})
    monkeypatch.setattr(train.Trainer, "step", stepping)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda s: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    trainer.device = torch.device("cuda")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "arange", lambda *args, device=None, real=torch.arange: real(*args))
        patch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
        first, second = (trainer.epoch(epoch, tqdm(disable=True)) for epoch in (1, 2))
    assert calls == [16, 16, 16, "capture", "replay", 8, *["replay"] * 4, 8]

    monkeypatch.setattr(train.Trainer, "step", step)
    model = train.new_model(run)
    plain = train.Trainer(run, model, train.new_optimizer(run, model), train.load_data(run, "data"))
    for epoch, found in ((1, first), (2, second)):
        expected = plain.epoch(epoch, tqdm(disable=True))
        assert {n: v for n, v in found.items() if n != "seconds"} == {n: v for n, v in expected.items() if n != "seconds"}


def test_threads_are_given_back(tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert fit(TINY, tmp_path).env["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_history_that_a_stop_cut_short_is_whole_again(tmp_path, monkeypatch):
    """The stop comes between the last checkpoint and its history."""
    whole = fit(TINY, tmp_path / "whole").history
    real = Folder.write_history

    def stopping(self, state):
        if state["epoch"] == TINY.epochs:
            raise KeyboardInterrupt
        real(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write_history", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(TINY, tmp_path / "stopped")
    assert fit(TINY, tmp_path / "stopped").history[VALUES].equals(whole[VALUES])


def test_adam_can_be_captured_on_a_gpu_whatever_wrote_its_checkpoint():
    run = replace(TINY, optimizer="adam", lr=0.01)
    model, data = train.new_model(run), train.load_data(run, "data")
    optimizer = train.new_optimizer(run, model)
    assert optimizer.param_groups[0]["capturable"] is False
    optimizer.param_groups[0]["capturable"] = True  # as a checkpoint from a GPU has it
    train.Trainer(run, model, optimizer, data).epoch(1, tqdm(disable=True))
    assert optimizer.param_groups[0]["capturable"] is False


def test_an_epoch_goes_through_its_plan_in_order(monkeypatch):
    run = replace(TINY, batch_size=20)  # 48 images: the last batch is smaller
    model, data = train.new_model(run), train.load_data(run, "data")
    seen, real = [], data_module.Data.batch
    monkeypatch.setattr(data_module.Data, "batch", lambda self, rows: seen.append(rows) or real(self, rows))
    train.Trainer(run, model, train.new_optimizer(run, model), data).epoch(2, tqdm(disable=True))
    assert [len(rows) for rows in seen] == [20, 20, 8]
    assert torch.equal(torch.cat(seen), data_module.epoch_plan(data, 20, run.augment, run.seed, epoch=2))


#: Training losses of three epochs by this version of the code. Other machines round otherwise, by some 1e-5.
VERSIONS = {
    "torch_bn": ("1", {}, [2.4509, 2.42578, 2.37519]),
    "bn": ("1.2", {}, [2.4509, 2.42578, 2.37521]),
    "in": ("1.2", {}, [2.45814, 2.41889, 2.38008]),
    "bin": ("1.2", {}, [2.4509, 2.42576, 2.37514]),
    "ln": ("1.2", {}, [2.51136, 2.39553, 2.31054]),
    "gn": ("1.2", {}, [2.49541, 2.40951, 2.33268]),
    "nn": ("1", {}, [2.34337, 2.32195, 2.29695]),
    "bn adam": ("1.2", {"optimizer": "adam", "lr": 0.002, "schedule": "step"}, [2.44656, 2.32016, 2.27491]),
    "gn crop+flip": (
        "1.2",
        {"augment": "crop+flip", "clip_norm": 1.0, "schedule": "constant", "split_seed": 1},
        [2.5666, 2.50927, 2.39371],
    ),
}


@pytest.mark.parametrize("name", VERSIONS)
def test_results_of_this_version_of_the_code(tmp_path, name):
    """If this fails, trainings give other results than before: raise CODE_VERSION or NORMS_VERSION of lib.run, so that old runs
    are not taken for new ones, and put the new values here."""
    code, changes, losses = VERSIONS[name]
    run = replace(TINY, **{"norm": name.split()[0], "lr": 0.005, "seed": 7} | changes)
    found = fit(run, tmp_path).history["train_loss"].tolist()
    assert str(run.code) == code
    assert found == pytest.approx(losses, rel=2e-4), found
