"""Many runs at once, through joblib: processes on this machine, or a Ray or Dask cluster that is there already.

A run is trained on one CPU thread however many run side by side, so its numbers do not depend on that.
"""

import functools
import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm.auto import tqdm

from lib import data
from lib.engine import store, weights
from lib.engine.store import Folder
from lib.run import Run, allow
from lib.train import check_data, complete, load_data

BACKENDS = ("local", "ray", "dask")
PER_GPU = 4  # processes that share a GPU, which one alone is expected to leave idle in part; not measured


def fit_all(runs: list[Run], outputs, data_dir, jobs: int | str = "auto", backend: str = "local", progress: bool = True):
    """Id -> the finished run, of each of `runs`: what is there is opened, what is missing is trained, as many side by side as
    `jobs` says ("auto": one for each core, PER_GPU for each GPU, or all that a cluster takes).

    Every missing run is held against its data before any is trained. One that starts from another's weights comes after that,
    and is left out where that one diverged, since nothing can start from it. ValueError for what cannot be trained, for an
    unknown backend or one that is not installed, or a number of jobs below 1.
    """
    number_of_jobs(jobs, backend)
    wanted = {run.id: run for run in runs}
    finished = {key: result for key, run in wanted.items() if (result := store.find(run, outputs))}
    missing, loaded = [run for key, run in wanted.items() if key not in finished], {}
    for run in missing:
        if run.data_key in loaded:
            check_data(run, loaded[run.data_key])
        else:
            loaded[run.data_key] = load_data(run, data_dir)
    later = [run for run in missing if run.init in wanted and run.init not in finished]
    try:
        for part in ([run for run in missing if run not in later], later):
            part = [run for run in part if run.init not in finished or not finished[run.init].diverged]
            starts = {run.init: weights.initial_weights(run, outputs) for run in part}
            if part and (backend != "local" or min(len(part), number_of_jobs(jobs, backend)) > 1):
                train_all(part, starts, outputs, data_dir, jobs, backend, progress)
            for run in part:
                given = loaded[run.data_key], starts[run.init]
                finished[run.id] = store.find(run, outputs) or complete(run, outputs, data_dir, None, progress, *given)
    finally:
        store.write_results(outputs, must=bool(missing))
    return finished


def train_all(missing: list[Run], starts: dict, outputs, data_dir, jobs, backend: str, progress: bool) -> None:
    """Train runs side by side. A worker that shares the outputs folder trains there; one that does not sends its files back.
    `starts`: init -> weights, since a worker elsewhere may not have the run that they are of; ImageNet's it reads itself."""
    missing = sorted(missing, key=cost, reverse=True)  # the longest first, so that none is left over at the end
    gpus = torch.cuda.device_count() if backend == "local" else 0
    folders = Path(outputs).absolute(), Path(data_dir).absolute()
    parent, starts = os.getpid() if backend == "local" else None, starts | {"imagenet": None}
    work = [
        joblib.delayed(train_one)(run, *folders, f"cuda:{i % gpus}" if gpus else None, parent, starts[run.init])
        for i, run in enumerate(missing)
    ]
    with epochs_shown(missing, outputs, progress), connected(backend, jobs, len(missing)) as config:
        try:
            with joblib.parallel_config(**config):
                # Ray's joblib backend gives everything at the end; the others each run as it is done.
                order = "list" if backend == "ray" else "generator_unordered"
                for run, files in joblib.Parallel(batch_size=1, return_as=order)(work):
                    folder = Folder(run, outputs)
                    if files and not folder.sound:
                        folder.set_damage_aside(say=tqdm.write)
                        folder.write_files(files)
        except TerminatedWorkerError:
            raise OSError(
                f"one of {config['n_jobs']} training processes was killed, perhaps for memory; the same command goes on, "
                "and a smaller number of jobs needs less memory"
            ) from None


def cost(run: Run) -> float:
    """About how long a run takes: images, and steps, each of which costs as much as some ten images more."""
    return run.epochs * (run.train_size or data.train_images(run.dataset)) * (1 + 10 / run.batch_size)


