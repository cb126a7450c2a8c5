"""Scores and quantiles against values worked out another way."""

import numpy as np
import pytest

from lib import metrics

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 0, 1, 1, 1, 0])


def test_scores_by_hand():
    found = metrics.scores(LABELS, PREDICTIONS, 3)
    f1 = [2 * 2 / (3 + 3), 2 * 2 / (2 + 3), 0]  # 2 TP / (true + predicted)
    assert found == pytest.approx({"accuracy": 4 / 6, "micro_f1": 4 / 6, "macro_f1": sum(f1) / 3})


def test_a_class_without_images_or_predictions_still_counts():
    assert metrics.scores(LABELS, PREDICTIONS, 4)["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 4)


def test_per_class_by_hand():
    found = metrics.per_class(LABELS, PREDICTIONS, ("a", "b", "c"))
    assert found.loc["a"].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 3])
    assert found.loc["b"].tolist() == pytest.approx([2 / 3, 1, 4 / 5, 2])
    assert found.loc["c"].tolist() == [0, 0, 0, 1]


def test_confusion_has_true_classes_in_rows():
    assert metrics.confusion(LABELS, PREDICTIONS, ("a", "b", "c")).to_numpy().tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_quantiles_of_a_known_distribution():
    found = metrics.quantiles(np.arange(1001).reshape(7, 143))
    assert found == {"q01": 10, "q20": 200, "q80": 800, "q99": 990}
