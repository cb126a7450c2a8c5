"""Many runs at once, through joblib: processes on this machine, or a Ray or Dask cluster that is there already.

A run is trained on one CPU thread however many run side by side, so its numbers do not depend on that.
"""

import itertools
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm.auto import tqdm

from lib import data
from lib.engine import machine, store, weights
from lib.engine.store import Folder, Result
from lib.run import Run, allow
from lib.train import check_data, load_data, train_to_end, training

BACKENDS = ("local", "ray", "dask")
AT_ONCE = 8  # trainings that take turns on a GPU, which one alone is expected to leave idle in part; not measured


def fit_all(
    runs: list[Run], outputs, data_dir, jobs: int | str = "auto", backend: str = "local", progress: bool = True
) -> dict[str, Result]:
    """Id -> the finished run, of each of `runs`: what is there is opened, what is missing is trained, as many side by side as
    `jobs` says ("auto": one for each core, AT_ONCE for each GPU, or all that a cluster takes).

    Every missing run is held against its data before any is trained. One that starts from another's weights comes after that,
    and is left out where that one diverged, since nothing can start from it. ValueError for what cannot be trained, for an
    unknown backend or one that is not installed, or a number of jobs below 1.
    """
    count = number_of_jobs(jobs, backend)
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
            if part and (backend != "local" or min(len(part), count) > 1):
                train_all(part, starts, outputs, data_dir, count, backend, progress)
            for run in part:
                given = loaded[run.data_key], starts[run.init]
                finished[run.id] = store.find(run, outputs) or train_to_end(run, outputs, data_dir, None, progress, *given)
    finally:
        store.write_results(outputs, must=bool(missing))
    return finished


def train_all(missing: list[Run], starts: dict, outputs, data_dir, count: int, backend: str, progress: bool) -> None:
    """Train runs side by side. A worker that shares the outputs folder trains there; one that does not sends its files back.
    `starts`: init -> weights, since a worker elsewhere may not have the run that they are of; ImageNet's it reads itself."""
    folders = Path(outputs).absolute(), Path(data_dir).absolute()
    here, starts = backend == "local", starts | {"imagenet": None}
    with epochs_shown(missing, outputs, progress), connected(backend, count, len(missing)) as (config, gpus, at_once):
        work = []
        for i, group in enumerate(dealt(missing, gpus or len(missing))):
            gpu, own = (i if here and gpus else None), {run.init: starts[run.init] for run in group}
            work.append(joblib.delayed(train_group)(group, *folders, gpu, here, own, at_once))
        try:
            with joblib.parallel_config(**config):
                # Ray's joblib backend gives everything at the end; the others each run as it is done.
                order = "list" if backend == "ray" else "generator_unordered"
                for run, files in itertools.chain.from_iterable(joblib.Parallel(batch_size=1, return_as=order)(work)):
                    folder = Folder(run, outputs)
                    if files and not folder.sound:
                        folder.set_damage_aside(say=tqdm.write)
                        folder.write_files(files)
        except TerminatedWorkerError:
            raise OSError(
                f"one of {config['n_jobs']} training processes was killed, perhaps for memory; the same command goes on, "
                "and a smaller number of jobs needs less memory"
            ) from None


def dealt(runs: list[Run], hands: int) -> list[list[Run]]:
    """The runs in at most so many groups of about the same cost, the longest first, so that none is left over at the end."""
    groups, costs = [[] for _ in range(min(hands, len(runs)))], [0.0] * min(hands, len(runs))
    for run in sorted(runs, key=cost, reverse=True):
        least = costs.index(min(costs))
        groups[least].append(run)
        costs[least] += cost(run)
    return groups


def cost(run: Run) -> float:
    """About how long a run takes: images, and steps, each of which costs as much as some ten images more."""
    return run.epochs * (run.train_size or data.train_images(run.dataset)) * (1 + 10 / run.batch_size)


def number_of_jobs(jobs: int | str, backend: str) -> int:
    """How many trainings at a time; −1 for as many as a cluster takes. ValueError if it is below 1."""
    allow("backend", backend, BACKENDS)
    if jobs == "auto":
        if backend != "local":
            return -1
        return AT_ONCE * len(machine.gpus()) or joblib.cpu_count(only_physical_cores=True)
    try:
        count = int(jobs)
    except (TypeError, ValueError):
        count = 0
    if isinstance(jobs, (bool, float)) or count < 1:
        raise ValueError(f"jobs is {jobs!r}; it must be an integer of at least 1, or auto")
    return count


