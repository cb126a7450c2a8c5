"""fit(run): train it, resume it, or return it at once when it is done."""

import io
import math
import sys
import time
from argparse import BooleanOptionalAction
from collections.abc import Generator
from dataclasses import asdict, fields, replace

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from lib import data as data_module
from lib import metrics
from lib.engine import files, machine, store, weights
from lib.engine.commands import Parser, command
from lib.engine.store import Folder, Result, without_pause
from lib.networks import CNN, network
from lib.norms import gates, keep_gates
from lib.resnet import ResNet
from lib.run import Run
from lib.trainer import Trainer, learning_rate, loss_of


def fit(run: Run, outputs="outputs", data_dir="data", device=None, progress: bool = True, data=None) -> Result:
    """The finished run. What was trained before, to the end or to some epoch, is not trained again; what was damaged since is.

    `data` is what `load_data(run, data_dir)` gives, if it is at hand already. A CPU trains it on one thread: the number of
    threads changes the rounding, and so the same Run is the same bit for bit however many are trained at a time. ValueError for
    data that do not fit the run, before anything is trained; OSError where files cannot be written or a GPU has too little
    memory; what is complete stays.
    """
    outputs, data_dir = files.check_folder("outputs", outputs), files.check_folder("data_dir", data_dir)
    stored = store.find(run, outputs)
    result = stored or train_to_end(run, outputs, data_dir, device, progress, data)
    store.write_results(outputs, must=not stored)
    return result


def train_to_end(run: Run, outputs, data_dir, device=None, progress: bool = False, data=None, start=None) -> Result:
    """The finished run, trained now as far as it must be; one process at a time. `start`: its first weights, if known."""
    device = machine.check_device(device)
    with machine.prepared(device):
        without_pause(training(run, outputs, data or load_data(run, data_dir), device, progress, start))
    return Result(run, outputs)


def training(
    run: Run, outputs, data: data_module.Data, device: torch.device, progress: bool, start: dict | None, at_once: int = 1
) -> Generator:
    """`train_to_end` on a device that is prepared, with a pause wherever another of `at_once` trainings may have its turn."""
    start = weights.initial_weights(run, outputs) if start is None else start
    folder = Folder(run, outputs)
    with (yield from folder.locked(say=tqdm.write)):
        folder.set_damage_aside(say=tqdm.write)
        folder.remove_parts()
        if not folder.done:
            yield from train(run, data.to(device), folder, device, progress, start, at_once)


def load_data(run: Run, data_dir) -> data_module.Data:
    """The data that this run sees. ValueError if they are not those it was made for, or it cannot be trained on them."""
    data = data_module.load(run.dataset, data_dir, run.split_seed, run.train_size, run.only_classes)
    check_data(run, data)
    if run.data_hash != data_module.fingerprint(run.dataset):
        raise ValueError(f"the files of {run.dataset} are not those of run {run.id}; make the Run anew from the folder")
    return data


def check_data(run: Run, data: data_module.Data) -> None:
    """ValueError if the run cannot be trained on these data."""
    if run.classes != len(data.classes):
        raise ValueError(f"classes (r) is {run.classes}, but {run.data_name} has {len(data.classes)} classes; give that number")
    height, width = data.train.images.shape[2:]
    part = run.ghost_batch or run.batch_size
    one_image = 1 in [size % part or part for size in (run.batch_size, len(data.train) % run.batch_size) if size]
    left = f"{len(data.train)} images in batches of {part} leave a batch of one image"
    if run.model == "cnn":
        if min(height, width) < CNN.least:
            raise ValueError(f"the images are {height}×{width}; the CNN takes {CNN.least}×{CNN.least} and larger ones")
        if run.norm == "torch_bn" and one_image:
            raise ValueError(f"{left}, which has no variance after the second linear layer; give another batch_size")
    if run.model == "resnet":
        if height % ResNet.stride or width % ResNet.stride:
            raise ValueError(f"the images are {height}×{width}; both sides must be multiples of {ResNet.stride}")
        one_pixel = height == width == ResNet.stride  # in the last maps
        if one_pixel and run.norm in ("in", "bin"):
            raise ValueError(f"the last maps have one pixel, so {run.norm} has no variance to divide by; give larger images")
        if one_pixel and one_image and run.norm in ("bn", "torch_bn"):
            said = f"{left}, and the last maps have one pixel, so {run.norm} has no variance to divide by"
            raise ValueError(f"{said}; give another batch_size or larger images")


