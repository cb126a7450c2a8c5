"""Scores, quantiles and intervals against values worked out another way."""

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


def correct(right, total=1000):
    return np.arange(total) < right


def test_interval_of_one_seed_is_wilsons():
    accuracy, low, high = metrics.interval([correct(900)])
    z, n, p = 1.959964, 1000, 0.9
    middle, half = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert (accuracy, low, high) == pytest.approx((0.9, middle - half, middle + half), abs=1e-6)


def test_interval_over_seeds_is_students_with_the_images_beside_it():
    accuracy, low, high = metrics.interval([correct(900), correct(910), correct(920)])
    images = np.array([1.0] * 900 + [2 / 3] * 10 + [1 / 3] * 10 + [0.0] * 80)
    half = np.hypot(4.302653 * 0.01 / np.sqrt(3), 1.959964 * images.std(ddof=1) / np.sqrt(1000))
    assert (accuracy, high - accuracy) == pytest.approx((0.91, half), abs=1e-6)
    assert low == pytest.approx(2 * accuracy - high)


def test_difference_is_paired_by_image():
    """1 % of the images decide between the two, all the same way: clear when paired, unclear when not."""
    gap, low, high = metrics.difference([correct(900)], [correct(890)])
    assert gap == pytest.approx(0.01) and low > 0
    gap, low, high = metrics.difference([correct(900)], [correct(900)[::-1]])
    assert gap == 0 and low < 0 < high


def test_two_that_agree_on_every_image_may_still_differ_a_little():
    gap, low, high = metrics.difference([correct(900)], [correct(900)])
    assert gap == 0 and -0.003 < low < 0 < high < 0.003


def test_the_interval_of_one_seed_covers_the_choice_of_the_images():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        a, b = rng.random(500) < 0.8, rng.random(500) < 0.75
        _, low, high = metrics.difference([a], [b])
        inside += low <= 0.05 <= high
    assert 0.92 <= inside / 400 <= 0.98


@pytest.mark.parametrize("spread", [0.0, 0.02], ids=["seeds alike", "seeds apart"])
def test_intervals_of_several_seeds_cover_the_seed_and_the_choice_of_the_images(spread):
    """Images are hard or easy for all; a seed shifts the accuracy on all of them."""
    rng, inside = np.random.default_rng(0), []
    for _ in range(300):
        hard = rng.random(1000)

        def draw(accuracy, hard=hard):
            return [(hard + 0.1 * rng.normal(size=1000)) < accuracy + spread * rng.normal() for _ in range(3)]

        a, b, c, d = draw(0.8), draw(0.75), draw(0.8), draw(0.75)
        found = metrics.difference(a, b), metrics.interval(a), metrics.interaction(a, b, c, d)
        inside.append([low <= truth <= high for truth, (_, low, high) in zip((0.05, 0.8, 0), found, strict=True)])
    assert (np.mean(inside, axis=0) >= 0.93).all()
    if spread:  # and they are not so wide that they say nothing
        assert (np.mean(inside, axis=0) <= 0.998).all()


def test_seeds_that_all_agree_leave_the_images_uncertainty():
    several = metrics.difference([correct(900)] * 2, [correct(890)] * 2)
    assert several == pytest.approx(metrics.difference([correct(900)], [correct(890)]), abs=6e-4)
    assert metrics.interval([correct(900)] * 2) == pytest.approx(metrics.interval([correct(900)]), abs=2e-3)


