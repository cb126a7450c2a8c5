"""A run, its id, and the store that keeps what it produced: nothing is trained twice, nothing is lost.

outputs/runs/<run id>/
    config.json        every field of the Run
    history.csv        one row per epoch
    checkpoint.pt      the last finished epoch: weights, optimizer, best weights, history (what a restart reads)
    best.safetensors   the weights of the best validation epoch
    predictions.npz    labels and predicted classes of the three splits, by the best weights
    env.json           device, versions, commit
    metrics.json       loss and scores of the three splits; written last, so a run with this file is finished
"""

import hashlib
import json
import os
import platform
import subprocess
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save

from lib import data
from lib.data import ROOT
from lib.norms import NORMS
from lib.resnet import ResNet

SPLITS = ("train", "val", "test")
#: What a finished run consists of; the last one says that it is finished.
FINISHED = ("config.json", "history.csv", "best.safetensors", "predictions.npz", "env.json", "metrics.json")
CODE_VERSION = 1  # raise it with a change of code that changes results: old runs then get another id
NORMS_VERSION = 2  # the same for lib.norms and lib.kernels, of which the other variants know nothing


@dataclass(frozen=True)
class Run:
    """Everything that decides a result. The defaults are the assignment's setting; ValueError for what cannot be."""

    norm: str = "torch_bn"
    n: int = 2  # 6n+2 layers; the assignment's n
    dataset: str = "cifar10"
    data_hash: str = ""  # of an image folder's files; the other data sets are fixed by their name
    classes: int = 10  # r
    train_size: int | None = None  # None: all 40,000 of the split
    split_seed: int = 0  # one split for all variants and seeds
    seed: int = 0  # initial weights, order and augmentation of the batches
    batch_size: int = 128  # the assignment's
    epochs: int = 100  # the assignment's
    patience: int | None = None  # stop after so many epochs without a better validation accuracy; None: never
    optimizer: str = "sgd"
    lr: float = 0.1  # the assignment's initial learning rate
    momentum: float = 0.9  # He et al. 2016, section 4.2
    weight_decay: float = 5e-4  # chosen on validation data, with the schedule: study.RECIPE_PROBES
    schedule: str = "cosine"  # half a period, from lr to 0, a step at a time
    warmup_epochs: int = 2  # linear from 0; the networks without batch statistics start rough at lr 0.1
    clip_norm: float | None = None  # of the whole gradient
    gate_lr: float = 10.0  # BIN's gates learn at so many times lr: the authors' published training code
    group_size: int = 4  # channels in a group of GN, that is C/4 groups
    augment: str = "crop+flip"  # He et al. 2016, section 4.2
    precision: str = "bf16"  # of the training's convolutions; statistics, loss, weights and evaluation are float32

    def __post_init__(self):
        data.check_name(self.dataset)
        allow("norm", self.norm, tuple(NORMS))
        allow("optimizer", self.optimizer, ("sgd", "adam"))
        allow("schedule", self.schedule, ("cosine", "step", "constant"))
        allow("augment", self.augment, data.AUGMENTATIONS)
        allow("precision", self.precision, ("bf16", "float32"))
        for name, least in (("n", 1), ("classes", 2), ("batch_size", 1), ("epochs", 1), ("group_size", 1)):
            at_least(name, getattr(self, name), least, int)
        for name in ("split_seed", "seed", "warmup_epochs"):
            at_least(name, getattr(self, name), 0, int)
        if max(self.seed, self.split_seed) >= 2**63:
            raise ValueError(f"seed {self.seed} or split_seed {self.split_seed} is too large; both must be below 2**63")
        for name in ("momentum", "weight_decay", "gate_lr"):
            at_least(name, getattr(self, name), 0, float)
        for name, least in (("train_size", 8), ("patience", 1)):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), least, int)
        for name in ("lr", "clip_norm"):
            value = getattr(self, name)
            if not (name == "clip_norm" and value is None) and not (is_number(value, float) and 0 < value < np.inf):
                raise ValueError(f"{name} is {value!r}; it must be a number above 0")
        if self.momentum >= 1:
            raise ValueError(f"momentum is {self.momentum}; it must be below 1")
        if self.norm == "gn" and 16 % self.group_size:
            raise ValueError(f"group_size is {self.group_size}; it must divide the 16, 32 and 64 channels: 1, 2, 4, 8, 16")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; it must be at most epochs, here {self.epochs}")

    @property
    def data_name(self) -> str:
        """The data set without the place it lies in."""
        return "folder-" + data.folder_path(self.dataset).name if self.dataset.startswith("folder:") else self.dataset

    @property
    def code(self) -> int | str:
        """The version of the code that trains this run."""
        return CODE_VERSION if self.norm in ("torch_bn", "nn") else f"{CODE_VERSION}.{NORMS_VERSION}"

    @cached_property
    def id(self) -> str:
        """Readable, and different for every difference in a field: cifar10-bn-n2-b128-e100-s0-1a2b3c4d."""
        decisive = asdict(self) | {"dataset": self.data_name, "code": self.code}
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
        slug = "".join(c if c.isalnum() or c in "-_" else "_" for c in self.data_name)
        return f"{slug}-{self.norm}-n{self.n}-b{self.batch_size}-e{self.epochs}-s{self.seed}-{digest}"