def new_model(run: Run) -> nn.Module:
    """The network with its initial weights, which the seed decides: the same for every norm, but not without one, where the
    convolutions' biases draw from the same random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(run.seed)  # and no GPU's, which fork_rng would not set back
        return network(run)


def new_optimizer(run: Run, model: nn.Module) -> torch.optim.Optimizer:
    """SGD or Adam; BIN's gates learn `gate_lr` times as fast, are not decayed, and stay in [0, 1]."""
    rhos = list(gates(model).values())
    others = [p for p in model.parameters() if all(p is not rho for rho in rhos)]
    bare = [] if run.bias_decay else [p for p in others if p.ndim == 1]  # γ, β and biases
    decayed = [p for p in others if run.bias_decay or p.ndim > 1]
    parts = ((decayed, run.weight_decay, 1.0), (bare, 0.0, 1.0), (rhos, 0.0, run.gate_lr))
    groups = [{"params": part, "weight_decay": decay, "lr_scale": scale} for part, decay, scale in parts if part]
    if run.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=run.lr, momentum=run.momentum, fused=True)
    else:
        # capturable: a CUDA graph may hold the step. On a CPU the word has no meaning and must be off.
        optimizer = torch.optim.Adam(groups, lr=run.lr, fused=True, capturable=others[0].is_cuda)
    keep_gates(model, optimizer)
    return optimizer


def train(
    run: Run, data: data_module.Data, folder: Folder, device: torch.device, progress: bool, start: dict, at_once: int
) -> Generator:
    """Every epoch that is missing, each with its checkpoint, then the scores; with pauses as in `training`."""
    folder.write_json("config.json", asdict(run) | {"code_version": run.code})
    model = new_model(run)
    weights.start_from(model, start, data)
    model.to(device, memory_format=torch.channels_last)
    optimizer = new_optimizer(run, model)
    state = folder.load_checkpoint(say=tqdm.write)
    if state is None:
        state = {"epoch": 0, "best_epoch": 0, "best": cpu_copy(model), "history": [], "diverged": False}
    else:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    state["environment"] = machine.together(state.get("environment"), machine.environment(device, at_once))

    trainer = Trainer(run, model, optimizer, data)
    done, total = (epochs * trainer.steps for epochs in (state["epoch"], run.epochs))
    bar = tqdm(total=total, initial=done, desc=run.id, unit="batch", disable=not progress)
    with bar:
        while not is_over(run, state):
            epoch = state["epoch"] + 1
            row = {"epoch": epoch, "lr": learning_rate(run, epoch - 0.5)}
            row |= yield from trainer.paused_epoch(epoch, bar)
            evaluating = time.perf_counter()
            val = evaluate(model, data, data.val, run.criterion)
            row |= {"val_loss": val["loss"], "val_accuracy": val["accuracy"]}
            row |= {"eval_seconds": time.perf_counter() - evaluating} | metrics.quantiles(val["features"])
            state["history"].append(row)
            bar.set_postfix_str(
                f"epoch {epoch}/{run.epochs} loss {row['train_loss']:.3f} val {row['val_loss']:.3f} "
                f"accuracy {row['train_accuracy']:.3f} val {row['val_accuracy']:.3f}"
            )
            state["diverged"] = not (math.isfinite(row["train_loss"]) and math.isfinite(row["val_loss"]))
            best = max((r["val_accuracy"] for r in state["history"][:-1]), default=-1.0)
            if row["val_accuracy"] > best and not state["diverged"]:
                state |= {"best": cpu_copy(model), "best_epoch": epoch}
            state |= {"epoch": epoch, "model": cpu_copy(model), "optimizer": optimizer.state_dict()}
            folder.save_checkpoint(state)
    finish(run, model, data, folder, state)


