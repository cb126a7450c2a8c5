"""make verify: the stored models give the accuracies that the table has, and it is noticed where one does not."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.engine import store, verify
from lib.engine.store import Folder
from lib.run import Run
from lib.train import fit


@pytest.fixture
def trained(tmp_path):
    run = Run("gn", n=1, dataset="digits", train_size=64, batch_size=32, epochs=1, warmup_epochs=0, augment="none")
    fit(run, tmp_path, progress=False)
    return run, tmp_path


def test_a_stored_model_gives_its_accuracy(trained, capsys):
    run, outputs = trained
    assert verify.main(["--outputs", str(outputs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines[:-1]] == [run.id] * 2
    assert all(line.endswith("0 predictions differ: agrees") for line in lines[:-1])
    assert lines[-1] == "1 runs checked, 0 accuracies do not agree, 0 damaged"


def test_another_model_is_noticed_even_if_its_sums_fit(trained, capsys):
    run, outputs = trained
    file = Folder(run, outputs).path / "best.safetensors"
    weights = load_file(file)
    weights["linear.bias"] += torch.linspace(0, 5, 10)
    save_file(weights, file)
    Folder(run, outputs).seal()
    assert verify.main(["--outputs", str(outputs)]) == 1
    out = capsys.readouterr().out
    assert "DOES NOT AGREE" in out and out.endswith("2 accuracies do not agree, 0 damaged\n")


def test_a_damaged_run_is_noticed(trained, capsys):
    run, outputs = trained
    (Folder(run, outputs).path / "history.csv").write_text("epoch\n")
    assert verify.main(["--outputs", str(outputs)]) == 1
    assert capsys.readouterr().out.endswith("0 runs checked, 0 accuracies do not agree, 1 damaged\n")


def test_a_run_without_its_data_does_not_end_the_check(trained, monkeypatch, capsys):
    run, outputs = trained
    monkeypatch.setattr(verify, "load_data", lambda *args: (_ for _ in ()).throw(ValueError("the folder is gone")))
    assert verify.main(["--outputs", str(outputs)]) == 1
    out = capsys.readouterr().out
    assert f"{run.id}: cannot be checked: the folder is gone" in out and out.endswith("0 damaged, 1 without their data\n")


def test_a_cnns_model_may_be_missing_and_that_is_said(tmp_path, capsys):
    run = Run("torch_bn", n=2, model="cnn", dataset="digits", train_size=64, batch_size=32, epochs=1, warmup_epochs=0)
    before = fit(run, tmp_path, progress=False)
    assert (before.path / "best.safetensors").stat().st_size > 10**7
    (before.path / "best.safetensors").unlink()
    assert fit(run, tmp_path, progress=False).score() == before.score()  # read, not trained again
    with pytest.raises(FileNotFoundError, match="delete SHA256SUMS there and train the run again for it"):
        before.model()
    assert verify.main(["--outputs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"{run.id}: its model is not kept" in out
    assert out.endswith("0 runs checked, 0 accuracies do not agree, 0 damaged, 1 without their model\n")


def test_a_resnets_model_may_not_be_missing(trained):
    run, outputs = trained
    (Folder(run, outputs).path / "best.safetensors").unlink()
    assert Folder(run, outputs).damage() == {"best.safetensors": "is missing"}


@pytest.mark.parametrize("accuracy, changed, good", [(0.8, 0, True), (0.801, 1, True), (0.802, 1, False), (0.8, 2, False)])
def test_only_a_thousandth_of_the_predictions_may_differ(accuracy, changed, good):
    class Fake:
        def correct(self, split):
            return np.arange(1000) < 800

        def score(self, split):
            return 0.8

    assert verify.agrees(Fake(), "test", accuracy, changed) == good


def test_an_empty_outputs_folder_is_said(tmp_path, capsys):
    assert verify.main(["--outputs", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: outputs is {tmp_path}, which has no finished run\n"
    assert store.stored(tmp_path) == []