def is_number(value, kind) -> bool:
    return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)


def allow(name: str, value, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"unknown {name} {value!r}; allowed are {', '.join(allowed)}")


def at_least(name: str, value, least, kind) -> None:
    word = "an integer" if kind is int else "a number"
    if not is_number(value, kind) or not least <= value < np.inf:
        raise ValueError(f"{name} is {value!r}; it must be {word} of at least {least}")


def read_json(file: Path) -> dict:
    try:
        return json.loads(file.read_text())
    except ValueError:
        raise ValueError(f"{file} is damaged; remove the folder {file.parent} to train that run again") from None


class Folder:
    """The folder of one run. Files appear whole or not at all; `lock` lets one process at a time train the run."""

    def __init__(self, run: Run, outputs="outputs"):
        self.run, self.path = run, Path(outputs) / "runs" / run.id

    @property
    def done(self) -> bool:
        return (self.path / "metrics.json").is_file()

    @contextmanager
    def lock(self, say=print):
        """Held by whoever trains this run; freed by the system when the holder ends, however it ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"{self.run.id} is being trained by another process; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def write(self, name: str, content: bytes | str) -> None:
        content = content.encode() if isinstance(content, str) else content
        part = self.path / f"{name}.part"
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path / name)

    def write_json(self, name: str, content: dict) -> None:
        self.write(name, json.dumps(content, indent=1) + "\n")

    def write_with(self, name: str, save_to) -> None:
        """`save_to(file)` writes a file that then appears whole."""
        part = self.path / f"{name}.part"
        with open(part, "wb") as file:
            save_to(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path / name)

    def save_checkpoint(self, state: dict) -> None:
        self.write_with("checkpoint.pt", lambda file: torch.save(state, file))
        self.write_history(state)

    def write_history(self, state: dict) -> None:
        self.write("history.csv", pd.DataFrame(state["history"]).to_csv(index=False))

    def load_checkpoint(self, say=print) -> dict | None:
        """The last finished epoch; None if there is none. A file that cannot be read is moved aside, and said."""
        file = self.path / "checkpoint.pt"
        if not file.is_file():
            return None
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            os.replace(file, file.with_suffix(".damaged"))
            say(f"{file} cannot be read ({type(error).__name__}); moved to {file.stem}.damaged, training starts again")
            return None

    def save_model(self, state_dict: dict) -> None:
        self.write("best.safetensors", save({name: t.contiguous().cpu() for name, t in state_dict.items()}))

    @property
    def epochs(self) -> int:
        """How many epochs have been trained so far; all of them for a finished run, even if it stopped early."""
        if self.done:
            return self.run.epochs
        history = self.path / "history.csv"
        return max(0, history.read_bytes().count(b"\n") - 1) if history.is_file() else 0

    def read_files(self) -> dict[str, bytes]:
        """The files of a finished run."""
        return {name: (self.path / name).read_bytes() for name in FINISHED}

    def write_files(self, files: dict[str, bytes]) -> None:
        """A run that was finished elsewhere."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in FINISHED:
            self.write(name, files[name])