def test_the_spread_over_seeds_is_that_of_an_analysis_of_variance():
    groups = [[correct(900), correct(910)], [correct(800)], [correct(700), correct(720), correct(740)]]
    found = metrics.spread(groups)
    assert (found.deviation, found.freedom) == (pytest.approx(np.sqrt((0.005**2 * 2 + 0.02**2 * 2) / 3)), 3)
    assert metrics.spread([[correct(900)], [correct(1)]]) is None
    t = 3.182446  # Student's, 3 degrees of freedom
    assert found.half([1, 2]) == pytest.approx(t * found.deviation * np.sqrt(1.5), rel=1e-6)
    gap, low, high = metrics.difference(groups[1], groups[0], seeds=found)
    images = np.array([0.0] * 800 + [-1.0] * 100 + [-0.5] * 10 + [0.0] * 90)
    half = np.hypot(found.half([1, 2]), 1.959964 * images.std(ddof=1) / np.sqrt(1000))
    assert (gap, low, high) == pytest.approx((-0.105, -0.105 - half, -0.105 + half), abs=1e-6)
    gap, low, high = metrics.interaction(groups[0], groups[1], groups[2], groups[1], seeds=found)
    values = np.mean(groups[0], axis=0) - np.mean(groups[2], axis=0)
    half = np.hypot(found.half([2, 1, 3, 1]), 1.959964 * values.std(ddof=1) / np.sqrt(1000))
    assert (gap, high - gap) == (pytest.approx(0.185), pytest.approx(half, abs=1e-6)) and low < gap
    value, low, high = metrics.interval(groups[1], found)
    half = np.hypot(found.half([1]), 1.959964 * groups[1][0].std(ddof=1) / np.sqrt(1000))
    assert (value, low, high) == pytest.approx((0.8, 0.8 - half, 0.8 + half), abs=1e-6)
    assert metrics.interval(groups[0], metrics.Spread(0.5, 3))[1:] == (0, 1)


def test_intervals_by_a_pooled_spread_cover_the_seed_of_a_variant_with_one():
    """Four variants of two seeds, and one of one seed, which is compared with one of the four."""
    rng, inside = np.random.default_rng(0), []
    for _ in range(400):
        hard = rng.random(1000)

        def draw(accuracy, seeds, hard=hard):
            return [(hard + 0.1 * rng.normal(size=1000)) < accuracy + 0.02 * rng.normal() for _ in range(seeds)]

        groups = [draw(accuracy, seeds) for accuracy, seeds in ((0.8, 2), (0.75, 2), (0.7, 2), (0.6, 2), (0.75, 1))]
        found = metrics.spread(groups)
        results = metrics.difference(groups[0], groups[4], seeds=found), metrics.interval(groups[4], found)
        inside.append([low <= truth <= high for truth, (_, low, high) in zip((0.05, 0.75), results, strict=True)])
        inside[-1].append(
            metrics.difference(groups[0][:1], groups[4])[1] <= 0.05 <= metrics.difference(groups[0][:1], groups[4])[2]
        )
    of_pooled, images_alone = np.mean(inside, axis=0)[:2], np.mean(inside, axis=0)[2]
    assert (of_pooled >= 0.93).all() and (of_pooled <= 0.99).all() and images_alone < 0.85


def test_the_best_of_equals_is_not_clearly_better_than_the_worst():
    rng, one, corrected = np.random.default_rng(0), 0, 0
    for _ in range(300):
        group = sorted((rng.random(1000) < 0.8 for _ in range(6)), key=np.mean)
        one += metrics.difference([group[-1]], [group[0]])[1] > 0
        corrected += metrics.difference([group[-1]], [group[0]], 15)[1] > 0
    assert corrected <= 0.05 * 300 < 0.2 * 300 < one


def test_an_accuracy_interval_stays_between_0_and_1():
    _, low, high = metrics.interval([correct(830), correct(970)])
    assert 0 <= low < 0.9 < high == 1


def test_interaction_is_the_difference_of_differences():
    a, b, c, d = ([correct(n)] for n in (880, 900, 895, 900))
    gap, low, high = metrics.interaction(a, b, c, d)
    per_image = (a[0] * 1.0 - b[0]) - (c[0] * 1.0 - d[0])
    assert gap == pytest.approx(-0.015) and high - low == pytest.approx(2 * 1.959964 * per_image.std(ddof=1) / np.sqrt(1000))
    gap, low, high = metrics.interaction(*([x[0], correct(n)] for x, n in zip((a, b, c, d), (870, 900, 895, 905), strict=True)))
    assert gap == pytest.approx((-0.015 - 0.02) / 2) and low < gap < high


def test_mean_and_difference_of_means_have_normal_intervals():
    a, b = np.array([0.0, 1.0] * 50), np.array([1.0, 1.0, 0.0] * 40)
    mean, low, high = metrics.mean_interval(a)
    assert (mean, round(low, 4), round(high, 4)) == (0.5, 0.4015, 0.5985)
    gap, low, high = metrics.unpaired(b, a)
    half = 1.959964 * np.sqrt(a.var(ddof=1) / 100 + b.var(ddof=1) / 120)
    assert (gap, low, high) == pytest.approx((1 / 6, 1 / 6 - half, 1 / 6 + half))
