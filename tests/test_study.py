"""The run matrix, its command line and the sentences made from results."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_data import write_folder

from lib import metrics, runs, study, tables
from lib.study import ALL, NOTEBOOKS, Study
from lib.train import evaluate

PAPER = Study("paper", "cifar10")


def test_paper_profile_is_the_assignment():
    for variant in ALL:
        (run,) = PAPER.runs(variant)
        assert (run.n, run.classes, run.batch_size, run.epochs, run.lr, run.train_size) == (2, 10, 128, 100, 0.1, None)
        assert run.norm == variant and run.augment == "crop+flip+reflect" and run.patience is None


def test_one_recipe_for_all_but_where_the_study_says_why():
    varying = set()
    base = PAPER.runs("torch_bn")[0]
    for variant in ALL:
        run = PAPER.runs(variant)[0]
        varying |= {(variant, f) for f in run.__dataclass_fields__ if getattr(run, f) != getattr(base, f) and f != "norm"}
    assert varying == {("nn", "clip_norm")}


def test_probes_differ_from_what_was_kept_in_what_they_probe():
    study, probes = Study("paper", "cifar10"), {}
    for name, (run,) in study.recipe_probes().items():
        probes[name] = run
    assert len({run.id for run in probes.values()}) == len(probes)
    kept = {norm: replace(study.runs(norm)[0], augment="crop+flip") for norm in ("gn", "nn")}
    for norm, name in (("gn", "GN, groups of 4 channels, 12 epochs"), ("nn", "NN, gradient clipped to norm 3, 12 epochs")):
        assert replace(probes[name], epochs=100) == kept[norm]
    assert probes["GN, groups of 16 channels, 12 epochs"] == replace(kept["gn"], epochs=12, group_size=16)
    fixup = probes["NN, Fixup's initialization, gradient clipped to norm 1, 12 epochs"]
    assert fixup == replace(kept["nn"], epochs=12, initialization="fixup", clip_norm=1.0)
    assert probes["NN, gradient not clipped, 12 epochs"] == replace(kept["nn"], epochs=12, clip_norm=None)


def test_borders_differ_from_the_study_in_the_border_and_the_epochs():
    study = Study("paper", "cifar10")
    found = study.borders()
    assert all(study.runs(norm) in (found[100, norm, "black"], found[100, norm, "reflect"]) for norm in ALL)
    for (epochs, norm, border), (run,) in found.items():
        assert run.augment.removeprefix("crop+flip") == {"black": "", "mean": "+mean", "reflect": "+reflect"}[border]
        assert replace(run, epochs=100, augment=runs.Run.augment) == study.runs(norm)[0] and run.epochs == epochs
    assert len(study.probes()) == len(study.recipe_probes()) + len(found)  # no name stands for two


def test_the_digits_have_their_own_clipping_at_every_profile():
    for profile in ("smoke", "quick", "paper"):
        for dataset, norm in (("digits", 1.0), ("cifar10", 3.0)):
            study = Study(profile, dataset)
            without = [study.runs("nn"), *(runs for name, runs in study.recipes().items() if name.startswith("NN, "))]
            assert {run.clip_norm for runs in without for run in runs} == {norm}
            assert {run.clip_norm for name in ALL if name != "nn" for run in study.runs(name)} == {None}


def test_notebooks_share_runs():
    plans = {name: PAPER.plan(names) for name, names in NOTEBOOKS.items()}
    ids = {name: {run.id for planned in plan.values() for run in planned} for name, plan in plans.items()}
    assert ids["01_resnet_bn"] < ids["02_norm_sanity"] <= ids["03_six_variants"]  # equal: every variant is among more_seeds
    assert ids["01_resnet_bn"] < ids["05_feature_quantiles"] == ids["03_six_variants"]
    assert len(set.union(*ids.values())) == 9 + 39 + 23 + 10 + 12 + 5


def test_one_seed_has_further_ones_where_the_spread_over_seeds_comes_from():
    for names in (["bn", "gn_8", "more_seeds"], ["more_seeds", "gn_8", "bn"]):
        seeds = {v: [run.seed for run in planned] for v, planned in Study("paper", "cifar10", seeds=3).plan(names).items()}
        assert seeds == {v: [3, 4, 5] for v in ("torch_bn", "bn", "bin", "gn", "nn")} | {
            "in": [3, 4],
            "ln": [3, 4],
            "gn_8": [3],
        }
    several = Study(seeds=(0, 1)).plan(["in", "more_seeds"])
    assert {v: [run.seed for run in planned] for v, planned in several.items()} == {v: [0, 1] for v in several}
    assert PAPER.plan(["more_seeds"])["bn"][0] == PAPER.runs("bn")[0]
    assert "1 seed (2 with IN, LN; 3 with PyTorch BN, BN, BIN, GN, NN)" in PAPER.describe()
    assert (
        "1 seed (2 with PyTorch BN, BN, GN, NN)" in Study("quick").describe()
        and ", 2 seeds; " in Study(seeds=(0, 1)).describe()
    )


def test_the_readmes_cluster_script_trains_all_but_the_further_seeds():
    (listed,) = re.findall(r"^variants=(\S+)", (runs.ROOT / "README.md").read_text(), flags=re.M)
    assert set(listed.split(",")) == set(study.EVERYTHING) - {"more_seeds"}


def test_small_batches_have_scaled_learning_rate_and_the_same_epochs():
    large, small = PAPER.runs("gn")[0], PAPER.runs("gn_8")[0]
    assert (small.batch_size, small.epochs, small.seed) == (8, large.epochs, large.seed)
    assert small.lr == pytest.approx(0.1 * 8 / 128) and small.patience
    assert {f for f in large.__dataclass_fields__ if getattr(large, f) != getattr(small, f)} == {"batch_size", "lr", "patience"}


def test_sweep_differs_in_norm_batch_size_and_learning_rate_only():
    runs_of_sweep = [run for planned in PAPER.sweep().values() for run in planned]
    (usual,) = (vars(run) for run in PAPER.runs("bn"))
    fields = {name for run in runs_of_sweep for name in usual if getattr(run, name) != usual[name]}
    assert fields == {"norm", "batch_size", "lr", "epochs", "train_size"}
    assert {(run.epochs, run.train_size) for run in runs_of_sweep} == {(10, 10_000)}
    for norm in ("bn", "bin", "gn"):
        found = {(run.batch_size, run.lr) for run in runs_of_sweep if run.norm == norm}
        sizes = (2, 4, 8, 16, 32, 128, 512)
        assert found == {(size, 0.1 * size / 128) for size in sizes} | {(size, 0.1) for size in sizes}


def test_sweep_table_names_rules_and_diverged_runs():
    def fake(norm, size, lr, right, diverged=False):
        result = FakeResult(right)
        result.run = SimpleNamespace(norm=norm, batch_size=size, lr=lr, seed=0)
        result.diverged, result.score = diverged, lambda split: right / 1000
        return [result]

    found = {
        "a": fake("bn", 2, 0.1, 300), "b": fake("bn", 2, 0.002, 500), "c": fake("bn", 128, 0.1, 800),
        "d": fake("bn", 512, 0.1, 810),
        "e": fake("gn", 2, 0.1, 1, diverged=True), "f": fake("gn", 128, 0.1, 700),
    }  # fmt: skip
    rows = tables.sweep(found, 128)
    scaled, same = tables.RULES
    at = rows.set_index(["norm", "rule", "batch_size"])
    assert at.loc[("bn", scaled, 2), "accuracy"] == 0.5 and at.loc[("bn", same, 2), "accuracy"] == 0.3
    assert at.loc[("bn", scaled, 128), "name"] == at.loc[("bn", same, 128), "name"] == "c"
    assert np.isnan(at.loc[("gn", same, 2), "accuracy"]) and at.loc[("gn", same, 2), "diverged"] == 1
    best, gap, low, high = tables.sweep_change(found, rows, "bn", same, 2)
    assert best == 512 and gap == pytest.approx(-0.51) and low < gap < high < 0
    assert tables.sweep_change(found, rows, "gn", same, 2) is None
    assert tables.sweep_change(found, rows, "gn", scaled, 128) == (128, 0.0, 0.0, 0.0)
    found["g"] = fake("gn", 512, 0.1, 811)
    lead = tables.sweep_lead(found, tables.sweep(found, 128), "bn", "gn", same)
    assert {who: sizes for who, sizes in lead.items() if sizes} == {"bn": [128], "neither": [512], "gn diverged": [2]}


def test_sweep_compares_nothing_over_the_seeds_that_happened_not_to_diverge():
    def fake(seed, right, diverged=False):
        result = FakeResult(right)
        result.run = SimpleNamespace(norm="bn", batch_size=2, lr=0.1, seed=seed)
        result.diverged = diverged
        return result

    found = {
        "a": [fake(0, 1, diverged=True), fake(1, 500)],
        "b": [fake(0, 490), fake(1, 500)],
        "c": [fake(0, 900), fake(1, 890)],
    }
    assert tables.sweep_gap(found, "a", "b") is None
    gap, low, high = tables.sweep_gap(found, "b", "c")
    assert gap == pytest.approx(-0.4) and low < gap < high < 0


def test_digits_are_not_flipped():
    assert Study("quick", "digits").runs("bn")[0].augment == "crop"


@pytest.mark.parametrize("given, seeds", [(0, (0,)), ([0, 2], (0, 2)), ("0,1,2", (0, 1, 2)), ("[3, 4]", (3, 4)), ("7", (7,))])
def test_seeds_in_the_forms_that_make_papermill_and_python_give(given, seeds):
    assert Study(seeds=given).seeds == seeds
    assert [run.seed for run in Study(seeds=given).runs("bn")] == list(seeds)


def test_image_folder_brings_its_class_count_and_fingerprint(tmp_path):
    path = write_folder(tmp_path / "birds")
    (run,) = Study("smoke", f"folder:{path}").runs("bn")
    assert run.classes == 3 and len(run.data_hash) == 10 and "birds" in run.id


def test_image_folder_trains(tmp_path):
    path = write_folder(tmp_path / "birds", images=30)
    found = Study("smoke", f"folder:{path}", outputs=tmp_path / "outputs").fit(["gn"], progress=False)
    assert len(found["gn"][0].correct()) == 90


def test_an_image_folder_smaller_than_the_profile_asks_for_is_taken_whole(tmp_path):
    path = write_folder(tmp_path / "birds", images=10)
    assert Study("smoke", f"folder:{path}").runs("bn")[0].train_size is None
    assert Study("quick", "cifar10").runs("bn")[0].train_size == 4000
    assert Study("quick", "digits").runs("bn")[0].train_size is None


def test_every_run_is_held_against_its_data_before_any_is_trained(tmp_path):
    path = write_folder(tmp_path / "birds", size=(4, 4))
    with pytest.raises(ValueError, match="the last maps have one pixel, so in has no variance"):
        Study("smoke", f"folder:{path}", outputs=tmp_path / "outputs").fit(["nn", "in"], progress=False)
    assert not (tmp_path / "outputs").exists()


def command(module, *args, **env):
    return subprocess.run(
        [sys.executable, "-m", module, *args], capture_output=True, text=True, cwd=runs.ROOT, env=os.environ | env, check=False
    )


def test_command_line_trains_what_is_asked_for_and_no_more(tmp_path):
    done = command("lib.study", "--profile", "smoke", "--variants", "gn_8", "--outputs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert "-gn-" in folder.name and "-b8-" in folder.name
    assert re.search(r"GN \(batch 8\): seed 0  test accuracy 0\.\d{4}", done.stdout)
    assert "epoch 2/2" in done.stderr and "val" in done.stderr  # the progress bar


@pytest.mark.parametrize(
    "options, says",
    [
        (["--device", "cuda"], "device is 'cuda'; here are cpu"),
        (["--device", "cuda", "--backend", "dask"], "device is cuda, but the backend is dask, whose workers have their own"),
    ],
)
def test_a_gpu_that_is_asked_for_and_not_here_stops_the_command(tmp_path, monkeypatch, capsys, options, says):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert study.main(["--profile", "smoke", "--outputs", str(tmp_path / "none"), *options]) == 2
    assert capsys.readouterr().err == f"error: {says}\n" and not (tmp_path / "none").exists()


class FakeResult:
    """What the sentences read of a result."""

    diverged = collapsed = False

    def __init__(self, right, total=1000, seed=0, **others):
        self.right, self.others = np.arange(total) < right, others  # accuracies on other splits
        self.run = SimpleNamespace(seed=seed)

    def correct(self, split="test"):
        return self.right

    def score(self, split="test"):
        return self.others.get(split, self.right.mean())


def test_a_difference_within_the_interval_is_called_no_clear_difference():
    found = {"bn": [FakeResult(900)], "gn": [FakeResult(0)]}
    found["gn"][0].right = found["bn"][0].right[::-1].copy()
    assert tables.compared(found, "bn", "gn").startswith("there is no clear difference between BN and GN (+0.00 points")
    assert tables.differences(found, "bn")["verdict"].tolist() == ["–", "no clear difference"]


def test_a_clear_difference_has_direction_size_and_interval():
    found = {"bn": [FakeResult(900)], "gn": [FakeResult(850)]}
    assert tables.compared(found, "gn", "bn").startswith(
        "GN is 5.00 points below BN in these runs (95 % interval −6.35 to −3.63)"
    )
    words = tables.compared(found, "gn", "bn", 10)
    assert (
        words.startswith("GN is 5.00 points below BN in these runs (95 % interval −6.94 to −3.04")
        and "corrected for 10 pairs" in words
    )
    two = {"bn": [FakeResult(900), FakeResult(905, seed=1)], "gn": [FakeResult(850), FakeResult(845, seed=1)]}
    assert tables.compared(two, "gn", "bn").startswith("GN is 5.50 points below BN (95 %")
    assert (tables.basis(found), tables.basis(two)) == ("1 seed", "2 seeds")
    assert tables.basis(found | {"bn": two["bn"]}) == "1 seed, 2 with BN"
    assert tables.differences(found, "bn")["verdict"].tolist() == ["–", "lower in these runs"]


def test_the_spread_over_seeds_is_pooled_over_the_variants_and_widens_every_interval():
    found = {
        "torch_bn": [FakeResult(904), FakeResult(896, seed=1)],
        "bn": [FakeResult(900), FakeResult(912, seed=1), FakeResult(906, seed=2)],
        "gn": [FakeResult(880)],
        "ln": [FakeResult(850)],
    }
    seeds = tables.spread(found)
    assert seeds.freedom == 3 and seeds.deviation == pytest.approx(np.sqrt((32 + 72) / 3) / 1000)
    said = tables.spread_sentence(found)
    assert "standard deviation of 0.59 points" in said and "(2 with PyTorch BN; 3 with BN; 3 degrees of freedom)" in said
    assert tables.spread({"gn": found["gn"]}) is None and tables.spread_sentence({"gn": found["gn"]}) == ""
    lost = {"bn": [FakeResult(900), FakeResult(910, seed=1), Lost(1, seed=2)]}
    assert tables.spread(lost) is None  # what is left of a variant would be its lucky seeds
    assert tables.spread(found | lost) == tables.spread({v: found[v] for v in ("torch_bn", "gn", "ln")})
    frame = tables.differences(found, "bn", seeds)
    assert frame["seeds"].tolist() == [2, 3, 1, 1] and frame["mean"].tolist() == ["0.9000", "0.9060", "0.8800", "0.8500"]
    assert frame["std (points)"].tolist() == ["0.57", "0.60", "–", "–"]
    assert frame["minus BN (points)"].tolist() == ["−0.60", "–", "−2.60", "−5.60"]
    assert frame["verdict"].tolist() == ["no clear difference", "–", "lower, without the correction only", "lower"]
    six = {v: found[v] for v in ("bn", "gn", "ln")}
    assert tables.not_clearly_below({v: results[:1] for v, results in six.items()}, "bn") == []  # by the images of one seed
    assert tables.not_clearly_below(six, "bn", seeds) == ["GN"]
    assert tables.not_clearly_above(six, "ln", seeds) == ["GN"] and tables.not_clearly_above(six, "gn") == ["LN"]
    assert tables.compared(six, "bn", "gn", seeds=seeds).startswith("BN is 2.60 points above GN (95 % interval +0.")
    assert tables.compared(six, "bn", "gn", 6, seeds).startswith("there is no clear difference between BN and GN (+2.60")
    row = tables.accuracies(found, seeds).set_index("variant").loc["gn"]
    assert row["low"] < 0.88 - 3.18 * seeds.deviation < 0.88 + 3.18 * seeds.deviation < row["high"]


def test_what_intervals_cover_is_said_for_one_seed_and_for_several():
    one, two = (tables.intervals(Study("paper", "cifar10", seeds=seeds)) for seeds in ((0,), (0, 1)))
    assert (
        "cover the seed too, by its spread with PyTorch BN, BN, IN, BIN, LN, GN, NN; elsewhere, with one seed, neither the seed"
        in one
    )
    assert two.startswith("All intervals are 95 % intervals and cover the seed and the choice of the images that are scored")


def test_every_pair_of_variants_is_compared():
    found = {"gn": [FakeResult(880)], "bn": [FakeResult(900)], "ln": [FakeResult(850)]}
    frame, below = tables.above(found)
    assert frame.columns.tolist() == ["variant", "BN", "GN", "LN"] and frame["variant"].tolist() == ["BN", "GN", "LN"]
    assert frame.iloc[:, 1:].to_numpy().tolist() == [
        ["–", "+2.00*", "+5.00*"],
        ["−2.00*", "–", "+3.00*"],
        ["−5.00*", "−3.00*", "–"],
    ]
    assert below == {"BN": ["GN", "LN"], "GN": ["LN"]}
    assert tables.above_sentence(below) == "BN above GN, LN; GN above LN"
    frame, below = tables.above(found, metrics.Spread(0.005, 4))
    assert frame["GN"].tolist() == ["+2.00", "–", "−3.00"] and below == {"BN": ["LN"]}
    close = {"bn": [FakeResult(900)], "gn": [FakeResult(893)]}
    assert tables.above(close)[1] == {"BN": ["GN"]}  # but out of many pairs it is not clear:
    many = close | {name: [FakeResult(900)] for name in ("torch_bn", "in", "bin", "ln", "nn")}
    assert tables.above(many)[1] == {} and tables.above_sentence({"BN": []}) == "none"


def test_what_was_aimed_at_is_reported_as_reached_or_missed():
    found = {
        "bn": [FakeResult(900, train=0.98, val=0.9), FakeResult(904, seed=1, train=0.98, val=0.9)],
        "gn": [FakeResult(880, train=0.95)],
        "nn": [FakeResult(850, train=0.99)],
    }
    said = tables.against_aims(found, {"bn": 0.9, "gn": 0.89, "nn": 0.9, "ln": 0.9})
    assert "reached: BN (+0.20); missed: GN (−1.00), NN (−5.00)." in said
    assert "GN 5.0 and 12.0 %, NN 1.0 and 15.0 %; " in said
    assert said.endswith(
        "with GN, NN; every training with GN fits the training images less well than any with BN. "
        "More of a reason these runs do not show."
    )
    own = tables.against_aims({"bn": [FakeResult(800, train=0.81, val=0.8)]}, {"bn": 0.9})  # fitted as well as by itself
    assert own.endswith("BN 19.0 and 20.0 %. Anything of a reason these runs do not show.")
    assert tables.against_aims(found, {"nn": 0.8}) == "Against the aims, in points, reached: NN (+5.00); missed: none."


def test_the_epoch_from_which_an_accuracy_stays():
    result = FakeResult(900)
    result.history = pd.DataFrame({"epoch": range(1, 7), "val_accuracy": [0.4, 0.6, 0.4, 0.6, 0.8, 0.7]})
    first = tables.epochs_to_reach({"bn": [result]}, (0.3, 0.5, 0.8, 0.9)).iloc[0].tolist()
    assert first == ["BN", "1", "2", "5", "–"]
    stays = tables.epochs_to_reach({"bn": [result]}, (0.3, 0.5, 0.8, 0.9), to_stay=True).iloc[0].tolist()
    assert stays == ["BN", "1", "4", "–", "–"]


def test_validation_images_as_training_shows_them(tmp_path):
    """The same weights on other images: black pixels at the border of most, so that some answers differ."""
    study = Study("smoke", outputs=tmp_path)
    data, found = study.data(), study.fit(["bn", "in"], progress=False)
    plain, shown = (tables.on_validation(found, data, augmented) for augmented in (False, True))
    for v, (result,) in found.items():
        assert plain[v][0].score() == result.score(split="val")
        images = data.augmented(data.val, "crop", 0)
        answers = evaluate(result.model(), data, images)["predictions"]
        assert (shown[v][0].correct() == (answers == data.val.labels.numpy())).all()
    assert any((plain[v][0].correct() != shown[v][0].correct()).any() for v in found)
    assert len(tables.above(shown)[0]) == 2


def test_differences_are_corrected_for_their_number():
    found = {"bn": [FakeResult(900)], "gn": [FakeResult(893)]}
    assert tables.differences(found, "bn")["verdict"].tolist() == ["–", "lower in these runs"]
    many = found | {name: [FakeResult(900)] for name in ("torch_bn", "in", "bin", "ln", "nn")}
    said = tables.differences(many, "bn").set_index("variant")["verdict"]
    assert said["GN"] == "lower in these runs, without the correction only" and said["IN"] == "no clear difference"


def test_error_curves_in_numbers():
    def run(train, val):
        result = FakeResult(1)
        result.history = pd.DataFrame({"epoch": range(1, 5), "train_accuracy": train, "val_accuracy": val})
        return result

    found = {"bn": [run([0.5, 0.6, 0.7, 0.9], [0.5, 0.8, 0.6, 0.8])], "gn": [run([0.4, 0.5, 0.6, 0.7], [0.5, 0.6, 0.7, 0.75])]}
    frame = tables.curves(found)
    assert frame.round(6).values.tolist() == [["BN", 10.0, 20.0, 10.0, 30.0], ["GN", 30.0, 25.0, -5.0, 10.0]]
    said = tables.curves_sentence(frame)
    by_chance = tables.curves_sentence(frame, alike=pd.concat([frame[:1], frame[:1].assign(**{"training error": 30.0})]))
    assert "the training error (%) is no further apart than trainings of BN are (10.0 to 30.0)" in by_chance
    assert "the validation error lowest with BN (20.0) and highest with GN (25.0)" in by_chance
    assert (
        "lowest with BN (10.0) and highest with GN (30.0)" in said
        and "lowest with GN (−5.0) and highest with BN (10.0)" in said
    )
    assert "least with GN (10.0) and most with BN (30.0)" in said
    assert tables.curves_sentence(frame[:1]) == ""
    alike = pd.concat([frame, frame[:1].assign(variant="BIN"), frame[:1].assign(variant="LN")])
    assert "lowest with BN, BIN, LN (10.0)" in tables.curves_sentence(alike)
    assert "the same with all (10.0)" in tables.curves_sentence(alike[alike["variant"] != "GN"])


def test_ends_are_shared_by_what_chance_cannot_tell_apart():
    values = pd.Series({"PyTorch BN": 2.0, "BN": 2.5, "BIN": 1.8, "NN": 4.0, "IN": 5.04, "GN": 4.7})
    assert tables.ends(values, "lowest", "highest") == "lowest with BIN (1.8) and highest with IN (5.0)"
    same = [2.0, 2.5, 2.3]  # trainings of one layer, up to 0.5 apart
    assert (
        tables.ends(values, "lowest", "highest", same)
        == "lowest with BIN, PyTorch BN (1.8 to 2.0) and highest with GN, IN (4.7 to 5.0)"
    )
    assert tables.ends(values[:3], "a", "b", same) == "a with BIN (1.8) and b with BN (2.5)", "2.0 is near both"
    assert tables.ends(values[:2], "a", "b", same) == "no further apart than trainings of BN are (2.0 to 2.5)"
    assert tables.ends(values[:2] * 0, "a", "b", same) == "the same with all (0.0)"


def test_epochs_to_reach_counts_the_first_epoch_at_or_above():
    class Run1(FakeResult):
        history = pd.DataFrame({"epoch": [1, 2, 3, 4], "val_accuracy": [0.4, 0.8, 0.7, 0.9]})

    row = tables.epochs_to_reach({"bn": [Run1(1)]}, (0.3, 0.8, 0.95)).iloc[0]
    assert row.tolist() == ["BN", "1", "2", "–"]


def test_spread_growth_of_settled_and_growing_features():
    epochs = np.arange(1, 41)
    settled = pd.DataFrame({"q01": 0.0 * epochs, "q99": 2.0 + 0 * epochs})
    growing = pd.DataFrame({"q01": 0.0 * epochs, "q99": 1.0 * epochs})
    assert tables.spread_growth(settled) == (2.0, 1.0, 1.0)
    late, growth, since_least = tables.spread_growth(growing)
    assert late == 35.5 and growth == pytest.approx(35.5 / 15.5) and since_least == pytest.approx(35.5)


def test_features_that_cannot_be_judged_are_not():
    dead = pd.DataFrame({"q01": [0.0] * 8, "q99": [0.0] * 8})
    assert tables.spread_growth(dead) == (0.0, 1.0, 1.0)
    assert np.isnan(tables.spread_growth(dead[:3])[1])
    assert [tables.reading(g) for g in (1.25, 1.5, 1.75, float("inf"), float("nan"))] == [
        "bounded", "in between", "growing", "growing", "not to be said"]  # fmt: skip


def test_a_claim_is_held_against_the_side_of_zero_that_it_names():
    assert tables.verdict(1.0, 3.0, sign=1) == "confirmed"
    assert tables.verdict(1.0, 3.0, sign=-1) == "contradicted"
    assert tables.verdict(-3.0, -1.0, sign=-1) == "confirmed"
    assert tables.verdict(-1.0, 3.0, sign=1) == "open"
    assert tables.verdict(-0.9, -0.1, sign=1, margin=1.0) == "confirmed"  # a loss, of less than a point
    assert tables.verdict(-3.0, -1.1, sign=1, margin=1.0) == "contradicted"


def test_bn_does_not_suffer_from_a_small_batch_by_gaining_less():
    """An earlier state of the report said both that BN gained by the small batch and that it suffers more, confirmed."""
    assert tables.verdict(-4.0, -2.0, sign=-1, own=(0.5, 1.5)) == "contradicted"
    assert tables.verdict(-4.0, -2.0, sign=-1, own=(-0.5, 0.5)) == "open"
    assert tables.verdict(-4.0, -2.0, sign=-1, own=(-1.5, -0.5)) == "confirmed"


def test_a_run_that_diverged_is_the_worst_there_is_on_whichever_side_it_stands():
    def judge(names, sign, lost, **options):
        found = {name: [Lost(0)] if name in lost else [FakeResult(900)] for name in "abcd"}
        return tables.judge(found, names, sign, **options)["verdict"]

    assert judge("ab", 1, "b") == judge("ab", -1, "a") == "confirmed"
    assert judge("ab", 1, "a") == judge("ab", -1, "b") == "contradicted"
    assert judge("ab", 1, "ab") == "open"
    assert judge("abcd", 1, "b") == judge("abcd", 1, "c") == "confirmed"  # (a - b) - (c - d)
    assert judge("abcd", 1, "a") == judge("abcd", 1, "d") == "contradicted"
    assert judge("abcd", 1, "bd") == judge("abcd", 1, "ac") == "open"
    assert judge("abcd", -1, "d", only_if="ab") == "open"  # that d diverged is no loss of a's
    assert judge("abcd", -1, "a", only_if="ab") == "confirmed"


def test_a_run_that_fell_back_to_chance_is_collapsed():
    labels = np.repeat(np.arange(10), 100)

    def collapsed(*accuracies, labels=labels):
        result = object.__new__(runs.Result)
        result.history, result.predictions = pd.DataFrame({"val_accuracy": accuracies}), {"val_labels": labels}
        return result.collapsed

    assert collapsed(0.14, 0.20, 0.098, 0.10) and collapsed(0.14, 0.20, 0.118)  # 0.1 + 2 × 0.0095 is chance yet
    assert not collapsed(0.14, 0.098, 0.12) and not collapsed(0.098, 0.102, 0.1)  # recovered; learned nothing
    mostly = np.array([0] * 900 + [1] * 100)
    assert collapsed(0.95, 0.90, labels=mostly) and not collapsed(0.90, 0.95, labels=mostly)


def test_a_collapsed_run_of_the_sweep_counts_as_diverged():
    found = {name: [FakeResult(right)] for name, right in (("a", 300), ("b", 200))}
    for (name, (result,)), norm in zip(found.items(), ("bn", "gn"), strict=True):
        result.run = SimpleNamespace(norm=norm, batch_size=2, lr=0.1, seed=0)
        result.score, result.collapsed = lambda split: 0.2, name == "b"
    rows = tables.sweep(found, 2)
    assert rows.set_index("norm").loc["gn", "diverged"].eq(1).all() and rows["accuracy"].isna().sum() == 2
    assert tables.sweep_gap(found, "a", "b") is None and tables.judge(found, "ab", 1)["verdict"] == "confirmed"
    assert tables.sweep_lead(found, rows, "bn", "gn", tables.RULES[0])["gn diverged"] == [2]


def test_four_trainings_are_held_against_a_wider_spread_than_two():
    found = {name: [FakeResult(right)] for name, right in zip("abcd", (900, 800, 850, 850), strict=True)}
    apart = metrics.Spread(0.02, 4)  # 2.78 × 2 × √2 = 7.9 points for a difference of two trainings, 11.1 for one of four
    assert tables.judge(found, "ab", 1, seeds=apart)["verdict"] == "confirmed"
    assert tables.judge(found, "abcd", 1, seeds=apart)["verdict"] == "open"
    assert tables.judge(found, "abcd", 1)["verdict"] == "confirmed"
    for seeds in (None, apart):
        wide, narrow = (tables.judge(found, "abcd", 1, comparisons=n, seeds=seeds) for n in (10, 1))
        assert wide["low"] < narrow["low"] < narrow["points"] == pytest.approx(10.0)
        if seeds:  # Student's t with 4 degrees of freedom, at 99.5 % and 95 %, is nearly all of it
            assert (wide["points"] - wide["low"]) / (narrow["points"] - narrow["low"]) == pytest.approx(5.598 / 2.776, rel=0.05)
    own = {name: [FakeResult(right)] for name, right in zip("abcd", (860, 840, 750, 850), strict=True)}
    assert tables.judge(own, "abcd", 1, seeds=apart)["verdict"] == "confirmed"
    assert tables.judge(own, "abcd", 1, only_if="ab")["verdict"] == "confirmed"
    assert tables.judge(own, "abcd", 1, only_if="ab", seeds=apart)["verdict"] == "open"  # a may be no better than b


class Lost(FakeResult):
    diverged = True


def test_diverged_runs_have_no_score_and_are_said():
    found = {"bn": [FakeResult(9), Lost(1, seed=1)], "nn": [Lost(1), Lost(1, seed=1)]}
    kept, said = tables.converged(found, required=("bn",))
    assert {v: len(results) for v, results in kept.items()} == {"bn": 1}
    assert said.endswith(
        "without scores here: BN (1 of 2 runs), NN (2 of 2 runs). Tables and "
        "comparisons leave out seed 1 for every variant: no number is of the lucky seeds alone."
    )
    with pytest.raises(ValueError, match="with every seed common to NN a run of NN diverged"):
        tables.converged(found, required=("nn",))
    more = {"bn": [Lost(9), FakeResult(9, seed=1)], "gn": [FakeResult(9)]}  # GN has the one seed that BN lost
    assert {v: [r.run.seed for r in results] for v, results in tables.converged(more, required=("bn",))[0].items()} == {
        "bn": [1]
    }
    with pytest.raises(ValueError, match="with every seed common to BN, GN a run of BN diverged"):
        tables.converged(more, required=("bn", "gn"))


def test_seconds_on_two_kinds_of_devices_are_not_compared():
    def fake(seconds, device):
        result = FakeResult(1)
        result.history = pd.DataFrame({"seconds": [seconds] * 3})
        result.metrics, result.best_epoch, result.env = {"epochs_run": 3}, 2, {"device": device}
        return [result]

    found = {"bn": fake(10, "A"), "gn": fake(15, "A"), "in": fake(5, "B")}
    assert tables.time_ratio(found, "gn", "bn") == 1.5 and np.isnan(tables.time_ratio(found, "in", "bn"))
    assert tables.time_ratio(found, "bn", "bn") == 1
    found["ln"] = fake(20, "A; B")  # some epochs here, some there
    assert np.isnan(tables.cost(found).set_index("variant").loc["ln", "seconds"]) and np.isnan(
        tables.time_ratio(found, "ln", "ln")
    )


def test_a_zero_has_no_minus():
    assert [tables.signed(number) for number in (-1e-9, 0.0, -0.006, 1.234)] == ["+0.00", "+0.00", "−0.01", "+1.23"]
    assert [tables.signed(end) for end in (-0.0036, 0.00004)] == ["−0.004", "+0.00004"]  # beside zero, and seen to be


def test_notebook_paths_are_relative_to_the_project():
    assert study.project_path("outputs") == runs.ROOT / "outputs"
    assert str(study.project_path("/tmp/x")) == "/tmp/x"


def test_table_of_what_was_tried_compares_with_the_recipe_used(tmp_path):
    smoke = Study("smoke", outputs=tmp_path)
    smoke = replace(smoke, changes={"weight_decay": 5e-4})
    probes = smoke.recipe_probes()
    one = {name: probes[name] for name in ("weight decay 1e-4, 12 epochs", "NN, gradient clipped to norm 3, 12 epochs")}
    frame, missing = tables.recipe(smoke)
    assert frame.empty and missing == list(probes)

    smoke.fit_all(one, progress=False)
    frame, missing = tables.recipe(smoke)
    assert list(frame["recipe"]) == list(one) and set(missing) == probes.keys() - one.keys()
    assert set(frame["against the one used, points"]) == {"–"}, "what they are compared with is not trained"

    used = {"weight decay 5e-4, 12 epochs": probes["weight decay 5e-4, 12 epochs"]}
    results = smoke.fit_all(one | used, progress=False)
    frame, _ = tables.recipe(smoke)
    assert list(frame["against the one used, points"])[1] == "used" and list(frame["recipe"])[1] in used
    (a,), (b,) = (results[name] for name in (*used, "weight decay 1e-4, 12 epochs"))
    gap = 100 * (b.score(split="val") - a.score(split="val"))
    assert frame["against the one used, points"][0] == tables.signed(gap)
    assert tables.recipe(smoke, known={a.run.id})[0]["recipe"].tolist() == list(used)


def test_table_of_borders_compares_reflection_with_black(tmp_path):
    smoke = Study("smoke", outputs=tmp_path)
    plan = smoke.borders()
    assert tables.borders(smoke)[0].empty and len(tables.borders(smoke)[1]) == len(plan)
    keys = [(12, "torch_bn", border) for border in ("black", "reflect")]
    black, reflected = (smoke.fit_all({"": plan[key]}, progress=False)[""][0] for key in keys)
    frame, missing = tables.borders(smoke)
    assert len(missing) == len(plan) - 2
    (row,) = frame.to_dict("records")
    assert (row["variant"], row["epochs"], row["mean"]) == ("PyTorch BN", "12", "–")
    assert row["reflection minus black, points"] == tables.signed(
        100 * (reflected.score(split="val") - black.score(split="val"))
    )
    assert (float(row["black"]), float(row["reflection"])) == tuple(round(r.score(split="val"), 4) for r in (black, reflected))
    assert tables.borders(smoke, known={reflected.run.id})[0].empty  # nothing to compare it with


def test_borders_in_words_say_what_contradicts_the_explanation(monkeypatch):
    def said(again=(), **right):
        """Of 1,000 validation images 500 are right with a black border, and so many more with reflection over 100 epochs; 20
        more where BN starts `again` from another seed."""
        scores = {
            (100, v, border): 500 + more * (border == "reflect") for v, more in right.items() for border in ("black", "reflect")
        }
        scores |= {(12, "gn", "black"): 100, (12, "gn", "reflect"): 900}
        scores |= {("bn", seed, border): 500 + 20 * (border == "reflect") for seed in again for border in ("black", "reflect")}
        found = {
            key: SimpleNamespace(diverged=score == 0, correct=lambda _, n=score: np.arange(1000) < n)
            for key, score in scores.items()
        }

        def trained(study, plan):
            names = {key: key if isinstance(key, tuple) else (run.norm, run.seed, key) for key, run in plan.items()}
            return {key: found[name] for key, name in names.items() if name in found}

        monkeypatch.setattr(tables, "trained", trained)
        return tables.borders_sentence(PAPER)

    text = said(ln=15, gn=20, torch_bn=-3)
    assert text.startswith("Over 100 epochs") and "+2.00 with GN, +1.50 with LN, −0.30 with PyTorch BN" in text
    assert text.endswith("in every run.")
    assert "in some of these runs only" in said(ln=15, gn=20, bn=16)
    assert "not all of it" in said(ln=15, torch_bn=-3, nn=11)
    assert "not all of it" not in said(ln=15, torch_bn=-3, nn=1)
    assert said(ln=15, gn=20).endswith("+1.50 with LN.")
    assert said(nn=-500) == said() == ""  # diverged, not trained
    assert "one layer: the 0.70 points between their gains are what another rounding does" in said(bn=4, torch_bn=-3)
    assert said(ln=15, bn=4, again=(1,)).endswith(
        " Trained with both borders from another start too: +2.00 with BN (95 % interval +1.11 to +2.88)."
    )
    assert "another start" not in said(ln=15, again=(1,))


def test_precision_says_whether_the_difference_is_within_the_spread():
    def said(*more):
        right = {"float32": (800, 820, 840), "bf16": [n + m for n, m in zip((800, 820, 840), more, strict=True)]}
        return tables.precision_sentence({kind: [FakeResult(n) for n in found] for kind, found in right.items()})

    within = said(1, -2, 4)
    assert within.startswith("bf16 minus float32: +0.10 points, 95 % interval −0.65 to +0.85; that is less than the spread")
    assert "2.17 points" in within  # the larger of the two standard deviations
    assert "that is not less than the spread over 3 seeds, 2.00 points" in said(-30, -30, -30)


def test_what_was_known_of_the_test_images_when_the_border_was_chosen_is_said(monkeypatch):
    found = {"bn": FakeResult(905), "gn": FakeResult(880), "nn": Lost(1)}
    monkeypatch.setattr(tables, "trained", lambda study, plan: {v: found[v] for v in plan if v in found})
    text = tables.first_pass(PAPER, {"bn": 0.9, "gn": 0.9, "nn": 0.8, "ln": 0.8})
    assert "were known (BN 0.9050, GN 0.8800; 1 of 2 missed the aims" in text
    found.clear()
    assert tables.first_pass(PAPER, {"bn": 0.9}) == ""
