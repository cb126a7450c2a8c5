"""The store of finished and begun runs: nothing is trained twice, nothing is lost.

outputs/runs/<run id>/
    config.json        every field of the Run
    history.csv        one row per epoch
    checkpoint.pt      the last finished epoch: weights, optimizer, best weights, history (what a restart reads)
    previous.pt        the epoch before, for the case that the last is damaged
    best.safetensors   the weights of the best validation epoch
    predictions.npz    labels and predicted classes of the three splits, by the best weights
    env.json           device, versions, commit; of all that trained it where there were several
    metrics.json       loss and scores of the three splits
    SHA256SUMS         of the files above but the checkpoints, as `sha256sum --check` reads it; written last, so a run with
                       this file is finished

A run that is a `probe` has nothing of the test images. Every file appears whole or not at all. What was damaged later is
noticed when it is read, moved aside as *.damaged with a message, and made again from the last good state.
"""

import functools
import io
import itertools
import json
import os
import time
from collections.abc import Generator
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save
from torch import nn

from lib.engine.files import check_folder, sha256, write_file
from lib.networks import network
from lib.run import LATER_FIELDS, Run

#: What a finished run consists of, and the file that says that it is finished.
MODEL = "best.safetensors"  # of a CNN's run it may be missing: its 14 MB are too many for git, and nothing else needs it
FINISHED = ("config.json", "history.csv", MODEL, "predictions.npz", "env.json", "metrics.json")
SUMS = "SHA256SUMS"
CHECKPOINTS = ("checkpoint.pt", "previous.pt")


class DamagedRun(ValueError):
    """A finished run whose files are not what was written."""


