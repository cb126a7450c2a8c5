"""Kills, damaged files, full disks, wrong input, several processes at once: nothing is lost and nothing is trusted blindly."""

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import bad_inputs
import damage
import pandas as pd
import pytest
from damage import TINY, everything
from test_jobs import alive, children, wait_until

from lib import train
from lib.data import ROOT
from lib.engine import store
from lib.engine.store import Folder, Result, without_pause
from lib.study import Study


def test_kills_are_survived(tmp_path):
    """A short form of `python -m tests.damage --kills 100`."""
    survived, killed = damage.killed_runs(4, tmp_path, seed=1)
    assert survived == killed >= 4


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return damage.Store.prepare(tmp_path_factory.mktemp("store"))


DAMAGE = [("finished", *case) for case in damage.FINISHED_DAMAGE] + [("half", *case) for case in damage.CHECKPOINT_DAMAGE]


@pytest.mark.parametrize("kind, name, harm", DAMAGE, ids=[f"{name}-{harm.__name__}" for _, name, harm in DAMAGE])
def test_damage_is_noticed_and_mended(sample, kind, name, harm):
    assert sample.noticed(kind, name, harm) == ""


def test_an_undamaged_store_is_left_alone(sample, tmp_path, capsys):
    before = {file: file.stat().st_mtime_ns for file in (sample.folder / "finished").rglob("*")}
    assert everything(train.fit(TINY, sample.folder / "finished")) == sample.whole
    assert {file: file.stat().st_mtime_ns for file in (sample.folder / "finished").rglob("*")} == before
    assert capsys.readouterr().out == ""


def test_sums_are_those_that_sha256sum_checks(sample):
    path = Result(TINY, sample.folder / "finished").path
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", store.SUMS], cwd=path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"{name}: OK" for name in store.FINISHED]


def test_a_damaged_run_is_not_in_the_report_nor_trained_again_in_silence(sample, tmp_path, capsys):
    study = Study("smoke", outputs=tmp_path)
    study.fit(["gn"], progress=False)
    (run,) = study.runs("gn")
    damage.flip(Folder(run, tmp_path).path / "history.csv")
    with pytest.raises(ValueError, match=r"history\.csv is not what was written .*; fit\(run\) makes it again"):
        Result(run, tmp_path)
    study.fit(["gn"], progress=False)
    assert "history.csv is not what was written" in capsys.readouterr().out
    assert Folder(run, tmp_path).sound


@pytest.mark.parametrize("case", bad_inputs.CASES, ids=bad_inputs.name)
def test_wrong_input_gets_one_clear_sentence(tmp_path, case):
    assert bad_inputs.wrong(case, tmp_path / "case") == ""


def test_make_passes_its_variables_on():
    given = {"PROFILE": "a", "DATASET": "folder:b c", "DATA_DIR": "d", "SEEDS": "0,0", "OUTPUTS": "e"}
    command = ["make", "--dry-run", "report", "JOBS=f", *(f"{name}={value}" for name, value in given.items())]
    env = bad_inputs.without_make()
    said = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    study = " ".join(f'--{name.lower().replace("_", "-")} "{value}"' for name, value in given.items())
    assert f"python -m report.build {study}\n" in said and f'python -m lib.study {study} --jobs "f"\n' in said


def test_an_unclear_answer_would_be_noticed(tmp_path):
    assert "does not say" in bad_inputs.wrong(("Run", {"n": 0}, "n is 1"), tmp_path / "a")
    assert "does not say" in bad_inputs.wrong(("Run", {"n": 1}, "n is"), tmp_path / "b")

    def begins(given, folder):
        (folder / "outputs").mkdir()
        return "n is 0"

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bad_inputs.DOORS, "Run", begins)
        assert "was left behind" in bad_inputs.wrong(("Run", {}, "n is 0"), tmp_path / "c")


def test_nothing_vouches_for_a_run_without_sums_and_checkpoints(sample, tmp_path, capsys):
    """As an older format left it, or a copy that missed a file."""
    copy = shutil.copytree(sample.folder / "finished", tmp_path / "copy")
    folder = Folder(TINY, copy)
    for name in (store.SUMS, *store.CHECKPOINTS):
        (folder.path / name).unlink()
    old = (folder.path / "metrics.json").read_bytes()
    made = everything(train.fit(TINY, copy, progress=False))
    said = capsys.readouterr().out
    assert "metrics.json is of an older format, or its SHA256SUMS was lost; it is moved aside as metrics.json.damaged" in said
    assert (folder.path / "metrics.json.damaged").read_bytes() == old
    assert made | {"files": []} == sample.whole | {"files": []}


