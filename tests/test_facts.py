"""The facts of finished trainings, against their raw files, closed forms, and trainings made up to break them open."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats as scipy_stats
from sklearn.metrics import f1_score

from lib import facts, metrics, stats
from lib.engine import store
from lib.engine.store import Folder, Result
from lib.run import Run
from lib.study import Study
from lib.train import evaluate
from report import probes, saved

SIZES = {"train": 30, "val": 40, "test": 200}
SMALL = Run(n=1, dataset="digits", epochs=8, batch_size=32, train_size=64, augment="none", precision="float32")


def made(outputs, run: Run, right: dict | None = None, status="done", device="a CPU", **columns) -> Result:
    """A finished run, written as `fit` writes it. `right`: split -> share of right answers, or whether each is right; `columns`
    of its history."""
    epochs = max([len(values) for values in columns.values()], default=4)
    columns = {"train_accuracy": [0.5] * epochs, "val_accuracy": [0.5] * epochs, "seconds": [1.0] * epochs} | columns
    columns = {name: [0.0] * epochs for name in metrics.QUANTILES} | columns
    splits, arrays = {}, {}
    for split, answers in ({"train": 0.9, "val": 0.7, "test": 0.8} | (right or {})).items():
        labels = np.arange(SIZES[split]) % run.classes
        answers = np.arange(len(labels)) < answers * len(labels) if np.isscalar(answers) else answers
        predictions = np.where(answers, labels, (labels + 1) % run.classes)
        splits[split] = {"loss": 1 - answers.mean()} | metrics.scores(labels, predictions, run.classes)
        arrays |= {f"{split}_labels": labels.astype(np.int16), f"{split}_predictions": predictions.astype(np.int16)}
    folder = Folder(run, outputs)
    folder.path.mkdir(parents=True)
    folder.write_json("config.json", run.__dict__ | {"code_version": run.code})
    folder.write("history.csv", pd.DataFrame({"epoch": range(1, epochs + 1)} | columns).to_csv(index=False))
    folder.write(store.MODEL, b"no weights")
    np.savez(folder.path / "predictions.npz", **arrays)
    folder.write_json("env.json", {"device": device})
    best = int(np.argmax(columns["val_accuracy"])) + 1
    folder.write_json("metrics.json", {"status": status, "best_epoch": best, "epochs_run": epochs, "splits": splits})
    folder.seal()
    return Result(run, outputs)


DIVERGED, COLLAPSED = {"status": "diverged"}, {"val_accuracy": [0.6, 0.7, 0.1, 0.1]}


@pytest.fixture
def arm(tmp_path):
    """norm, a dict of `made` for each seed -> the results, which differ in the seed."""

    def make(norm, *trainings, **fields):
        return [made(tmp_path, replace(SMALL, norm=norm, seed=seed, **fields), **how) for seed, how in enumerate(trainings)]

    return make


def raw(result, name):
    content = (result.path / name).read_text()
    return pd.read_csv(result.path / name) if name.endswith(".csv") else json.loads(content)


# Groups of trainings


def test_batch_norm_is_one_layer_however_it_is_written():
    found = {"torch_bn": ["t0", "t1"], "in": ["i0"], "bn": ["b0"], "bn_8": ["e0"]}
    assert facts.by_norm(found) == {"in": ["i0"], "bn": ["b0", "t0", "t1"], "bn_8": ["e0"]}
    assert list(facts.by_norm(found)) == ["in", "bn", "bn_8"]  # in their order
    assert facts.by_norm({"torch_bn": ["t0"], "nn": ["n0"]}) == {"nn": ["n0"], "bn": ["t0"]}
    assert facts.by_norm({"bn": ["b0"], "gn": ["g0"]}) == {"bn": ["b0"], "gn": ["g0"]}
    assert found["bn"] == ["b0"]  # what was given is left alone


def test_trainings_and_their_means(arm):
    rng = np.random.default_rng(0)
    arms = {
        "bn": arm("bn", *({"right": {s: rng.random(n) < 0.7 for s, n in SIZES.items()}, "seconds": [1.0] * k} for k in (5, 6))),
        "in": arm("in", {"val_accuracy": [0.3, 0.6, 0.5]}),
    }
    frame = facts.trainings(arms)
    assert list(frame.index) == ["bn", "bn", "in"] and frame["seed"].tolist() == [0, 1, 0]
    for (_, row), result in zip(frame.iterrows(), [*arms["bn"], *arms["in"]], strict=True):
        with np.load(result.path / "predictions.npz") as arrays:
            for split in SIZES:
                labels, predictions = arrays[f"{split}_labels"], arrays[f"{split}_predictions"]
                assert row[split] == pytest.approx((labels == predictions).mean())
                assert row[f"{split}_f1"] == pytest.approx(f1_score(labels, predictions, average="macro"))
        assert row["val_loss"] == raw(result, "metrics.json")["splits"]["val"]["loss"]
        assert row["epochs"] == len(raw(result, "history.csv"))
    assert frame["best_epoch"].tolist() == [1, 1, 2]
    means = facts.scores(arms)
    assert means["n"].to_dict() == {"bn": 2, "in": 1} and list(means.index) == ["bn", "in"] and "seed" not in means
    for name in ("train", "val", "test", "val_loss", "test_f1", "epochs"):
        assert means.loc["bn", name] == pytest.approx(frame.loc["bn", name].sum() / 2), name
    assert means.loc["bn", "epochs"] == 5.5


@pytest.mark.parametrize("how", [DIVERGED, COLLAPSED], ids=["diverged", "collapsed"])
def test_no_number_is_of_the_lucky_seeds_alone(arm, how):
    arms = {"bn": arm("bn", {}, {}), "gn": arm("gn", {}, how)}
    assert arms["gn"][1].failed and not arms["gn"][0].failed
    frame = facts.trainings(arms)
    assert frame["seed"].tolist() == [0, 1, 0, 1]
    assert frame[["val_loss", "train", "val", "test", "train_f1", "val_f1", "test_f1"]].isna().sum(axis=1).tolist() == [
        0,
        0,
        0,
        7,
    ]
    tables = {
        "scores": facts.scores(arms).drop(columns=["best_epoch", "epochs", "n"]),
        "jitter": facts.jitter(arms)[["value", "low", "high"]],
        "epochs_to": facts.epochs_to(arms, (0.4,))[["value", "low", "high"]],
        "features": facts.features(arms)[list(metrics.QUANTILES)],
        "per_class": facts.per_class(arms, tuple("0123456789")).T,
    }
    for name, table in tables.items():
        assert table.loc["bn"].notna().all() and table.loc["gn"].isna().all(), name
    assert facts.by_split(arms["gn"]).isna().all(axis=None) and facts.by_split(arms["bn"]).notna().all(axis=None)
    assert list(facts.answers(arms)) == ["bn"]


def test_by_split_per_class_confusion_and_agreement(arm):
    rng = np.random.default_rng(1)
    results = arm("bn", *({"right": {split: rng.random(n) < 0.6 for split, n in SIZES.items()}} for _ in range(2)))
    splits = facts.by_split(results)
    files = [raw(result, "metrics.json")["splits"] for result in results]
    for split in SIZES:
        for name in ("accuracy", "micro_f1", "macro_f1", "loss"):
            assert splits.loc[split, name] == pytest.approx((files[0][split][name] + files[1][split][name]) / 2)
    classes = tuple("abcdefghij")
    by_class = facts.per_class({"bn": results}, classes)
    answers = [result.predictions for result in results]
    f1 = [f1_score(a["test_labels"], a["test_predictions"], average=None) for a in answers]
    assert by_class["bn"].to_dict() == pytest.approx(dict(zip(classes, (f1[0] + f1[1]) / 2, strict=True)))
    counts = facts.confusion(results, classes)
    pairs = [(a["test_labels"] == 3) & (a["test_predictions"] == 4) for a in answers]
    assert counts.loc["d", "e"] == np.mean([pair.sum() for pair in pairs]) > 0 == counts.loc["e", "d"]
    assert counts.to_numpy().sum() == SIZES["test"]
    same = np.mean(answers[0]["test_predictions"] == answers[1]["test_predictions"])
    assert facts.agreement(*results) == same and 0.3 < same < 0.9 and facts.agreement(results[0], results[0]) == 1


# Differences


def shares(rng, *accuracies):
    return [{"right": {"test": rng.random(SIZES["test"]) < accuracy}} for accuracy in accuracies]


@pytest.fixture
def three(arm):
    """BN is clearly better than GN, and IN is between."""
    rng = np.random.default_rng(2)
    accuracies = {"gn": (0.5, 0.5), "in": (0.85, 0.84), "bn": (0.9, 0.9, 0.9)}
    return {norm: arm(norm, *shares(rng, *of_seeds)) for norm, of_seeds in accuracies.items()}


def test_differences_are_of_the_first_minus_the_second(three):
    mean = {v: np.mean([raw(r, "metrics.json")["splits"]["test"]["accuracy"] for r in three[v]]) for v in three}
    versus = facts.against(three, "bn")
    assert list(versus.index) == ["gn", "in"] and versus.index.name == "variant"
    assert versus["value"].to_dict() == pytest.approx({v: mean[v] - mean["bn"] for v in ("gn", "in")})
    assert versus.loc["gn", ["clear", "ahead", "behind"]].tolist() == [True, False, True]
    assert versus.loc["in", ["clear", "ahead", "behind"]].tolist() == [False, False, False] and versus["value"]["in"] < 0
    pairs = facts.pairs(three)
    assert list(pairs.index) == ["gn - in", "gn - bn", "in - bn"] and pairs.index.name == "pair"
    assert pairs["value"].tolist() == pytest.approx([mean["gn"] - mean["in"], mean["gn"] - mean["bn"], mean["in"] - mean["bn"]])
    turned = facts.against(three, "gn")
    assert turned.loc["bn", ["clear", "ahead", "behind"]].tolist() == [True, True, False]
    assert (turned.loc["bn", "low"], turned.loc["bn", "high"]) == pytest.approx((-versus["high"]["gn"], -versus["low"]["gn"]))


def test_any_contrast_is_lib_stats_table_of_all_arms(three):
    asked = {"bn over both": {"bn": 1, "gn": -0.5, "in": -0.5}, "in - gn": {"in": 1, "gn": -1}}
    right = {v: [result.correct() for result in results] for v, results in three.items()}
    rows, table = facts.compare(three, asked), stats.table(asked, right)
    pd.testing.assert_frame_equal(rows[list(table.columns)], table)
    assert rows["ahead"].all() and not rows["behind"].any()


@pytest.mark.parametrize("how", [DIVERGED, COLLAPSED], ids=["diverged", "collapsed"])
def test_a_contrast_with_a_failed_variant_is_no_number_and_not_clear(arm, three, how):
    arms = three | {"nn": arm("nn", {}, how)}
    rows = facts.against(arms, "bn")
    assert rows.loc["nn", ["value", "low", "high", "p"]].isna().all() and not rows.loc["nn", ["clear", "ahead", "behind"]].any()
    pd.testing.assert_frame_equal(rows.loc[["gn", "in"]], facts.against(three, "bn"))  # the others as if it were not there
    assert rows["clear"].dtype == rows["behind"].dtype == bool
    lost = facts.against({"nn": arms["nn"], "bn": arm("bn", DIVERGED, batch_size=2)}, "bn")
    assert lost.loc["nn"].isna().sum() == 4 and not lost["clear"].any()


def test_trained_once_nothing_is_clear(arm):
    rng = np.random.default_rng(3)
    rows = facts.pairs({norm: arm(norm, *shares(rng, accuracy)) for norm, accuracy in (("bn", 0.9), ("gn", 0.3))})
    assert rows["low"].iloc[0] > 0.4 and not rows[["clear", "ahead", "behind"]].any(axis=None)


# Histories


def test_a_number_of_the_history_over_the_seeds(arm):
    arms = {"bn": arm("bn", *({"val_accuracy": [0.2, value]} for value in (0.5, 0.9, 0.4))), "in": arm("in", {})}
    rows = facts.over_seeds(arms, lambda history: history["val_accuracy"].iloc[-1])
    assert rows.loc["bn"].tolist() == pytest.approx([0.6, 0.4, 0.9, 3]) and rows.loc["in"].tolist() == [0.5, 0.5, 0.5, 1]
    assert facts.over_seeds(arms, len, max)["value"].tolist() == [2, 4] and rows.index.name == "variant"


def test_first_epoch_with_a_training_accuracy(arm):
    curves = ([0.1, 0.5, 0.4, 0.9], [0.5, 0.6, 0.7, 0.8], [0.1, 0.2, 0.3, 0.5])
    arms = {
        "bn": arm("bn", *({"train_accuracy": curve} for curve in curves)),
        "in": arm("in", *({"train_accuracy": curve} for curve in curves[:2])),
    }
    found = facts.epochs_to(arms, (0.5, 0.8, 0.125))
    assert found["value"].columns.tolist() == ["50 %", "80 %", "12.5 %"]
    assert found.loc["bn", [(c, "50 %") for c in ("value", "low", "high", "n")]].tolist() == [2, 1, 4, 3]
    assert found.loc["in", [(c, "50 %") for c in ("value", "low", "high", "n")]].tolist() == [2, 1, 2, 2]  # the later of two
    assert found.loc["bn"][["value", "low", "high"]].xs("80 %", level=1).isna().all()  # one never got there
    assert found["value"].loc["in", "80 %"] == 4


def test_jitter_is_the_mean_change_in_the_first_half(arm):
    restless, late = [0.5, 0.7, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6], [0.5, 0.5, 0.5, 0.6, 0.1, 0.9, 0.1, 0.9]
    arms = {"bn": arm("bn", {"val_accuracy": restless}, {"val_accuracy": late}), "in": arm("in", {"val_accuracy": [0.5, 0.9]})}
    found = facts.jitter(arms)
    assert found.loc["bn"].tolist() == pytest.approx([(0.7 / 3 + 0.1 / 3) / 2, 0.1 / 3, 0.7 / 3, 2])
    assert np.isnan(found.loc["in", "value"])  # one epoch alone does not change
    assert [frame["val_accuracy"].tolist() for frame in facts.histories(arms)["bn"]] == [restless, late]


def quantiles(*spreads):
    """A history with so large a spread of the features in each epoch, between the outer percentiles; the inner ones stay."""
    return {
        "q01": [1 - 0.5 * spread for spread in spreads],
        "q20": [0.9] * len(spreads),
        "q80": [1.2] * len(spreads),
        "q99": [1 + 0.5 * spread for spread in spreads],
    }


@pytest.mark.parametrize(
    "spreads, expected",
    [
        ([9, 9, 2, 2, 5, 5, 2, 2], 1),  # settled: neither the first quarter nor the third counts
        ([1, 2, 3, 4, 5, 6, 7, 8], 7.5 / 3.5),
        ([9, 2, 5, 6], 3),
        ([4, 2, 1, 1], 0.5),
        ([1, 2, 3], np.nan),  # too few epochs for quarters
        ([1], np.nan),
        ([1, 0, 1, 1], np.nan),  # nothing to grow from
        ([1, np.nan, 1, 1], np.nan),
    ],
)
def test_growth_of_the_features_spread(spreads, expected):
    assert facts.growth(pd.DataFrame(quantiles(*spreads))) == pytest.approx(expected, nan_ok=True)


def test_features_after_the_last_epoch(arm):
    arms = {"bn": arm("bn", quantiles(1, 2, 2, 4), quantiles(1, 2, 2, 2)), "nn": arm("nn", quantiles(1, 2))}
    found = facts.features(arms)
    assert found.loc["bn"].to_dict() == pytest.approx(
        {"q01": 1 - 0.5 * 3, "q20": 0.9, "q80": 1.2, "q99": 1 + 0.5 * 3, "growth": 1.5, "low": 1, "high": 2, "n": 2}
    )
    assert np.isnan(found.loc["nn", "growth"]) and found.loc["nn", "q99"] == 2 and found.index.name == "variant"


def test_seconds_on_the_usual_kind_of_device_only(arm):
    arms = {
        "gn": arm("gn", {"seconds": [7.0], "device": "a GPU"}),
        "bn": arm("bn", {"seconds": [9, 1, 3]}, {"seconds": [2, 5]}),
        "in": arm("in", {"seconds": [4.0, 4.0]}),
        "ln": arm("ln", {"seconds": [4.0]}, {"seconds": [7.0], "device": "a GPU"}),  # some here, some there
    }
    found = facts.seconds(arms)
    assert found[["bn", "in"]].to_dict() == {"bn": 3, "in": 4} and found[["gn", "ln"]].isna().all()


def test_accuracy_while_training_at_the_best_epoch(arm):
    curves = {"train_accuracy": [0.1, 0.2, 0.9, 0.4], "val_accuracy": [0.5, 0.7, 0.6, 0.7]}
    arms = {"bn": arm("bn", curves, {"train_accuracy": [0.6, 0.7]})}
    assert facts.in_training(arms).to_dict() == pytest.approx({"bn": (0.2 + 0.6) / 2})  # the first of two that are as good


def test_names_of_the_same_runs_are_one(arm):
    a, b = arm("bn", {}), arm("in", {})
    assert facts.distinct({"first": a, "second": b, "again": a}) == {"first": a, "second": b}


# The sweep


def test_sweep_by_rule_of_the_learning_rate(arm):
    rng = np.random.default_rng(4)

    def point(norm, batch, lr, *how):
        return arm(norm, *(how or shares(rng, 0.7)), batch_size=batch, lr=lr)

    swept = {
        "b32": point("bn", 32, 0.1),
        "b2 scaled": point("bn", 2, 0.1 * 2 / 32),
        "b2 same": point("bn", 2, 0.1, COLLAPSED),
        "g64 scaled": point("gn", 64, 0.2),
        "g32": point("gn", 32, 0.1),
        "g2 scaled": point("gn", 2, 0.1 * 2 / 32, DIVERGED),
    }
    rows = facts.by_batch_size(swept, usual=32)
    assert list(zip(rows["rule"], rows["norm"], rows["batch"], rows["run"], strict=True)) == [
        ("same", "bn", 2, "b2 same"), ("same", "bn", 32, "b32"), ("same", "gn", 32, "g32"),
        ("scaled", "bn", 2, "b2 scaled"), ("scaled", "bn", 32, "b32"), ("scaled", "gn", 2, "g2 scaled"),
        ("scaled", "gn", 32, "g32"), ("scaled", "gn", 64, "g64 scaled"),
    ]  # fmt: skip
    lost = rows["run"].isin(["b2 same", "g2 scaled"])
    assert rows.loc[lost, ["value", "low", "high"]].isna().all(axis=None) and rows.loc[~lost].notna().all(axis=None)
    for row in rows[~lost].itertuples():
        right = swept[row.run][0].correct()
        half = 1.959964 * scipy_stats.sem(right.astype(float))  # trained once: the images only
        assert (row.value, row.low, row.high) == pytest.approx((right.mean(), right.mean() - half, right.mean() + half))


def test_one_collapsed_seed_takes_a_point_of_the_sweep(arm):
    rng = np.random.default_rng(5)
    good, more, lost = (shares(rng, 0.7, 0.6) for _ in range(3))
    lost[1] |= COLLAPSED
    swept = {"a": arm("bn", *good), "b": arm("gn", *more), "c": arm("bn", *lost, batch_size=2)}
    rows = facts.by_batch_size(swept, usual=32).set_index("run")
    assert np.isnan(rows.loc["c", "value"])
    known = {name: [r.correct() for r in swept[name]] for name in ("a", "b")}  # its spread counts no more than its accuracy
    assert tuple(rows[rows["rule"] == "same"].loc["a", ["value", "low", "high"]]) == stats.contrast({"a": 1}, known)[:3]


# What was tried


def test_validation_accuracy_of_two_runs_on_the_same_images(arm):
    rng = np.random.default_rng(6)
    a, b = (rng.random(SIZES["val"]) < share for share in (0.9, 0.6))
    (x,), (y,) = arm("bn", {"right": {"val": a}}), arm("gn", {"right": {"val": b, "test": 0.1}})
    found = probes.on_validation(x, y)
    half = 1.959964 * scipy_stats.sem(a.astype(float) - b)
    assert found[:3] == pytest.approx((a.mean() - b.mean(), a.mean() - b.mean() - half, a.mean() - b.mean() + half))
    assert (
        np.isnan(probes.on_validation(x, *arm("nn", COLLAPSED))).all()
        and np.isnan(probes.on_validation(*arm("ln", DIVERGED), x)).all()
    )


def test_what_was_tried_is_held_against_what_was_kept(tmp_path):
    kept, better, lost = (replace(SMALL, seed=seed) for seed in range(3))
    missing = replace(SMALL, seed=9)
    results = made(tmp_path, kept, {"val": 0.5}), made(tmp_path, better, {"val": 0.8})
    made(tmp_path, lost, **DIVERGED)
    pairs = {
        "kept": (kept, kept), "better": (better, kept), "lost": (lost, kept), "against what was lost": (kept, lost),
        "missing": (missing, kept), "nothing to hold it against": (kept, missing),
    }  # fmt: skip
    found = probes.compared(tmp_path, pairs)
    assert list(found.index) == ["kept", "better", "lost", "against what was lost"]
    assert found.loc["kept", "val"] == 0.5 and found.loc["kept"].isna().sum() == 3
    assert found.loc["better"].tolist() == pytest.approx([0.8, *probes.on_validation(*reversed(results))[:3]])
    assert found.loc["better", "value"] == pytest.approx(0.3) and found.loc["better", "low"] > 0
    assert found.loc["lost"].isna().all() and found.loc["against what was lost"].isna().sum() == 3
    assert probes.compared(tmp_path, {}).empty


def test_recipes_are_compared_with_the_one_in_use_and_borders_with_the_black_one(tmp_path):
    assert probes.recipe_table(tmp_path).empty and probes.border_table(tmp_path).empty
    recipes = probes.recipes()
    names = ("weight decay 5e-4, 12 epochs", "weight decay 1e-4, 12 epochs", "GN, groups of 2 channels, 12 epochs")
    for name, share in zip(names, (0.5, 0.7, 0.6), strict=True):
        made(tmp_path, recipes[name][0], {"val": share})
    found = probes.recipe_table(tmp_path)
    assert found["value"].dropna().to_dict() == pytest.approx({names[1]: 0.2})
    assert set(found.index) == set(names[:2])  # what GN's is held against is not there
    plan = {key: planned[0] for key, planned in probes.borders().items()}
    for border, share in (("black", 0.3), ("mean", 0.9), ("reflect", 0.4)):
        if not Folder(plan[12, "gn", border], tmp_path).done:
            made(tmp_path, plan[12, "gn", border], {"val": share})
    (row,) = probes.border_table(tmp_path).loc[["GN, 12 epochs"]].to_dict("records")
    assert (row["val"], row["value"]) == pytest.approx((0.4, 0.1))


def test_what_is_validated_is_a_row_for_each_run_of_a_plan(tmp_path):
    first, second, lost, missing = (replace(SMALL, seed=seed) for seed in range(4))
    made(tmp_path, first, {"val": 0.5}), made(tmp_path, second, {"val": 0.8}), made(tmp_path, lost, **DIVERGED)
    found = probes.validated(tmp_path, {("a", 1): [first, second], ("a", 2): [lost], ("b", 1): [missing]})
    assert found.index.tolist() == [("a", 1), ("a", 1), ("a", 2), ("b", 1)]
    assert found["val"].tolist() == pytest.approx([0.5, 0.8, np.nan, np.nan], nan_ok=True)
    assert found["failed"].tolist() == [False, False, True, False]


def test_versus_holds_every_name_of_a_plan_against_the_base_on_validation_images(tmp_path):
    runs = [replace(SMALL, seed=seed) for seed in range(4)]
    for run, share in zip(runs, (0.5, 0.6, 0.8, 0.9), strict=True):
        made(tmp_path, run, {"val": share})
    plan = {"base": runs[:2], "other": runs[2:]}
    (row,) = probes.versus(tmp_path, plan, "base").to_dict("records")
    assert row["value"] == pytest.approx(0.3) and row["low"] < 0.3 < row["high"]
    assert probes.versus(tmp_path, plan | {"missing": [replace(SMALL, seed=9)]}, "base").empty


def test_a_run_of_many_classes_is_sound(tmp_path):
    """Their pairs of classes are more than an int16 counts."""
    assert made(tmp_path, replace(SMALL, classes=200)).run.classes == 200


# Trained networks


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    study = Study("smoke", outputs=tmp_path_factory.mktemp("facts"), seeds=(0, 1), jobs=1)
    return study, study.fit(["bin", "in"], progress=False)


def test_gates_are_those_of_the_stored_weights(smoke):
    _, found = smoke
    frame = facts.gates(found["bin"])
    names = {"norm1": "stem"} | {f"layer{s}.0.norm{i}": f"{s}.1.{i}" for s in (1, 2, 3) for i in (1, 2)}
    assert list(dict.fromkeys(frame["layer"])) == list(names.values())  # in forward order
    for result in found["bin"]:
        weights = load_file(result.path / store.MODEL)
        own = frame[frame["seed"] == result.run.seed]
        for name, place in names.items():
            part = own[own["layer"] == place]
            assert part["rho"].tolist() == weights[f"{name}.rho"].tolist() and part["channel"].tolist() == [*range(len(part))]
        assert sum("rho" in name for name in weights) == len(names)
    assert frame["rho"].nunique() > 2 and facts.gates(found["in"]).empty


def test_dead_scales_are_those_of_the_stored_weights(smoke):
    _, found = smoke
    shares = facts.dead_scales(found, below=1.0)
    assert list(shares.index)[:2] == ["stem", "1.1.1"] and len(shares) == 7 and list(shares.columns) == ["bin", "in"]
    scales = [load_file(result.path / "best.safetensors")["layer3.0.norm2.weight"] for result in found["in"]]
    assert shares.loc["3.1.2", "in"] == pytest.approx(np.mean([(scale.abs() < 1).double().mean() for scale in scales]))
    without = [SimpleNamespace(model=lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)))]
    pd.testing.assert_frame_equal(facts.dead_scales(found | {"nn": without}, below=1.0), shares)
    assert 0 < shares.loc["3.1.2", "in"] < 1 and (facts.dead_scales(found, below=0.0) == 0).all(axis=None)


def test_validation_images_as_training_shows_them(smoke):
    study, found = smoke
    data, run = study.data(), found["in"][0].run
    shown = facts.as_trained({"in": found["in"]}, data, draws=2).loc["in"]
    assert shown["plain"] == np.mean([result.score(split="val") for result in found["in"]])
    answers = [
        evaluate(result.model(), data, data.augmented(data.val, run.augment, draw))["accuracy"]
        for result in found["in"]
        for draw in (0, 1)
    ]
    assert shown["augmented"] == pytest.approx(np.mean(answers)) and len(set(answers)) > 1


# Saved


def claims(*names):
    return pd.DataFrame({"verdict": "holds"}, index=pd.Index(names, name="claim"))


def test_what_sections_save_is_read_with_its_section(tmp_path):
    study = Study("smoke", outputs=tmp_path)
    values = pd.DataFrame({"value": [0.1 + 0.2, np.nan], "clear": [True, False]}, index=pd.Index(["bn", "nn"], name="variant"))
    saved.save(study, "03_six_variants", scores=values, claims=claims("x", "y"))
    saved.save(study, "01_resnet_bn", splits=values[:1], claims=claims("x"))
    assert sorted(path.relative_to(saved.folder(study)).as_posix() for path in saved.folder(study).glob("*/*")) == [
        "01_resnet_bn/claims.csv", "01_resnet_bn/splits.csv", "03_six_variants/claims.csv", "03_six_variants/scores.csv",
    ]  # fmt: skip
    found = saved.load(study, "01_resnet_bn", "03_six_variants")
    pd.testing.assert_frame_equal(found["scores"], values)  # to the last digit, with what is true and what is missing
    assert len(found["splits"]) == 1 and found.keys() == {"scores", "splits", "claims"}
    assert found["claims"].reset_index()[["claim", "section"]].to_numpy().tolist() == [
        ["x", "01_resnet_bn"],
        ["x", "03_six_variants"],
        ["y", "03_six_variants"],
    ]
    other = Study("quick", outputs=tmp_path)
    assert saved.folder(other) != saved.folder(study) and saved.load(other)["claims"].empty


def test_a_section_that_has_saved_nothing_is_named(tmp_path):
    study = Study("smoke", outputs=tmp_path)
    saved.save(study, "01_resnet_bn", claims=claims())
    with pytest.raises(
        FileNotFoundError, match=r"no facts in .*02_norm_sanity; execute notebook 02_norm_sanity with these parameters first"
    ):
        saved.load(study, "01_resnet_bn", "02_norm_sanity")


def test_two_sections_with_facts_of_one_name_are_an_error(tmp_path):
    study = Study("smoke", outputs=tmp_path)
    for section in ("01_resnet_bn", "02_norm_sanity"):
        saved.save(study, section, scores=pd.DataFrame({"value": [1]}), claims=claims(section))
    with pytest.raises(ValueError, match="02_norm_sanity has facts called scores, as another section has"):
        saved.load(study)