class Result:
    """What a finished run left. FileNotFoundError if it is not finished: a result is never made up."""

    def __init__(self, run: Run, outputs="outputs"):
        self.run, self.path = run, Folder(run, outputs).path
        if not Folder(run, outputs).done:
            raise FileNotFoundError(f"run {run.id} is not finished in {Path(outputs) / 'runs'}; train it with fit(run)")

    @cached_property
    def metrics(self) -> dict:
        return read_json(self.path / "metrics.json")

    @cached_property
    def history(self) -> pd.DataFrame:
        """Columns epoch, lr, train_loss, train_accuracy (while training, augmented), val_loss, val_accuracy,
        seconds (training only), eval_seconds, q01, q20, q80, q99 (validation features)."""
        return pd.read_csv(self.path / "history.csv")

    @cached_property
    def env(self) -> dict:
        return read_json(self.path / "env.json")

    @cached_property
    def predictions(self) -> dict[str, np.ndarray]:
        """`<split>_labels` and `<split>_predictions`, int16 (N,), for train, val and test."""
        with np.load(self.path / "predictions.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    def correct(self, split: str = "test") -> np.ndarray:
        """Whether each image of the split was classified rightly, bool (N,)."""
        return self.predictions[f"{split}_labels"] == self.predictions[f"{split}_predictions"]

    def score(self, name: str = "accuracy", split: str = "test") -> float:
        return self.metrics["splits"][split][name]

    @property
    def best_epoch(self) -> int:
        return self.metrics["best_epoch"]

    @property
    def diverged(self) -> bool:
        return self.metrics["status"] == "diverged"

    def model(self) -> ResNet:
        """The network with the weights of the best validation epoch, in eval mode."""
        model = ResNet(self.run.n, self.run.classes, self.run.norm, self.run.group_size)
        model.load_state_dict(load_file(self.path / "best.safetensors"))
        return model.eval()


def stored(outputs="outputs") -> list[Result]:
    """Every finished run of the store, in the order of their ids."""
    names = {field.name for field in fields(Run)}
    found = []
    for file in sorted((Path(outputs) / "runs").glob("*/metrics.json")):
        config = read_json(file.parent / "config.json")
        run = Run(**{k: v for k, v in config.items() if k in names}) if names <= config.keys() else None
        if run and run.id == file.parent.name:
            found.append(Result(run, outputs))
    return found


COLUMNS = [
    "run_id", "dataset", "norm", "n", "batch_size", "optimizer", "lr", "schedule", "augment", "seed", "epochs", "best_epoch",
]  # fmt: skip
SCORES = ["loss", "accuracy", "micro_f1", "macro_f1"]


def results(found: list[Result]) -> pd.DataFrame:
    """One row per run and split: COLUMNS, split, and SCORES (accuracy and F1 as fractions)."""
    rows = []
    for result in found:
        known = asdict(result.run) | {"run_id": result.run.id, "best_epoch": result.best_epoch}
        known["dataset"] = result.run.data_name
        for split in SPLITS:
            scores = {name: result.score(name, split) for name in SCORES}
            rows.append({name: known[name] for name in COLUMNS} | {"split": split} | scores)
    return pd.DataFrame(rows, columns=[*COLUMNS, "split", *SCORES])


def write_results(outputs="outputs") -> Path:
    """outputs/results.csv from every finished run of the store."""
    file = Path(outputs) / "results.csv"
    with FileLock(file.with_suffix(".lock")):  # so that no writer replaces a newer table by its older one
        part = file.with_suffix(".part")
        results(stored(outputs)).to_csv(part, index=False)
        os.replace(part, file)
    return file


def environment(device: torch.device) -> dict:
    """Device, thread count, versions and commit: what else could explain a difference between two runs."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    versions = {package.__name__: package.__version__ for package in (torch, np, pd)}
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit(),
    }


def cpu_name() -> str:
    """The CPU with the vector instructions that PyTorch uses on it: AMD EPYC, AVX2."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def commit() -> str:
    """The commit of this code, with a + if the working tree differs from it; empty outside a git checkout."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