def test_a_missing_file_is_not_said_to_be_moved(sample, tmp_path, capsys):
    copy = shutil.copytree(sample.folder / "finished", tmp_path / "copy")
    damage.lose(Folder(TINY, copy).path / "env.json")
    train.fit(TINY, copy, progress=False)
    assert "env.json is missing; it is made again" in capsys.readouterr().out


def test_scores_that_are_no_numbers_are_damage(sample, tmp_path):
    copy = shutil.copytree(sample.folder / "finished", tmp_path / "copy")
    file = Folder(TINY, copy).path / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["splits"]["test"]["accuracy"] = float("nan")
    file.write_text(json.dumps(metrics))
    Folder(TINY, copy).seal()
    with pytest.raises(store.DamagedRun, match=r"metrics\.json has scores that predictions\.npz does not give"):
        Result(TINY, copy)


def test_a_run_that_is_being_mended_is_no_error_for_others(sample, tmp_path, monkeypatch):
    copy = shutil.copytree(sample.folder / "finished", tmp_path / "copy")
    real = store.read_run

    def mended_meanwhile(path):
        (path / store.SUMS).unlink()
        return real(path)

    monkeypatch.setattr(store, "read_run", mended_meanwhile)
    assert store.stored(copy) == []


# Disks


def test_a_full_disk_is_said_and_loses_nothing(tmp_path, monkeypatch):
    whole, real, left = everything(train.fit(TINY, tmp_path / "whole")), os.fsync, 5

    def full(descriptor):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            OSError, match=r"cannot be written \(No space left on device\); everything that was complete is kept"
        ):
            train.fit(TINY, tmp_path)
    assert not list(tmp_path.rglob("*.part"))
    assert Folder(TINY, tmp_path).load_checkpoint()["epoch"] == 2
    assert everything(train.fit(TINY, tmp_path)) == whole


LIMITED = """
import resource, sys
from damage import TINY
from lib.engine.commands import command
from lib import train
@command
def main():
    train.fit(TINY, f"{sys.argv[1]}/{limit}", progress=False)
    return 0
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    print(main())
"""


def test_a_system_that_refuses_to_write_more(tmp_path, sample):
    """The operating system's own refusal, at the config, the first checkpoint, or (with room for small files) the model."""
    limits = ("100", "2000", "400000")
    command = [sys.executable, "-c", LIMITED, str(tmp_path), *limits]
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent)))}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, check=False)
    assert done.stdout.split() == ["2", "2", "2"], done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 3
    for limit, line in zip(limits, said, strict=True):
        assert "cannot be written (File too large); everything that was complete is kept" in line
        assert everything(train.fit(TINY, tmp_path / limit, progress=False)) == sample.whole


@contextmanager
def unprivileged(folder):
    """As a user who may not do everything but can reach `folder`, where the tests run as one who may."""
    if os.geteuid() == 0:
        for above in folder.parents:
            if not above.stat().st_mode & 0o001:
                above.chmod(0o755)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


def test_a_read_only_folder_is_said(tmp_path):
    tmp_path.chmod(0o555)
    with (
        unprivileged(tmp_path),
        pytest.raises(OSError, match=r"cannot be written \(Permission denied\); give an outputs folder"),
    ):
        train.fit(TINY, tmp_path / "outputs", progress=False)
    tmp_path.chmod(0o755)


def test_finished_runs_are_read_from_a_read_only_folder(sample):
    with unprivileged(sample.folder / "finished"):
        assert everything(train.fit(TINY, sample.folder / "finished")) == sample.whole


# Several at once, and stops

AT_ONCE = """
import sys
from lib import train
from lib.study import Study
made = []
real = train.train
train.train = lambda run, *rest: made.append(run.norm) or real(run, *rest)
Study("smoke", "digits", outputs=sys.argv[1], jobs=1).fit(["bn", "gn"], progress=False)
print(*made)
"""


def test_three_processes_on_two_runs_train_each_once(tmp_path):
    command = [sys.executable, "-c", AT_ONCE, str(tmp_path)]
    many = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [process.communicate(timeout=600) for process in many]
    assert all(process.returncode == 0 for process in many), ended
    lines = [line for out, _ in ended for line in out.splitlines()]
    trained = sorted(norm for line in lines if "waiting" not in line for norm in line.split())
    assert trained == ["bn", "gn"]
    assert any("is being trained by another process; waiting for it" in line for line in lines)
    assert len(store.stored(tmp_path)) == 2
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + 3 * 2


