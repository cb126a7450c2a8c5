"""lib.stats against closed forms and a simulation whose truth is known."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from lib import stats

IMAGES = 1000
#: Standard deviations in the simulation: difficulty of an image for all, for one arm, of a training, of an answer. With them
#: two trainings of one arm disagree about 8.1 % of the images, of two arms about 9.3 %, and accuracy varies 1.7 times as much
#: between trainings (variance) as single images that flip explain. In the stored runs: 8.0 %, 8.9 %, 1.6 times.
IMAGE, OWN, TRAINING, ANSWER = 2.0, 0.45, 0.073, 1.0
TOTAL = np.sqrt(IMAGE**2 + OWN**2 + TRAINING**2 + ANSWER**2)
#: The study's arms as {name: trainings}: BN's are PyTorch's and ours; batches of 8 were trained once.
COUNTS = {"bn": 6, "in": 2, "bin": 3, "ln": 2, "gn": 3, "nn": 3, "bn_8": 1, "gn_8": 1}
TRUTHS = dict(zip(COUNTS, np.linspace(0.912, 0.891, len(COUNTS)), strict=True))


def drawn(rng, counts: dict[str, int] = COUNTS, images: int = IMAGES) -> stats.Answers:
    """Arms whose true accuracies are TRUTHS (probit): right is who finds image, arm, training and answer easy enough. Images
    and trainings are crossed: an image is as hard for every training of an arm, a training as good on every image."""
    shared, arms = IMAGE * rng.standard_normal(images, dtype=np.float32), {}
    for name, count in counts.items():
        easy = scipy_stats.norm.ppf(TRUTHS[name]) * TOTAL - shared - OWN * rng.standard_normal(images, dtype=np.float32)
        training = TRAINING * rng.standard_normal((count, 1), dtype=np.float32)
        arms[name] = easy > training + ANSWER * rng.standard_normal((count, images), dtype=np.float32)
    return arms


def test_intervals_cover_what_they_say(monkeypatch):
    """3 trainings against 3, 6 against 3 and 3 against 1, among the study's arms."""
    monkeypatch.setattr(
        stats.optimize, "brentq", lambda *args: np.nan
    )  # p, which is not asked for here, takes most of the time
    rng, repeats = np.random.default_rng(0), 5000
    inside = {("bin", "gn"): 0, ("bn", "gn"): 0, ("nn", "gn_8"): 0}
    for _ in range(repeats):
        arms = drawn(rng)
        for a, b in inside:
            found = stats.contrast({a: 1, b: -1}, arms)
            inside[a, b] += found.low <= TRUTHS[a] - TRUTHS[b] <= found.high
    shares = {pair: hits / repeats for pair, hits in inside.items()}
    assert all(0.94 < share < 0.96 for share in shares.values()), shares  # 0.95 ± 3.2 standard errors of the simulation


def test_a_clear_difference_where_there_is_none_is_rare():
    """Six arms that are equally good: in at most 5 % of the tables, a little more by chance, is any pair called clear."""
    rng, repeats, wrong = np.random.default_rng(4), 200, 0
    names = [name for name in COUNTS if "_8" not in name]
    pairs = {f"{a} - {b}": {a: 1, b: -1} for i, a in enumerate(names) for b in names[:i]}
    for _ in range(repeats):
        shared = IMAGE * rng.standard_normal(300)
        arms = {
            name: (2.2 - shared - OWN * rng.standard_normal(300) > ANSWER * rng.standard_normal((COUNTS[name], 300)))
            for name in names
        }
        wrong += stats.table(pairs, arms)["clear"].any()
    assert wrong <= 0.08 * repeats


def test_spread_is_that_of_an_analysis_of_variance():
    rng = np.random.default_rng(5)
    arms = {"a": rng.random((3, 40)) < 0.7, "b": rng.random((2, 40)) < 0.5, "alone": rng.random((1, 40)) < 0.1}
    found = stats.variances(arms)
    assert found.freedom == 3
    squares = [((runs - runs.mean(0)) ** 2).sum(0) for runs in (arms["a"].astype(float), arms["b"].astype(float))]
    assert found.within_image == pytest.approx(np.mean(squares[0] + squares[1]) / 3)
    means = [runs.mean(1) for runs in (arms["a"], arms["b"])]
    assert found.between_runs == pytest.approx(sum(((m - m.mean()) ** 2).sum() for m in means) / 3)
    assert stats.variances({"alone": arms["alone"]}) == stats.variances({}) == (0, 0, 0)


