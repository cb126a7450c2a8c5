"""Scores of stored models against scikit-learn, closed forms and what the runs themselves wrote."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from lib import scoring
from lib.data import ROOT, Split
from lib.engine import store
from lib.study import Study
from lib.train import fit
from report import saved


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of BN and one of GN, and their data."""
    study = Study("smoke", outputs=tmp_path_factory.mktemp("scoring"))
    return {v: fit(study.runs(v)[0], study.outputs, progress=False) for v in ("bn", "gn")}, study.data()


def test_calibration_error_by_hand():
    """Two bins: (0.5, 0.55] with half right of confidence 0.54, and one of confidence 1 that is always right."""
    confidence, right = np.array([0.54, 0.54, 1.0, 1.0]), np.array([True, False, True, True])
    by_bin = scoring.bins(confidence, right)
    assert by_bin.index.tolist() == pytest.approx([9 / 15, 1]) and by_bin["images"].tolist() == [2, 2]
    assert by_bin["right"].tolist() == [1, 2] and by_bin["confidence"].tolist() == pytest.approx([1.08, 2])
    assert scoring.calibration_error(by_bin) == pytest.approx(0.5 * 0.04)
    assert scoring.calibration_error(scoring.bins(confidence, ~right)) == pytest.approx(0.5 * 0.04 + 0.5)


def test_scores_are_those_of_scikit_learn():
    logits, labels = torch.randn(200, 5), torch.randint(5, (200,))
    found, p = scoring.scores(logits, labels), logits.double().softmax(1).numpy()
    assert found["accuracy"] == accuracy_score(labels, p.argmax(1))
    assert found["log_loss"] == pytest.approx(log_loss(labels, p)) and found["confidence"] == pytest.approx(p.max(1).mean())


def test_images_as_they_are_give_what_the_run_wrote(runs, monkeypatch):
    results, data = runs
    monkeypatch.setattr(scoring, "SHIFTS", {})
    for result in results.values():
        rows = scoring.shifted(result, data)
        (clean,) = rows[rows["batch"] == 0].to_dict("records")
        assert clean["accuracy"] == pytest.approx(result.score())
        assert clean["log_loss"] == pytest.approx(result.score("loss"), 1e-4)
        p = scoring.probabilities(result, data)
        assert p["test"].shape == (len(data.test), 10) and not np.array_equal(p["test"], p["test_mirrored"])
        right = p["test"].argmax(1) == data.test.labels.numpy()
        assert right.mean() == pytest.approx(clean["accuracy"], abs=0.02)
        by_bin = scoring.reliability(result, data).set_index(["split", "mirrored"]).loc[[("test", False)]]
        assert by_bin["right"].sum() == right.sum() and by_bin["images"].sum() == len(data.test)
        assert scoring.calibration_error(by_bin) == pytest.approx(clean["calibration_error"], abs=0.01)


def test_every_shift_has_its_rows_and_only_batch_norm_takes_a_batchs_statistics(runs, monkeypatch):
    results, data = runs
    monkeypatch.setattr(scoring, "weights_sum", lambda result: "of fewer images")
    data = replace(data, test=data.test.take(slice(40)))
    bn, gn = (scoring.shifted(results[v], data) for v in ("bn", "gn"))
    assert len(gn) == 31 and set(gn["batch"]) == {0}
    assert len(bn) == 31 + 4 * 7 and set(bn["batch"]) == {0, *scoring.BATCHES}
    contrast = gn[gn["shift"] == "contrast"].set_index("strength")
    split = Split(scoring.with_contrast(data.test.images, 0.25), data.test.labels)
    _, logits = scoring.outputs_of(results["gn"].model(), data, split)
    assert contrast.loc[0.25, "accuracy"] == (logits.argmax(1) == data.test.labels).double().mean().item()


def test_a_batchs_own_statistics(runs):
    """All test images as one batch: what the network gives in training mode."""
    results, data = runs
    model = results["bn"].model().train()
    with torch.no_grad():
        expected = model(data.normalize(data.test.images))
    _, logits = scoring.outputs_of(results["bn"].model(), data, data.test, batch=len(data.test))
    assert torch.allclose(logits, expected, atol=1e-4)
    assert not torch.allclose(scoring.outputs_of(results["bn"].model(), data, data.test)[1], expected, atol=1e-2)