NO_WORK = """
import sys, time
from lib.engine import weights
from lib.study import Study

class Stuck:
    def __reduce__(self):  # asked for when a worker's work is sent, which it never is
        time.sleep(600)

weights.initial_weights = lambda *_: Stuck()
Study("smoke", "digits", outputs=sys.argv[1], jobs=2).fit(["bn", "gn"], progress=False)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_worker_whose_parent_died_before_it_gave_it_work_ends_too(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", NO_WORK, str(tmp_path)], cwd=ROOT)
    try:
        assert wait_until(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
    finally:
        process.kill()
        process.wait()
    assert wait_until(lambda: not any(alive(pid) for pid in workers), 180)  # left alone they would end after 300 s


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_stopped_kernel_leaves_a_resumable_state_and_no_process(tmp_path):
    """Jupyter's stop button, and its kernel shut down, while two runs are trained side by side."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager()
    manager.start_kernel(cwd=str(ROOT / "notebooks"), extra_arguments=["--IPKernelApp.log_level=50"])
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=120)
        client.execute(f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom lib.study import Study")

        def training(outputs):
            study = f"Study('smoke', outputs={str(outputs)!r}, jobs=2, changes={{'epochs': 5000}})"
            client.execute(f"{study}.fit(['bn', 'gn'], progress=False)", stop_on_error=False)  # the next waits already
            assert wait_until(lambda: len(list(outputs.glob("runs/*/checkpoint.pt"))) == 2)
            workers = children(manager.provisioner.pid)
            assert len(workers) == 2
            return workers

        def gone(workers):
            return wait_until(lambda: not any(alive(pid) for pid in workers), 180)

        workers = training(tmp_path / "a")
        manager.interrupt_kernel()
        assert gone(workers) and manager.is_alive()
        workers = training(tmp_path / "b")
        manager.shutdown_kernel(now=True)
        assert gone(workers)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    (run,) = Study("smoke", changes={"epochs": 5000}).runs("bn")
    for folder in (Folder(run, tmp_path / "a"), Folder(run, tmp_path / "b")):
        assert folder.load_checkpoint()["epoch"] == len(folder.load_checkpoint()["history"]) >= 1
        with without_pause(folder.locked(lambda sentence: pytest.fail(sentence))):
            pass


# Divergence


def diverge(study, variant, seed):
    """Let one run look as a diverged run does."""
    (run,) = (run for run in study.runs(variant) if run.seed == seed)
    folder = Folder(run, study.outputs)
    folder.write_json("metrics.json", json.loads((folder.path / "metrics.json").read_text()) | {"status": "diverged"})
    folder.seal()


def test_the_results_table_has_no_score_of_a_diverged_run(tmp_path):
    study = Study("smoke", outputs=tmp_path, jobs=1)
    study.fit(["bn", "gn"], progress=False)
    diverge(study, "gn", 0)
    assert study.fit(["bn", "gn"], progress=False)["gn"][0].diverged
    table = pd.read_csv(tmp_path / "results.csv").set_index("norm")
    assert set(table.loc["gn", "status"]) == {"diverged"} and table.loc["gn", "accuracy"].isna().all()
    assert set(table.loc["bn", "status"]) == {"done"} and table.loc["bn", "accuracy"].notna().all()


def test_a_results_table_that_is_lost_or_wrong_is_made_again(tmp_path):
    train.fit(TINY, tmp_path, progress=False)
    good = (tmp_path / "results.csv").read_bytes()
    for harm in (lambda file: file.unlink(), lambda file: file.write_bytes(good.replace(b"0.", b"0.9", 1)), damage.cut):
        harm(tmp_path / "results.csv")
        train.fit(TINY, tmp_path, progress=False)
        assert (tmp_path / "results.csv").read_bytes() == good


def test_an_infinite_loss_ends_the_run_and_no_other(tmp_path):
    study = Study("smoke", outputs=tmp_path, changes={"clip_norm": None})
    study = replace(study, changes={"clip_norm": None, "lr": 1e30, "warmup_epochs": 0})
    found = study.fit(["nn"], progress=False) | replace(study, changes={}).fit(["bn"], progress=False)
    (lost,), (kept,) = found["nn"], found["bn"]
    assert lost.diverged and len(lost.history) == lost.metrics["epochs_run"] == 1
    assert not kept.diverged and len(kept.history) == 2
