"""Scores of stored models against scikit-learn, closed forms and what the runs themselves wrote."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from lib import scoring
from lib.data import Split
from lib.study import Study
from lib.train import fit


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of BN and one of GN, and their data."""
    study = Study("smoke", outputs=tmp_path_factory.mktemp("scoring"))
    return {v: fit(study.runs(v)[0], study.outputs, progress=False) for v in ("bn", "gn")}, study.data()


def test_calibration_error_by_hand():
    """Two bins: (0.5, 0.55] with half right of confidence 0.54, and one of confidence 1 that is always right."""
    confidence, right = np.array([0.54, 0.54, 1.0, 1.0]), np.array([True, False, True, True])
    assert scoring.calibration_error(confidence, right) == pytest.approx(0.5 * 0.04)
    assert scoring.calibration_error(confidence, ~right) == pytest.approx(0.5 * 0.04 + 0.5)


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


def test_every_shift_has_its_rows_and_only_batch_norm_takes_a_batchs_statistics(runs, monkeypatch):
    results, data = runs
    monkeypatch.setattr(scoring, "weights_sum", lambda result: "of fewer images")
    data = replace(data, test=Split(data.test.images[:40], data.test.labels[:40]))
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


def test_what_is_kept_is_of_these_weights(runs, monkeypatch):
    results, data = runs
    monkeypatch.setattr(scoring, "SHIFTS", {"brightness": (scoring.brighter, (25,))})
    monkeypatch.setattr(scoring, "weights_sum", lambda result: "some")
    before = scoring.shifted(results["gn"], data)
    scoring.probabilities(results["gn"], data)
    with monkeypatch.context() as patch:  # it is read, and nothing is scored
        patch.setattr(scoring, "outputs_of", None)
        pd.testing.assert_frame_equal(scoring.shifted(results["gn"], data), before)
        assert scoring.probabilities(results["gn"], data).keys() == {"val", "val_mirrored", "test", "test_mirrored"}
    monkeypatch.setattr(scoring, "weights_sum", lambda result: "others")
    monkeypatch.setattr(scoring, "SHIFTS", {})
    assert (len(before), len(scoring.shifted(results["gn"], data))) == (2, 1)  # made anew