def is_over(run: Run, state: dict) -> bool:
    """Whether all epochs are trained, or patience or the loss ended it before."""
    stopped = run.patience is not None and state["epoch"] - state["best_epoch"] >= run.patience
    return state["epoch"] >= run.epochs or stopped or state["diverged"]


def cpu_copy(model: nn.Module) -> dict:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def evaluate(model: nn.Module, data: data_module.Data, split: data_module.Split, criterion: str = "cross_entropy") -> dict:
    """Mean loss, accuracy, predictions (N,) and penultimate features (N, channels) of a split, in eval mode and float32."""
    model.eval()
    features, logits = [], []
    for x in data_module.eval_batches(data, split):
        f = model.features(x.contiguous(memory_format=torch.channels_last))
        features.append(f)
        logits.append(model.linear(f))
    features, logits = torch.cat(features), torch.cat(logits)
    predictions = logits.argmax(1)
    return {
        "loss": loss_of(logits, split.labels, criterion).item(),
        "accuracy": (predictions == split.labels).double().mean().item(),
        "predictions": predictions.cpu().numpy(),
        "features": features.cpu().numpy(),
    }


def finish(run: Run, model, data, folder: Folder, state: dict) -> None:
    """Score the best epoch's weights on the three splits, a probe's on two. The test split is read here, once, and nowhere
    before."""
    model.load_state_dict(state["best"])
    splits, arrays = {}, {}
    for name in run.splits:
        split = getattr(data, name)
        scored = evaluate(model, data, split, run.criterion)
        labels = split.labels.cpu().numpy()
        splits[name] = {"loss": scored["loss"]} | metrics.scores(labels, scored["predictions"], run.classes)
        arrays |= {f"{name}_labels": labels.astype(np.int16), f"{name}_predictions": scored["predictions"].astype(np.int16)}
    folder.write_history(state)  # once more: the last stop may have come between it and its checkpoint
    folder.save_model(state["best"])
    compressed = io.BytesIO()
    np.savez_compressed(compressed, **arrays)
    folder.write("predictions.npz", compressed.getvalue())
    folder.write_json("env.json", state["environment"])
    status, seconds = "diverged" if state["diverged"] else "done", sum(row["seconds"] for row in state["history"])
    about = {"status": status, "best_epoch": state["best_epoch"], "epochs_run": state["epoch"], "train_seconds": seconds}
    folder.write_json("metrics.json", about | {"splits": splits})
    folder.seal()


@command
def main(argv=None) -> int:
    """One run from the command line: every field of Run is an option."""
    parser = Parser("lib.train", "Train one run, or go on with it.", "data-dir", "outputs")
    for field in fields(Run):
        kind = next(kind for kind in (bool, int, float, str) if kind.__name__ in str(field.type))
        how = {"action": BooleanOptionalAction} if kind is bool else {"type": kind}
        parser.add_argument(f"--{field.name.replace('_', '-')}", **how, default=None, help=f"default: {field.default}")
    parser.add_argument("--device", help="cpu, cuda or cuda:1 (default: the GPU if there is one)")
    options = vars(parser.parse_args(argv))
    outputs, data_dir, device = (options.pop(name) for name in ("outputs", "data_dir", "device"))
    given = {name: value for name, value in options.items() if value is not None}
    run = Run(**data_module.own_augmentation(given.get("dataset", Run.dataset)) | given)
    run = replace(run, data_hash=data_module.fingerprint(run.dataset))
    result = fit(run, outputs, data_dir, device)
    split = run.splits[-1]
    accuracy = "diverged" if result.diverged else f"{split} accuracy {result.score(split=split):.4f}"
    print(f"{run.id}: {accuracy}, best epoch {result.best_epoch}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