def without_pause(parts: Generator):
    """What a generator returns at its end."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return end.value


class Folder:
    """The folder of one run. Files appear whole or not at all; `locked` lets one process at a time train the run."""

    def __init__(self, run: Run, outputs="outputs"):
        self.run, self.path = run, check_folder("outputs", outputs) / "runs" / run.id
        self.sums: dict[str, str] = {}  # of what this object wrote

    @property
    def done(self) -> bool:
        return (self.path / SUMS).is_file()

    @property
    def sound(self) -> bool:
        """Whether the run is finished and its files are those that were written."""
        return self.done and not self.damage()

    def damage(self) -> dict[str, str]:
        """What is wrong with a finished run: names of files and what is wrong with them. Empty if nothing is."""
        files = [self.path / name for name in (SUMS, *FINISHED)]
        stats = [file.stat() if file.is_file() else None for file in files]
        times = tuple(stat and (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for stat in stats)
        return damage(self.path, self.run, times)

    def set_damage_aside(self, say=print) -> None:
        """Move damaged files of a finished run to *.damaged, after which the run is no longer finished; and say so. The same
        with files that no sums and no checkpoint vouch for."""
        wrong = self.damage() if self.done else {}
        # Beside a checkpoint, what was being written when training was stopped is written anew.
        if not self.done and not any((self.path / name).is_file() for name in CHECKPOINTS):
            unsealed = [name for name in FINISHED[2:] if (self.path / name).is_file()]
            wrong = dict.fromkeys(unsealed, f"is of an older format, or its {SUMS} was lost")
        for name, why in wrong.items():
            aside = f"moved aside as {self.move_aside(name)} and " if (self.path / name).exists() else ""
            say(f"{self.path / name} {why}; it is {aside}made again")
        if wrong:
            (self.path / SUMS).unlink(missing_ok=True)

    def move_aside(self, name: str) -> str:
        """Rename a damaged file to the first free one of name.damaged, name.damaged2, …, and return that name."""
        numbers = itertools.chain([""], itertools.count(2))
        aside = next(free for number in numbers if not (free := self.path / f"{name}.damaged{number}").exists())
        return (self.path / name).replace(aside).name

    def locked(self, say=print) -> Generator:
        """The lock of whoever trains this run, freed by the system when the holder ends, however it ends. A pause for others as
        long as another process has it: who waited with other runs' locks in hand could wait for ever, for one who waits for
        those. OSError where nothing can be written."""
        lock, said = FileLock(self.path / "lock"), False
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                return lock.acquire(timeout=0)
            except Timeout:
                if not said:
                    say(f"{self.run.id} is being trained by another process; waiting for it")
            except OSError as error:
                raise type(error)(
                    f"{self.path} cannot be written ({error.strerror}); give an outputs folder that can be"
                ) from None
            said = True
            time.sleep(0.05)
            yield

    def remove_parts(self) -> None:
        """Of files that whoever trained this run before was writing when it was killed. For who holds the lock."""
        for name in (*FINISHED, *CHECKPOINTS, SUMS):
            for part in self.path.glob(f"{name}.*.part"):
                part.unlink()

    def write(self, name: str, content: bytes | str) -> None:
        content = content.encode() if isinstance(content, str) else content
        write_file(self.path / name, content)
        self.sums[name] = sha256(content)

    def write_json(self, name: str, content: dict) -> None:
        self.write(name, json.dumps(content, indent=1) + "\n")

    def seal(self) -> None:
        """Say that the run is finished: the sums of its files, as this object wrote them, or else as they can be read."""
        sums = {name: self.sums.get(name) or sha256((self.path / name).read_bytes()) for name in FINISHED}
        self.write(SUMS, "".join(f"{value}  {name}\n" for name, value in sums.items()))

    def save_checkpoint(self, state: dict) -> None:
        """The state, with the run that it is of, behind the SHA-256 of both; the last one stays as previous.pt."""
        buffer = io.BytesIO()
        torch.save(state | {"run": self.run.id}, buffer)
        content = buffer.getvalue()
        last, previous = (self.path / name for name in CHECKPOINTS)
        if last.is_file():
            os.replace(last, previous)
        self.write(last.name, bytes.fromhex(sha256(content)) + content)
        self.write_history(state)

    def write_history(self, state: dict) -> None:
        self.write("history.csv", pd.DataFrame(state["history"]).to_csv(index=False))

    def load_checkpoint(self, say=print) -> dict | None:
        """The last good state; None if there is none. A file that is damaged or another run's is moved aside, and said."""
        for name in CHECKPOINTS:
            if not (self.path / name).is_file():
                continue
            content = (self.path / name).read_bytes()
            why = "is damaged, or of an older format"
            if content[:32].hex() == sha256(content[32:]):
                try:
                    state = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
                    if state["run"] == self.run.id:
                        return state
                    why = f"is of run {state['run']}"
                except Exception as error:  # torch raises many kinds for what is no checkpoint, or is code
                    why = f"is no checkpoint ({type(error).__name__})"
            aside = self.move_aside(name)
            say(f"{self.path / name} {why}; it is moved aside as {aside}, and training goes on from an earlier state")
        return None

    def save_model(self, state_dict: dict) -> None:
        self.write(MODEL, save({name: t.contiguous().cpu() for name, t in state_dict.items()}))

    @property
    def epochs(self) -> int:
        """How many epochs have been trained so far; all of them for a finished run, even if it stopped early."""
        if self.done:
            return self.run.epochs
        history = self.path / "history.csv"
        return max(0, history.read_bytes().count(b"\n") - 1) if history.is_file() else 0

    def write_files(self, files: dict[str, bytes]) -> None:
        """A run that was finished elsewhere."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in FINISHED:
            self.write(name, files[name])
        self.seal()


def read_sums(path: Path) -> dict[str, str]:
    try:
        return dict(reversed(line.split("  ")) for line in (path / SUMS).read_text().splitlines())
    except (OSError, ValueError):
        return {}


@functools.lru_cache(maxsize=10_000)
def damage(path: Path, run: Run, stats: tuple) -> dict[str, str]:
    """What Folder.damage says; files with the same size, time and inode as before (`stats`) are not read again."""
    sums = read_sums(path)
    if sums.keys() != set(FINISHED):
        return {SUMS: "does not name the files of a finished run"}
    wrong = {}
    for name in FINISHED:
        try:
            content = (path / name).read_bytes()
        except OSError:
            if not (name == MODEL and run.model == "cnn"):
                wrong[name] = "is missing"
            continue
        if sha256(content) != sums[name]:
            wrong[name] = f"is not what was written (its SHA-256 is not the one in {SUMS})"
    if wrong:
        return wrong
    if getattr(read_run(path), "id", None) != run.id:
        return {"config.json": "is of another run"}
    try:
        written = json.loads((path / "metrics.json").read_text())["splits"]
        with np.load(path / "predictions.npz", allow_pickle=False) as arrays:
            for split in run.splits:
                right, given = (arrays[f"{split}_{name}"].astype(int) for name in ("labels", "predictions"))
                counts = np.bincount(right * run.classes + given, minlength=run.classes**2).reshape(run.classes, -1)
                f1 = 2 * counts.diagonal() / np.maximum(counts.sum(0) + counts.sum(1), 1)
                scores = {"accuracy": counts.trace() / counts.sum(), "macro_f1": f1.mean()}
                if not all(abs(written[split][name] - value) <= 1e-9 for name, value in scores.items()):  # NaN is not
                    return {"metrics.json": "has scores that predictions.npz does not give"}
    except Exception as error:  # json, numpy, zipfile and zlib raise many kinds
        return {"predictions.npz": f"cannot be held against metrics.json ({type(error).__name__})"}
    return {}


class Result:
    """What a finished run left. FileNotFoundError if it is not finished, DamagedRun if its files are not what was written: a
    result is never made up."""

    def __init__(self, run: Run, outputs="outputs"):
        folder = Folder(run, outputs)
        self.run, self.path = run, folder.path
        if not folder.done:
            raise FileNotFoundError(f"run {run.id} is not finished in {Path(outputs) / 'runs'}; train it with fit(run)")
        for name, why in folder.damage().items():
            raise DamagedRun(f"{self.path / name} {why}; fit(run) makes it again")

    @cached_property
    def metrics(self) -> dict:
        return json.loads((self.path / "metrics.json").read_text())

    @cached_property
    def history(self) -> pd.DataFrame:
        """Columns epoch, lr, train_loss, train_accuracy (while training, augmented), val_loss, val_accuracy,
        seconds (training only), eval_seconds, q01, q20, q80, q99 (validation features)."""
        return pd.read_csv(self.path / "history.csv")

    @cached_property
    def env(self) -> dict:
        return json.loads((self.path / "env.json").read_text())

    @cached_property
    def predictions(self) -> dict[str, np.ndarray]:
        """`<split>_labels` and `<split>_predictions`, int16 (N,), for each of run.splits."""
        with np.load(self.path / "predictions.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    def scored(self, split: str) -> str:
        """The split, if the run was scored on it; else ValueError."""
        if split not in self.run.splits:
            raise ValueError(f"run {self.run.id} is a probe, scored on {' and '.join(self.run.splits)} images, not on {split}")
        return split

    def correct(self, split: str = "test") -> np.ndarray:
        """Whether each image of the split was classified rightly, bool (N,). ValueError for the test images of a probe."""
        split = self.scored(split)
        return self.predictions[f"{split}_labels"] == self.predictions[f"{split}_predictions"]

    def score(self, name: str = "accuracy", split: str = "test") -> float:
        """accuracy, micro_f1, macro_f1 (fractions) or loss. ValueError for the test images of a probe."""
        return self.metrics["splits"][self.scored(split)][name]

    @property
    def best_epoch(self) -> int:
        return self.metrics["best_epoch"]

    @property
    def diverged(self) -> bool:
        return self.metrics["status"] == "diverged"

    @property
    def collapsed(self) -> bool:
        """Whether it learned something and lost it: validation accuracy was above chance, the share of the most frequent class
        plus two standard errors, and is not in the last epoch. The loss of such a run may be a number throughout."""
        counts = np.bincount(self.predictions["val_labels"])
        share = counts.max() / counts.sum()
        chance = share + 2 * np.sqrt(share * (1 - share) / counts.sum())
        accuracy = self.history["val_accuracy"]
        return bool(accuracy.iloc[-1] <= chance < accuracy.max())

    @property
    def failed(self) -> bool:
        """Whether it diverged or collapsed: what it had learned by its best epoch is no training to compare."""
        return self.diverged or self.collapsed

    @property
    def has_model(self) -> bool:
        return (self.path / MODEL).is_file()

    def model(self) -> nn.Module:
        """The network with the weights of the best validation epoch, in eval mode. FileNotFoundError if `has_model` is not."""
        if not self.has_model:
            raise FileNotFoundError(f"{self.path} has no {MODEL}; delete {SUMS} there and train the run again for it")
        model = network(self.run)
        model.load_state_dict(load_file(self.path / MODEL))
        return model.eval()


def find(run: Run, outputs="outputs") -> Result | None:
    """The finished run; None if it is not finished or damaged."""
    try:
        return Result(run, outputs)
    except (FileNotFoundError, DamagedRun):
        return None


def stored(outputs="outputs", say=print) -> list[Result]:
    """Every finished run of the store, in the order of their ids. Runs of other versions of the code are left out; damaged
    ones are too, and said."""
    finished = []
    for path in sorted(file.parent for file in (Path(outputs) / "runs").glob(f"*/{SUMS}")):
        run, config = read_run(path), path / "config.json"
        if run and run.id == path.name:
            try:
                finished.append(Result(run, outputs))
            except FileNotFoundError:  # just now, by another process that makes it again
                pass
            except DamagedRun as error:
                say(f"left out of the results: {error}")
        elif not config.is_file() or sha256(config.read_bytes()) != read_sums(path).get(config.name):
            say(f"left out of the results: {config} is not what was written")
    return finished


def read_run(path: Path) -> Run | None:
    """The run that a folder's config.json describes; None if it is damaged or lacks a field of this code's Run."""
    try:
        config = json.loads((path / "config.json").read_text())
        return Run(**{f.name: config[f.name] for f in fields(Run) if f.name in config or f.name not in LATER_FIELDS})
    except (OSError, ValueError, TypeError, KeyError):
        return None


PROBES = "probes.txt"  # ids of probes from before Run had the field `probe`, whose test images were scored too
SCORES = ["loss", "accuracy", "micro_f1", "macro_f1"]


def results(finished: list[Result], outputs) -> pd.DataFrame:
    """One row per run and split: its scores (accuracy and F1 as fractions; none of a diverged run), and every field of the Run.
    What was only tried for a choice has no row for the test images; PROBES in `outputs` names the older of those."""
    rows, probes = [], Path(outputs) / PROBES
    tried = probes.read_text().split() if probes.is_file() else []
    for result in finished:
        run, about = result.run, {"best_epoch": result.best_epoch, "status": result.metrics["status"]}
        about |= {"device": result.env["device"], "code": run.code} | asdict(run) | {"dataset": run.data_name}
        for split in run.splits:
            if split != "test" or run.id not in tried:
                scores = {name: np.nan if result.diverged else result.score(name, split) for name in SCORES}
                rows.append({"run_id": run.id, "split": split} | scores | about)
    return pd.DataFrame(rows)


def write_results(outputs="outputs", must: bool = True) -> None:
    """outputs/results.csv from every finished run of the store; it is left alone if it says that already. OSError where it
    cannot be written, if it `must` be: a folder that is only read need not be writable."""
    file = Path(outputs) / "results.csv"
    try:
        with FileLock(file.with_suffix(".lock")):  # so that no writer replaces a newer table by its older one
            content = results(stored(outputs), outputs).to_csv(index=False).encode()
            if not file.is_file() or file.read_bytes() != content:
                write_file(file, content)
    except OSError:
        if must:
            raise
