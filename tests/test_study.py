"""The run matrix and its command line, and which trainings count as failed."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_data import write_folder

from lib import study
from lib.data import ROOT
from lib.engine import store
from lib.run import Run
from lib.study import ALL, EVERYTHING, NOTEBOOKS, Study
from report import probes
from report.page import data_title, describe
from report.say import project_path

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
    study, tried = Study("paper", "cifar10"), {}
    for name, (run,) in probes.recipes().items():
        tried[name] = run
    assert len({run.id for run in tried.values()}) == len(tried)
    kept = {norm: replace(study.runs(norm)[0], augment="crop+flip") for norm in ("gn", "nn")}
    for norm, name in (("gn", "GN, groups of 4 channels, 12 epochs"), ("nn", "NN, gradient clipped to norm 3, 12 epochs")):
        assert replace(tried[name], epochs=100) == kept[norm]
    assert tried["GN, groups of 16 channels, 12 epochs"] == replace(kept["gn"], epochs=12, group_size=16)
    fixup = tried["NN, Fixup's initialization, gradient clipped to norm 1, 12 epochs"]
    assert fixup == replace(kept["nn"], epochs=12, initialization="fixup", clip_norm=1.0)
    assert tried["NN, gradient not clipped, 12 epochs"] == replace(kept["nn"], epochs=12, clip_norm=None)


def test_what_was_tried_later_changes_one_thing_and_is_a_probe():
    study = Study("paper", "cifar10")
    changed = {"weight_decay", "bias_decay", "lr", "gate", "gate_lr", "ghost_batch"}
    planned = [run for runs in probes.tried_later().values() for run in runs]
    for run in planned:
        usual = replace(study.runs(run.norm)[0], epochs=run.epochs, seed=run.seed, probe=True)
        differ = {name for name, value in vars(run).items() if value != getattr(usual, name) and name != "id"}
        assert run.probe and (len(differ) <= 1 or differ == {"gate", "gate_lr"}) and differ <= changed
    assert {run.epochs for run in planned} == {12, 100}
    assert len({run.id for run in planned}) == 35 + 3 * 5 + (2 + 2 + 3 + 3) + 2 * 3 + 4 * 2


def test_what_was_tried_before_runs_could_be_probes_is_listed():
    seeds = (0, 1, 2)  # the black border was tried from another start too
    plans = probes.plan(seeds), Study("paper", "cifar10", seeds=seeds).plan(EVERYTHING)
    tried, kept = ({run.id for planned in plan.values() for run in planned} for plan in plans)
    assert (ROOT / "outputs" / "probes.txt").read_text().split() == sorted(tried - kept)


def test_borders_differ_from_the_study_in_the_border_and_the_epochs():
    study = Study("paper", "cifar10")
    found = probes.borders()
    assert all(study.runs(norm) in (found[100, norm, "black"], found[100, norm, "reflect"]) for norm in ALL)
    for (epochs, norm, border), (run,) in found.items():
        assert run.augment.removeprefix("crop+flip") == {"black": "", "mean": "+mean", "reflect": "+reflect"}[border]
        assert replace(run, epochs=100, augment=Run.augment) == study.runs(norm)[0] and run.epochs == epochs
    assert len(probes.plan()) == len(probes.recipes()) + len(found)  # no name stands for two


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
    of_variants = ["01_resnet_bn", "02_norm_sanity", "03_six_variants", "05_feature_quantiles", "07_grad_cam"]
    assert {frozenset(ids[name]) for name in of_variants} == {frozenset(ids["03_six_variants"])}  # all that is in more_seeds
    assert ids["03_six_variants"] < ids["04_batch_size"] == ids["14_discussion"]
    assert len(set.union(*ids.values())) == 9 + 39 + 23 + 10 + 14 + 6


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


def test_the_setting_is_one_line_of_numbers():
    """The paper's, and one whose numbers all differ from it."""
    paper = "14 layers (n = 2), 40,000 training images, 100 epochs, batch 128, SGD from 0.1, bf16, seeds 0"
    assert describe(PAPER) == f"{paper}, profile paper on cifar10"
    changes = {"n": 3, "lr": 0.01, "optimizer": "adam"}
    other = "20 layers (n = 3), 64 training images, 2 epochs, batch 32, ADAM from 0.01, float32, seeds 1, 2"
    assert describe(Study("smoke", seeds=(1, 2), changes=changes)) == f"{other}, profile smoke on digits"
    assert ", 1,151 training images, " in describe(Study("quick"))  # all that there are


def test_data_sets_have_titles_for_readers(tmp_path):
    folder = write_folder(tmp_path / "birds")
    titles = [data_title(Study("smoke", dataset)) for dataset in ("digits", "cifar10", f"folder:{folder}")]
    assert titles == ["handwritten digits", "CIFAR-10", "the images of birds"]


def test_the_script_with_a_seed_a_node_trains_all_but_the_further_seeds():
    (listed,) = re.findall(r"^variants=(\S+)", (ROOT / "report" / "slurm" / "seeds.sh").read_text(), flags=re.M)
    assert set(listed.split(",")) == set(study.EVERYTHING) - {"more_seeds", "more_small"}


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
        [sys.executable, "-m", module, *args], capture_output=True, text=True, cwd=ROOT, env=os.environ | env, check=False
    )


def test_command_line_trains_what_is_asked_for_and_no_more(tmp_path):
    done = command("lib.study", "--profile", "smoke", "--variants", "gn_8", "--outputs", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert "-gn-" in folder.name and "-b8-" in folder.name
    assert re.search(r"GN, batch 8: seed 0  test accuracy 0\.\d{4}", done.stdout)
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


def test_a_run_that_fell_back_to_chance_is_collapsed():
    labels = np.repeat(np.arange(10), 100)

    def collapsed(*accuracies, labels=labels):
        result = object.__new__(store.Result)
        result.history, result.predictions = pd.DataFrame({"val_accuracy": accuracies}), {"val_labels": labels}
        return result.collapsed

    assert collapsed(0.14, 0.20, 0.098, 0.10) and collapsed(0.14, 0.20, 0.118)  # 0.1 + 2 × 0.0095 is chance yet
    assert not collapsed(0.14, 0.098, 0.12) and not collapsed(0.098, 0.102, 0.1)  # recovered; learned nothing
    mostly = np.array([0] * 900 + [1] * 100)
    assert collapsed(0.95, 0.90, labels=mostly) and not collapsed(0.90, 0.95, labels=mostly)


def test_notebook_paths_are_relative_to_the_project():
    assert project_path("outputs") == ROOT / "outputs"
    assert str(project_path("/tmp/x")) == "/tmp/x"