def test_no_chance_is_counted_twice():
    """Where trainings of an arm differ by what single images flip alone, those flips are in the spread between trainings; what
    is left for the choice of the images is how the arms differ on them."""
    rng = np.random.default_rng(6)
    easy = rng.random(50_000) < 0.5  # right in half of the trainings, else always
    a, b = ((rng.random((40, 50_000)) < 0.5) | ~easy for _ in range(2))
    found = stats.contrast({"a": 1, "b": -1}, {"a": a, "b": b})
    flips = np.sqrt(2 / 40 * 0.5 * 0.25 / 50_000)  # of two means of 40 trainings, on half of the images
    t = scipy_stats.t.isf(0.025, 78)
    assert (found.high - found.low) / 2 == pytest.approx(t * flips, rel=0.2)  # and not the root of 2 times as much


def test_one_run_each_is_the_paired_interval_over_images():
    rng = np.random.default_rng(1)
    a, b = rng.random(5000) < 0.9, rng.random(5000) < 0.88
    found = stats.contrast({"a": 1, "b": -1}, {"a": [a], "b": [b]})
    gap = a.astype(float) - b
    half = 1.959964 * gap.std(ddof=1) / np.sqrt(5000)
    np.testing.assert_allclose(found[:3], (gap.mean(), gap.mean() - half, gap.mean() + half), atol=1e-9)
    assert found.p == pytest.approx(2 * scipy_stats.norm.sf(abs(gap.mean()) / (half / 1.959964)), rel=1e-6)
    assert not stats.table({"a": {"a": 1, "b": -1}}, {"a": [a], "b": [b]})["clear"].any()


def test_many_images_leave_students_t():
    """Where images cannot matter, for all are alike, the interval and p are those of a pooled t test."""
    rng = np.random.default_rng(2)
    arms = {
        name: [rng.permutation(np.arange(1000) < k) for k in ks] for name, ks in {"a": (900, 910, 905), "b": (890, 880)}.items()
    }
    found = stats.contrast({"a": 1, "b": -1}, arms)
    known = scipy_stats.ttest_ind([0.9, 0.91, 0.905], [0.89, 0.88])
    interval = known.confidence_interval()
    np.testing.assert_allclose(found[:3], (0.02, interval.low, interval.high), rtol=0.02)
    assert found.p == pytest.approx(known.pvalue, rel=0.1)


def test_interval_and_p_agree():
    arms = drawn(np.random.default_rng(3), {"bn": 3, "in": 2, "gn": 3})
    for weights in ({"bn": 1, "in": -1}, {"bn": 1, "gn": -1}, {"bn": 1, "in": -2, "gn": 1}):
        found = stats.contrast(weights, arms)
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_holm():
    """The example of Holm (1979) in statsmodels' tests: order kept, monotone, never above 1."""
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]).max() == 1


def test_clear_is_holms_p_of_the_table_below_a_twentieth():
    arms = drawn(np.random.default_rng(7), {"bn": 3, "in": 2, "gn": 3, "gn_8": 3}, images=4000)
    rows = stats.table({name: {"bn": 1, name: -1} for name in ("in", "gn", "gn_8")}, arms)
    single = {name: stats.contrast({"bn": 1, name: -1}, arms) for name in rows.index}
    assert rows[list(stats.Contrast._fields)].T.to_dict("list") == {name: list(found) for name, found in single.items()}
    assert rows["clear"].tolist() == (stats.holm([found.p for found in single.values()]) < 0.05).tolist()
    assert rows["clear"].nunique() == 2  # some are and some are not, so that this could fail
    alone = stats.table({"in": {"bn": 1, "in": -1}}, {name: arms[name][:1] for name in ("bn", "in")})
    assert alone.shape == (1, 5) and stats.table({}, {}).columns.tolist() == rows.columns.tolist()


def test_two_arms_that_agree_on_everything():
    right = np.arange(100) < 90
    assert stats.contrast({"a": 1, "b": -1}, {"a": [right], "b": [right]}) == (0, 0, 0, 1)


def test_wrong_arms_are_named():
    arms = {"a": [np.ones(3, bool)], "b": [np.ones(4, bool)]}
    with pytest.raises(ValueError, match="the arms are a, b"):
        stats.contrast({"c": 1}, arms)
    with pytest.raises(ValueError, match="same"):
        stats.contrast({"a": 1}, arms)
