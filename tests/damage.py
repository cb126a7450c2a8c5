"""The run store under attack: processes killed, files damaged, wrong input.

    python -m tests.damage --kills 100

ends with one line, from what it has just done: kills a/N identical, files b/c noticed, inputs d/e clear. Exit code 1 if one of
the three falls short.
"""

import argparse
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from lib import train
from lib.engine import files, store
from lib.engine.store import CHECKPOINTS, FINISHED, SUMS, Folder, Result
from lib.run import Run

TINY = Run(
    norm="bn", n=1, dataset="digits", train_size=64, batch_size=16, epochs=4, warmup_epochs=1, augment="crop",
    precision="float32",
)  # fmt: skip
KILLED = (TINY, replace(TINY, norm="bin", optimizer="adam", lr=0.01), replace(TINY, norm="torch_bn", patience=2, epochs=6))
MEASURED = ("seconds", "eval_seconds", "train_seconds")  # times, which no two runs have in common


def everything(result: Result) -> dict:
    """All that a finished run consists of, except how long it took and where."""
    with_times = result.metrics
    return {
        "table": store.results([result], result.path.parents[1]).to_csv(),
        "files": sorted(file.name for file in result.path.iterdir() if file.name not in ("lock", *CHECKPOINTS)),
        "config": (result.path / "config.json").read_bytes(),
        "history": result.history.drop(columns=[name for name in MEASURED if name in result.history]).to_csv(),
        "weights": (result.path / "best.safetensors").read_bytes(),
        "predictions": {name: array.tobytes() for name, array in result.predictions.items()},
        "metrics": {name: value for name, value in with_times.items() if name not in MEASURED},
    }


# Kills


@dataclass(frozen=True)
class Kill:
    """When a process dies: at its `nth` write of a file, or (nth 0) `after` so many seconds of training."""

    nth: int = 0
    moment: str = ""  # half: of the file is written; unnamed: the whole file, but not under its name; named: right after that
    after: float = 0.0


def train_and_die(run: Run, outputs: Path, kill: Kill, started) -> None:
    """What the process does that is to be killed."""
    writes = 0

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    real_fsync, real_write = os.fsync, Folder.write

    def fsync(descriptor):
        if writes == kill.nth and kill.moment == "half":
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die()
        real_fsync(descriptor)
        if writes == kill.nth and kill.moment == "unnamed":
            die()

    def write(self, name, content):
        nonlocal writes
        writes += 1
        real_write(self, name, content)
        if writes == kill.nth and kill.moment == "named":
            die()

    os.fsync, Folder.write = fsync, write
    started.set()
    train.fit(run, outputs, progress=False)


def some_kill(rng: random.Random, writes: int, seconds: float) -> Kill:
    if rng.random() < 0.5:
        return Kill(after=rng.uniform(0, seconds))
    return Kill(rng.randint(1, writes), rng.choice(["half", "unnamed", "named"]))


def killed_runs(kills: int, folder: Path, seed: int = 0, say=print) -> tuple[int, int]:
    """Kill processes that train, `kills` times, and start them again until their runs are finished. How many of the kills were
    survived: their runs are in every byte what they are undisturbed; and the number of kills."""
    rng = random.Random(seed)
    context = get_context("forkserver")  # a clean process that has imported everything: its children start at once
    context.set_forkserver_preload(["lib.train"])
    whole, seconds = {}, {}
    for run in KILLED:
        start, started = time.perf_counter(), context.Event()
        process = context.Process(target=train_and_die, args=(run, folder / "whole", Kill(), started))
        process.start()
        process.join()
        whole[run], seconds[run] = everything(Result(run, folder / "whole")), time.perf_counter() - start
    survived = done = number = 0
    while done < kills:
        run, outputs = KILLED[number % len(KILLED)], folder / str(number)
        here, number, stuck = 0, number + 1, 0
        while not Folder(run, outputs).done:
            kill = some_kill(rng, 2 * run.epochs + len(FINISHED) + 1, seconds[run]) if done + here < kills else Kill()
            started = context.Event()
            process = context.Process(target=train_and_die, args=(run, outputs, kill, started))
            process.start()
            if kill.after:
                started.wait()
                process.join(kill.after)
                process.kill()
            process.join()
            here += process.exitcode == -signal.SIGKILL
            stuck = 0 if process.exitcode in (0, -signal.SIGKILL) else stuck + 1
            if stuck == 3:
                break
        done += here
        same = Folder(run, outputs).done and everything(train.fit(run, outputs, progress=False)) == whole[run]
        survived += here if same else 0
        say(f"kills {done}/{kills}: run {number} ({run.norm}) killed {here} times, {'identical' if same else 'NOT identical'}")
        shutil.rmtree(outputs, ignore_errors=True)
    return survived, done


# Damaged files


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def swap(file: Path) -> None:
    """The same file of another run, which `other_run` put there."""
    shutil.copy(file.parent.parent.parent / "other" / "runs" / OTHER.id / file.name, file)


def lose(file: Path) -> None:
    file.unlink()


def older_format(file: Path) -> None:
    """A checkpoint as torch.save alone writes it."""
    torch.save({"epoch": 2}, file)