@contextmanager
def connected(backend: str, count: int, most: int):
    """Once connected as the backend's own variable says: the keywords of joblib.parallel_config, for `most` jobs at most, the
    number of GPUs, each of which one worker has for itself, and how many trainings take turns on one."""
    if backend == "local":
        gpus = len(machine.gpus()[:count])
        watched = {"initializer": end_with_parent, "initargs": (os.getpid(),)}
        yield {"backend": "loky", "n_jobs": min(gpus or count, most)} | watched, gpus, count // max(gpus, 1)
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
        share = {"num_gpus": 1} if gpus else {"num_cpus": 1}
        places = min(cpus, gpus or cpus)  # more would never find one
        at_once = -(-count // places) if count > 0 else AT_ONCE
        n_jobs = min(count, places, most) if count > 0 else min(places, most)
        yield {"backend": "ray", "n_jobs": n_jobs, "ray_remote_args": share}, gpus, at_once
    else:  # the scheduler at DASK_SCHEDULER_ADDRESS, or workers started here
        given = os.environ.get("DASK_SCHEDULER_ADDRESS")
        if given and count > 0:
            raise ValueError(
                f"jobs is {count}, but the Dask workers at {given} say themselves how many they take; leave it at auto"
            )
        workers = min(count if count > 0 else len(machine.gpus()) or joblib.cpu_count(), most)
        with Client(**{} if given else {"threads_per_worker": 1, "n_workers": workers}) as client:
            check_dask(client)
            yield {"backend": "dask", "n_jobs": -1}, 0, 1


def check_dask(client) -> None:
    """ValueError for workers that would train in several threads of a process, or on GPUs that they share."""
    if max(client.nthreads().values(), default=1) > 1:
        raise ValueError("a Dask worker has several threads, but a training takes a process; start workers with --nthreads 1")
    if max(client.run(torch.cuda.device_count).values(), default=0) > 1:
        raise ValueError(
            "a Dask worker sees several GPUs; start one worker for each, with CUDA_VISIBLE_DEVICES naming it, as dask-cuda does"
        )


HELD: dict[tuple, data.Data] = {}  # the data of this worker's last run


def held_data(run: Run, data_dir: Path, device: torch.device) -> data.Data:
    """The data of a run on a device, which are loaded only if the last run had others."""
    key = (*run.data_key, run.augment, data_dir, device)
    if key not in HELD:
        HELD.clear()
        HELD[key] = load_data(run, data_dir).to(device).bordered(run.augment)
    return HELD[key]


def end_with_parent(parent: int) -> None:
    """From now on this process ends when the one that started it does, however that ends: no orphan trains on. Ctrl-C, which
    a terminal sends to all, is left to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def train_group(runs, outputs: Path, data_dir: Path, gpu: int | None, here: bool, starts: dict, at_once: int) -> list:
    """What a worker does: it trains these runs, `at_once` of them in turns. The runs, and of a cluster's worker their files,
    which are small. `here`: it shares the outputs folder with who asked, and needs to send no files back."""
    device = machine.check_device(None if gpu is None else f"cuda:{gpu}")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # else leaving a stream would open the first GPU
    at_once = min(at_once, len(runs))
    trainings = (
        training(run, outputs, held_data(run, data_dir, device), device, False, starts[run.init], at_once) for run in runs
    )
    take_turns(trainings, at_once, device)
    names = () if here else store.FINISHED
    return [(run, {name: (Folder(run, outputs).path / name).read_bytes() for name in names}) for run in runs]


def take_turns(trainings: Iterator[Generator], at_once: int, device: torch.device) -> None:
    """Go on with each of so many trainings to its next pause, one after the other, until all are done; each has a stream of
    its own on a GPU, which works on all of them at the same time."""
    with machine.prepared(device):
        running = {place: training for place, training in zip(range(at_once), trainings, strict=False)}
    try:
        while running:
            for place, training in list(running.items()):
                with machine.prepared(device, place):
                    try:
                        next(training)
                    except StopIteration:
                        del running[place]
                        if following := next(trainings, None):
                            running[place] = following
    finally:
        for training in running.values():
            with suppress(RuntimeError):  # of a GPU that answers nothing any more
                training.close()  # and give back its lock


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
