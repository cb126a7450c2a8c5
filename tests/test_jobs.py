"""Runs side by side: the same results, wherever and however many at a time they are trained, and nothing left behind."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import joblib
import pytest
import torch
from bad_inputs import write_folder

from lib import train
from lib.data import ROOT
from lib.engine import jobs
from lib.engine.store import Folder, Result
from lib.run import Run
from lib.study import Study

VARIANTS = ["bn", "gn"]


def smoke(folder, **kwargs) -> Study:
    return Study("smoke", "digits", outputs=folder, **kwargs)


def weights(study: Study) -> list[bytes]:
    runs = [run for variant in VARIANTS for run in study.runs(variant)]
    return [(Folder(run, study.outputs).path / "best.safetensors").read_bytes() for run in runs]


@pytest.fixture(scope="module")
def one_after_the_other(tmp_path_factory) -> Study:
    study = smoke(tmp_path_factory.mktemp("one"), jobs=1)
    study.fit(VARIANTS, progress=False)
    return study


def test_side_by_side_is_bit_for_bit_one_after_the_other(one_after_the_other, tmp_path):
    study = smoke(tmp_path, jobs=2)
    study.fit(VARIANTS, progress=False)
    assert weights(study) == weights(one_after_the_other)
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1 + 3 * len(VARIANTS)


@pytest.mark.parametrize("backend", ["ray", "dask"])
def test_on_a_local_cluster_with_two_workers(one_after_the_other, tmp_path, backend):
    if not importlib.util.find_spec({"ray": "ray", "dask": "distributed"}[backend]):
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-m", "lib.study", "--profile", "smoke", "--outputs", str(tmp_path), "--variants", "bn,gn"]
    env = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [*command, "--backend", backend, "--jobs", "2"], cwd=ROOT, capture_output=True, text=True, timeout=300, env=env
    )
    assert done.returncode == 0, done.stderr
    assert weights(smoke(tmp_path)) == weights(one_after_the_other)


@contextmanager
def in_this_process(*args):
    """For jobs.connected."""
    yield {"backend": "sequential", "n_jobs": 1}, 0, 1


def test_a_worker_without_the_outputs_folder_sends_the_run_back(one_after_the_other, tmp_path, monkeypatch):
    study = smoke(tmp_path / "here", jobs=2)
    there, real = tmp_path / "there", jobs.train_group
    monkeypatch.setattr(jobs, "connected", in_this_process)
    monkeypatch.setattr(
        jobs, "train_group", lambda runs, _, data_dir, gpu, here, *rest: real(runs, there, data_dir, gpu, False, *rest)
    )
    found = study.fit(VARIANTS, progress=False)
    assert weights(study) == weights(one_after_the_other)
    assert found["bn"][0].score() == Result(study.runs("bn")[0], there).score()
    assert (there / "runs").is_dir() and not list((tmp_path / "here" / "runs").glob("*/checkpoint.pt"))

    files = [found[name][0].path / "predictions.npz" for name in VARIANTS]  # and again, if what came home is damaged since
    for file in files:
        file.write_bytes(b"nothing")
    study.fit(VARIANTS, progress=False)
    assert weights(study) == weights(one_after_the_other)
    assert [file.with_name("predictions.npz.damaged").read_bytes() for file in files] == [b"nothing"] * len(files)
    assert not list((tmp_path / "here" / "runs").glob("*/checkpoint.pt")), "it was trained here"


@pytest.mark.parametrize("given", [0, -1, "many", 1.5, True, ""])
def test_number_of_jobs_is_checked_at_once(given):
    with pytest.raises(ValueError, match=r"jobs is .*; it must be an integer of at least 1, or auto"):
        Study(jobs=given)


def test_unknown_or_missing_backend(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown backend 'spark'; allowed are local, ray, dask"):
        Study(backend="spark")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"the backend ray is not installed; pip install -e '.\[ray\]' does it"):
        smoke(tmp_path, backend="ray").fit(VARIANTS, progress=False)


def test_auto_is_a_job_for_each_core(monkeypatch):
    monkeypatch.setattr(jobs.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(jobs.joblib, "cpu_count", lambda only_physical_cores: 7)
    assert jobs.number_of_jobs("auto", "local") == 7 and jobs.number_of_jobs("auto", "ray") == -1
    monkeypatch.setattr(jobs.machine, "gpus", lambda: ["cuda:0", "cuda:1"])
    assert jobs.number_of_jobs("auto", "local") == 2 * jobs.AT_ONCE


def test_a_gpu_has_one_worker_that_trains_its_share_in_turns(tmp_path, monkeypatch):
    """Two GPUs, whose work is done on the CPU: which runs go where, in which order they take turns, and the same results."""
    taken = []
    monkeypatch.setattr(jobs.machine, "gpus", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(jobs.machine, "check_device", lambda device: taken.append(device) or torch.device("cpu"))
    stand_in = SimpleNamespace(
        delayed=joblib.delayed,
        parallel_config=lambda n_jobs, **_: nullcontext(taken.append(n_jobs)),
        Parallel=lambda **_: lambda work: (f(*args) for f, args, _ in work),
    )
    monkeypatch.setattr(jobs, "joblib", stand_in)
    monkeypatch.setattr(train.Trainer, "turn", 1)
    study, real, order = smoke(tmp_path, seeds=(0, 1), jobs=4), train.Trainer.step, []

    def step(self, size):
        order.append(self.run)
        real(self, size)

    monkeypatch.setattr(train.Trainer, "step", step)
    found = study.fit(VARIANTS, progress=False)
    assert taken == [2, "cuda:0", "cuda:1"]
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    assert len(set(first)) == len(set(second)) == 2 and not set(first) & set(second)
    assert first[:4] == [first[0], first[1]] * 2, "one waited until the other was done"
    assert all(result.env["device"].endswith(", 2 trainings in turns") for results in found.values() for result in results)
    monkeypatch.undo()
    alone = smoke(tmp_path / "alone", seeds=(0, 1), jobs=1).fit(VARIANTS, progress=False)
    for name, results in alone.items():
        for mine, other in zip(found[name], results, strict=True):
            assert all(
                torch.equal(a, b) for a, b in zip(*(r.model().state_dict().values() for r in (mine, other)), strict=True)
            )


def test_runs_are_dealt_by_their_cost():
    runs = [Run(epochs=epochs, seed=seed) for seed, epochs in enumerate((10, 40, 20, 30))]
    assert [[run.epochs for run in group] for group in jobs.dealt(runs, 2)] == [[40, 10], [30, 20]]
    assert [[run.epochs for run in group] for group in jobs.dealt(runs, 9)] == [[40], [30], [20], [10]]


def test_who_fails_ends_all_turns_and_frees_their_locks(tmp_path):
    log = []

    def training(name, pauses, fails=False):
        try:
            for _ in range(pauses):
                log.append(name)
                yield
            if fails:
                raise OSError("the disk is full")
        finally:
            log.append(f"{name} ends")

    device = torch.device("cpu")
    jobs.take_turns((training(name, n) for name, n in (("a", 1), ("b", 3), ("c", 1))), 2, device)
    assert log == ["a", "b", "a ends", "b", "b", "c", "b ends", "c ends"]
    log.clear()
    with pytest.raises(OSError, match="the disk is full"):
        jobs.take_turns((training(name, 2, name == "a") for name in "abc"), 2, device)
    assert log == ["a", "b", "a", "b", "a ends", "b ends"]


TWO = """
import sys
from pathlib import Path
from lib.engine.jobs import train_group
from lib.study import Study
runs = [run for norm in sys.argv[2:] for run in Study("smoke", outputs=sys.argv[1]).runs(norm)]
train_group(runs, Path(sys.argv[1]), Path("data"), None, False, {"": {}}, 2)
"""


def test_two_that_train_the_same_runs_in_turns_do_not_wait_for_each_other_for_ever(tmp_path):
    orders = [VARIANTS, VARIANTS[::-1]]
    both = [subprocess.Popen([sys.executable, "-c", TWO, str(tmp_path), *order], cwd=ROOT) for order in orders]
    try:
        assert [process.wait(120) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert all(Folder(run, tmp_path).done for norm in VARIANTS for run in smoke(tmp_path).runs(norm))


@pytest.mark.parametrize(
    "threads, gpus, sentence",
    [
        ({"a": 1, "b": 4}, {"a": 0, "b": 0}, "a Dask worker has several threads.*start workers with --nthreads 1"),
        ({"a": 1, "b": 1}, {"a": 2, "b": 2}, "a Dask worker sees several GPUs; start one worker for each"),
    ],
)
def test_dask_workers_that_would_share_are_refused(threads, gpus, sentence):
    client = SimpleNamespace(nthreads=lambda: threads, run=lambda function: gpus)
    with pytest.raises(ValueError, match=sentence):
        jobs.check_dask(client)
    jobs.check_dask(SimpleNamespace(nthreads=lambda: {"a": 1}, run=lambda function: {"a": 1}))


def children(pid: int) -> list[int]:
    """Python processes below a process that train: not joblib's own resource tracker, which ends by itself a little later."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent, name = int(stat.read_text().rsplit(")", 1)[1].split()[1]), (stat.parent / "cmdline").read_text()
        except (OSError, ValueError):
            continue
        if parent == pid and "resource_tracker" not in name:
            found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float = 600) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def long_study(outputs: Path) -> subprocess.Popen:
    """A process that trains two runs side by side for longer than any test waits."""
    code = (
        "import sys; from lib.study import Study\n"
        "study = Study('smoke', 'digits', outputs=sys.argv[1], jobs=2, changes={'epochs': 5000})\n"
        "study.fit(['bn', 'gn'], progress=False)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(outputs)], cwd=ROOT, stderr=subprocess.DEVNULL)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_no_worker_outlives_the_command(tmp_path, how):
    """A worker left behind would hold its run's lock, and the next start would wait for it."""
    process = long_study(tmp_path)
    try:
        assert wait_until(lambda: len(list(tmp_path.glob("runs/*/checkpoint.pt"))) == 2)
        workers = children(process.pid)
        assert len(workers) == 2
        for _ in range(3):  # an interrupt that falls into a destructor or a callback is lost, and its user presses again
            process.send_signal(how)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
                break
        assert wait_until(lambda: not any(alive(pid) for pid in workers), 180)
    finally:
        process.kill()


def test_a_killed_worker_is_named_in_one_sentence(tmp_path, monkeypatch):
    def killed(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(jobs, "train_group", killed)
    with pytest.raises(OSError, match="one of 2 training processes was killed, perhaps for memory; the same command goes on"):
        smoke(tmp_path, jobs=2).fit(VARIANTS, progress=False)


def test_workers_read_an_image_folder_anew_when_it_changed(tmp_path, monkeypatch):
    path = write_folder(tmp_path / "birds")
    monkeypatch.setattr(jobs, "HELD", {})

    def held():
        (run,) = Study("smoke", f"folder:{path}").runs("bn")
        return jobs.held_data(run, tmp_path, torch.device("cpu"))

    first = held()
    assert held() is first
    file = next((path / "train").glob("*/*"))
    file.write_bytes(next((path / "test").glob("*/*")).read_bytes())
    assert held() is not first


def test_finished_runs_come_home_even_if_another_fails(tmp_path, monkeypatch):
    study, real = smoke(tmp_path / "here", jobs=2), jobs.train_group

    def train_group(runs, outputs, data_dir, gpu, here, *rest):
        if runs[0].norm == "gn":
            raise OSError("the disk is full")
        return real(runs, tmp_path / "there", data_dir, gpu, False, *rest)

    monkeypatch.setattr(jobs, "connected", in_this_process)
    monkeypatch.setattr(jobs, "train_group", train_group)
    with pytest.raises(OSError, match="the disk is full"):
        study.fit(VARIANTS, progress=False)
    assert Folder(study.runs("bn")[0], study.outputs).done


def test_a_single_missing_run_goes_to_the_cluster_too(tmp_path, monkeypatch):
    asked, real = [], jobs.train_all

    def train_all(missing, starts, outputs, data_dir, jobs, backend, progress):
        asked.append((len(missing), backend))
        real(missing, starts, outputs, data_dir, jobs, "local", progress)

    monkeypatch.setattr(jobs, "train_all", train_all)
    smoke(tmp_path, backend="ray", jobs=1).fit(["bn"], progress=False)
    assert asked == [(1, "ray")]