class Payload:
    """What pickle would run on loading."""

    def __reduce__(self):
        return os.system, (f"touch {PAYLOAD}",)


PAYLOAD = Path(tempfile.gettempdir()) / f"payload-{os.getpid()}"


def payload(file: Path) -> None:
    """A pickle that runs a command, behind the right SHA-256."""
    buffer = io.BytesIO()
    torch.save({"run": TINY.id, "model": Payload()}, buffer)
    file.write_bytes(bytes.fromhex(files.sha256(buffer.getvalue())) + buffer.getvalue())


def edit_metrics(file: Path) -> None:
    """A better score than the predictions give, with sums that fit."""
    file.write_text(file.read_text().replace('"macro_f1": 0.', '"macro_f1": 0.9', 1))
    Folder(TINY, file.parent.parent.parent).seal()


def edit_config(file: Path) -> None:
    """Another run's settings, with sums that fit."""
    swap(file)
    Folder(TINY, file.parent.parent.parent).seal()


def object_array(file: Path) -> None:
    """Predictions as pickled objects, with sums that fit: numpy would run them on loading."""
    np.savez(file, test_labels=np.array([Payload()], dtype=object))
    Folder(TINY, file.parent.parent.parent).seal()


OTHER = replace(TINY, seed=1)
FINISHED_DAMAGE = [(name, harm) for name in (*FINISHED, SUMS) for harm in (cut, flip, empty, swap, lose)]
FINISHED_DAMAGE.remove(("env.json", swap))  # the same file: both runs were made here
FINISHED_DAMAGE += [("metrics.json", edit_metrics), ("config.json", edit_config), ("predictions.npz", object_array)]
CHECKPOINT_DAMAGE = [(name, harm) for name in CHECKPOINTS for harm in (cut, flip, empty, swap, older_format, payload)]


@dataclass
class Store:
    """A finished and a half-trained run to damage copies of."""

    folder: Path
    whole: dict

    @classmethod
    def prepare(cls, folder: Path) -> "Store":
        for run, name in ((TINY, "finished"), (OTHER, "other")):
            train.fit(run, folder / name, progress=False)
        shutil.copytree(folder / "other", folder / "finished" / "other")
        shutil.copytree(folder / "finished", folder / "half")
        half = Folder(TINY, folder / "half").path
        state = Folder(TINY, folder / "half").load_checkpoint()
        for file in half.iterdir():
            if file.name in (*FINISHED[2:], SUMS):
                file.unlink()
        assert state["epoch"] == TINY.epochs
        return cls(folder, everything(Result(TINY, folder / "finished")))

    def noticed(self, kind: str, name: str, harm: Callable[[Path], None]) -> str:
        """Damage a copy. "" if that was said, no wrong number given, and the run made again as it was; else what was not so."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder / kind, copy)
        folder = Folder(TINY, copy)
        harm(folder.path / name)
        if name == CHECKPOINTS[1]:  # which is read only where the last one cannot be
            cut(folder.path / CHECKPOINTS[0])
        said: list[str] = []
        if kind == "finished":
            try:
                Result(TINY, copy)
                return "the damaged run was given as a result"
            except (store.DamagedRun, FileNotFoundError):
                pass
            if any(result.run == TINY for result in store.stored(copy, said.append)):
                return "the damaged run was put into the table of results"
        say, tqdm_write = said.append, train.tqdm.write
        train.tqdm.write = say
        try:
            again = train.fit(TINY, copy, progress=False)
        finally:
            train.tqdm.write = tqdm_write
        if PAYLOAD.exists():
            PAYLOAD.unlink()
            return "code in the file was run"
        made = everything(again)
        made["files"] = [file for file in made["files"] if ".damaged" not in file]
        if made != self.whole:
            return "the run made again is another"
        if not any(name in sentence for sentence in said) and (name, harm) != (
            SUMS,
            lose,
        ):  # then it is not finished, that is all
            return f"nothing was said of {name}"
        return ""


def damaged_files(folder: Path, say=print) -> tuple[int, int]:
    """How many damaged files were noticed, and how many there were."""
    store = Store.prepare(folder)
    cases = [("finished", *case) for case in FINISHED_DAMAGE] + [("half", *case) for case in CHECKPOINT_DAMAGE]
    failures = {f"{name}, {harm.__name__}": store.noticed(kind, name, harm) for kind, name, harm in cases}
    for case, why in failures.items():
        if why:
            say(f"{case}: {why}")
    return sum(not why for why in failures.values()), len(failures)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="processes to kill (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which they are killed (default: 0)")
    args = parser.parse_args(argv)
    if args.kills < 1:
        parser.error(f"kills is {args.kills}; it must be an integer of at least 1")
    from tests import bad_inputs

    with tempfile.TemporaryDirectory() as folder:
        survived, killed = killed_runs(args.kills, Path(folder) / "kills", args.seed)
        noticed, planted = damaged_files(Path(folder) / "files")
        clear, given = bad_inputs.answered(Path(folder) / "inputs")
    print(f"kills {survived}/{killed} identical, files {noticed}/{planted} noticed, inputs {clear}/{given} clear")
    return 0 if (survived, noticed, clear) == (killed, planted, given) else 1


if __name__ == "__main__":
    sys.exit(main())