def test_what_is_kept_and_damaged_is_made_anew(runs, monkeypatch):
    results, data = runs
    monkeypatch.setattr(scoring, "SHIFTS", {})
    whole = scoring.reliability(results["gn"], data)
    for name in ("reliability.csv", "probabilities.npz"):
        file = results["gn"].path / name
        content = file.read_bytes()
        for damaged in (b"", b"no table", content[: len(content) // 2]):
            file.write_bytes(damaged)
            if name == "probabilities.npz":
                (results["gn"].path / "reliability.csv").unlink(missing_ok=True)
            pd.testing.assert_frame_equal(scoring.reliability(results["gn"], data), whole)


def test_what_is_kept_is_of_these_weights(runs, monkeypatch):
    results, data = runs
    monkeypatch.setattr(scoring, "SHIFTS", {"brightness": (scoring.brighter, (25,))})
    monkeypatch.setattr(scoring, "weights_sum", lambda result: "some")
    before = scoring.shifted(results["gn"], data)
    by_bin = scoring.reliability(results["gn"], data)
    with monkeypatch.context() as patch:  # it is read, and nothing is scored
        patch.setattr(scoring, "outputs_of", None)
        pd.testing.assert_frame_equal(scoring.shifted(results["gn"], data), before)
        pd.testing.assert_frame_equal(scoring.reliability(results["gn"], data), by_bin)
        assert scoring.probabilities(results["gn"], data).keys() == {"val", "val_mirrored", "test", "test_mirrored"}
    monkeypatch.setattr(scoring, "weights_sum", lambda result: "others")
    monkeypatch.setattr(scoring, "SHIFTS", {})
    assert (len(before), len(scoring.shifted(results["gn"], data))) == (2, 1)  # made anew


COMMITTED = Study("paper", "cifar10", outputs=ROOT / "outputs")


def committed(name: str, *variants: str) -> pd.DataFrame:
    """Such a file of each of the variants' runs, below each other."""
    files = [store.Folder(run, COMMITTED.outputs).path / name for v in variants for run in COMMITTED.more_seeds()[v]]
    return pd.concat([pd.read_csv(file).assign(run=i) for i, file in enumerate(files)])


def test_committed_facts_are_those_of_the_committed_scores():
    """Two cells a table of sections 10 and 11."""
    known, bn = saved.load(COMMITTED), ("bn", "torch_bn")
    cell = {"in": "shift == 'contrast' and strength == 0.25 and batch == 0", "nn": "shift == 'blur' and strength == 1"}
    expected = {v: committed("shifted.csv", v).query(rows)["accuracy"].mean() for v, rows in cell.items()}
    assert known["shifts"]["contrast"]["in"] == pytest.approx(expected["in"]) == known["contrast"].loc[0.25, "in"]
    assert known["shifts"]["blur"]["nn"] == pytest.approx(expected["nn"])
    rows = committed("shifted.csv", "gn").query("shift != 'none'")
    assert set(zip(rows["shift"], rows["strength"], strict=True)) == {
        (name, x) for name, (_, xs) in scoring.SHIFTS.items() for x in xs
    }
    over_thirty = committed("shifted.csv", *bn).query("shift != 'none' and batch == 0")
    assert known["shifts"]["mean"]["bn"] == pytest.approx(over_thirty["accuracy"].mean()) and len(over_thirty) == 6 * 30
    assert known["calibration_shifted"]["calibration_error"]["bn"] == pytest.approx(over_thirty["calibration_error"].mean())
    for shift, batch in (("contrast", 64), ("blur", 512)):
        rows = committed("shifted.csv", *bn).query(f"shift == '{shift}' and batch == {batch}")
        assert known["statistics"].loc[shift, str(batch)] == pytest.approx(rows["accuracy"].mean()) and len(rows) == 6
    for v, column in (("nn", "calibration_error"), ("ln", "log_loss")):
        clean = committed("shifted.csv", v).query("shift == 'none' and batch == 0")
        assert known["calibration"].loc[v, column] == pytest.approx(clean[column].mean())
    for v, mirrored, column in (("gn", True, "mirrored"), ("bin", False, "plain")):
        rows = committed("reliability.csv", v).query(f"split == 'test' and mirrored == {mirrored}")
        assert known["mirror"].loc[v, column] == pytest.approx(rows["right"].sum() / rows["images"].sum())


@pytest.mark.skipif(
    "CIFAR10_DIR" not in os.environ, reason="CIFAR10_DIR does not name a folder with the official CIFAR-10 files"
)
@pytest.mark.parametrize("variant", ["gn", "bn"])
def test_committed_scores_are_those_of_the_stored_models(variant):
    """Read, made pale, scored and counted without lib.data, lib.shifts and lib.scoring."""
    folder = Path(os.environ["CIFAR10_DIR"]) / "cifar-10-batches-py"
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    *training, test = [pickle.loads((folder / name).read_bytes(), encoding="bytes") for name in names]
    images, labels = test[b"data"].reshape(-1, 3, 32, 32).astype(np.float64), np.array(test[b"labels"])
    middle = images.mean((1, 2, 3), keepdims=True)
    pale = np.rint(np.clip(middle + 0.25 * (images - middle), 0, 255))
    all_training = np.concatenate([file[b"data"] for file in training]).reshape(-1, 3, 1024) / 255
    mean, std = all_training.mean((0, 2))[:, None, None], all_training.std((0, 2))[:, None, None]
    model = store.Result(COMMITTED.runs(variant)[0], COMMITTED.outputs).model().eval()
    with torch.no_grad():
        x = torch.tensor((pale / 255 - mean) / std, dtype=torch.float32)
        p = torch.cat([model(part) for part in x.split(500)]).double().softmax(1).numpy()
    row = (
        committed("shifted.csv", variant).query("run == 0 and shift == 'contrast' and strength == 0.25 and batch == 0").iloc[0]
    )
    assert row["accuracy"] == pytest.approx((p.argmax(1) == labels).mean(), abs=0.003)  # the mean of 40,000 of the images
    assert row["log_loss"] == pytest.approx(log_loss(labels, p), rel=0.02)
    part = np.digitize(p.max(1), np.linspace(0, 1, 16), right=True)
    gaps = [abs((p.argmax(1) == labels)[part == i].mean() - p.max(1)[part == i].mean()) * (part == i).mean() for i in set(part)]
    assert row["calibration_error"] == pytest.approx(sum(gaps), abs=0.003)