def number_of_jobs(jobs: int | str, backend: str) -> int:
    allow("backend", backend, BACKENDS)
    if jobs == "auto":
        if backend != "local":
            return -1
        return PER_GPU * torch.cuda.device_count() or joblib.cpu_count(only_physical_cores=True)
    try:
        count = int(jobs)
    except (TypeError, ValueError):
        count = 0
    if isinstance(jobs, (bool, float)) or count < 1:
        raise ValueError(f"jobs is {jobs!r}; it must be an integer of at least 1, or auto")
    return count


@contextmanager
def connected(backend: str, jobs: int | str, most: int):
    """The keywords of joblib.parallel_config, for `most` jobs at most, once connected as the backend's own variable says."""
    count = number_of_jobs(jobs, backend)
    if backend == "local":
        yield {"backend": "loky", "n_jobs": min(count, most)}
        return
    try:
        if backend == "ray":
            import ray
            from ray.util.joblib import register_ray
        else:
            from dask.distributed import Client
    except ImportError:
        raise ValueError(f"the backend {backend} is not installed; pip install -e '.[{backend}]' does it") from None
    if backend == "ray":  # the cluster at RAY_ADDRESS, or one started here
        if not ray.is_initialized():
            ray.init()
        register_ray()
        # Ray hides the GPUs from whoever does not ask for a share of one.
        gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        share = {"num_gpus": 1 / PER_GPU} if gpus else {"num_cpus": 1}
        places = min(cpus, PER_GPU * gpus or cpus)  # more would never find one
        at_once = min(count, places) if count > 0 else places
        yield {"backend": "ray", "n_jobs": min(at_once, most), "ray_remote_args": share}
    else:  # the scheduler at DASK_SCHEDULER_ADDRESS, or workers started here
        given = os.environ.get("DASK_SCHEDULER_ADDRESS")
        if given and count > 0:
            raise ValueError(
                f"jobs is {jobs}, but the Dask workers at {given} say themselves how many they take; leave it at auto"
            )
        here = {"threads_per_worker": 1, "n_workers": min(count if count > 0 else joblib.cpu_count(), most)}
        with Client(**{} if given else here):
            yield {"backend": "dask", "n_jobs": -1}


HELD: dict[tuple, data.Data] = {}  # the data of this worker's last run


def held_data(run: Run, data_dir: Path) -> data.Data:
    key = (*run.data_key, data_dir)
    if key not in HELD:
        HELD.clear()
        HELD[key] = load_data(run, data_dir)
    return HELD[key]


@functools.cache
def end_with_parent(parent: int) -> None:
    """From now on this process ends when the one that started it does, however that ends: no orphan trains on. Ctrl-C, which
    a terminal sends to all, is left to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def train_one(run: Run, outputs: Path, data_dir: Path, device: str | None, parent: int | None, start: dict | None):
    """What a worker does. The run, and of a cluster's worker its files, which are small. `parent`: the process that a worker
    here ends with; a cluster's outlive what asked them to work."""
    if parent not in (None, os.getpid()):
        end_with_parent(parent)
    path = complete(run, outputs, data_dir, device, False, held_data(run, data_dir), start).path
    return run, {} if parent else {name: (path / name).read_bytes() for name in store.FINISHED}


@contextmanager
def epochs_shown(missing: list[Run], outputs, progress: bool):
    """A bar of the epochs that all these runs have done, read from their histories while they are trained."""
    folders, stop = [Folder(run, outputs) for run in missing], threading.Event()

    def watch(bar):
        stopped = False
        while not stopped:
            stopped = stop.wait(1)
            bar.update(sum(folder.epochs for folder in folders) - bar.n)  # drawn as seldom as TQDM_MININTERVAL says

    with tqdm(total=sum(run.epochs for run in missing), unit="epoch", disable=not progress, desc=f"{len(missing)} runs") as bar:
        thread = threading.Thread(target=watch, args=(bar,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
