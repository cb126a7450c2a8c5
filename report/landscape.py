"""How smooth the loss is along the gradient, and how long the weights are, epoch by epoch: section 13.

    python -m report.landscape --data-dir data

After Santurkar et al. 2018, figure 4: from the weights at the end of an epoch we go along the gradient of a batch by steps
around the learning rate, and look at the loss and the gradient there. A run is trained once more for it, in memory, exactly as
before; what was found lies beside the run as landscape.csv.
"""

import copy
import sys
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from lib.data import Data
from lib.engine import machine, store
from lib.engine.commands import Parser, command
from lib.engine.store import Result
from lib.facts import place
from lib.run import Run
from lib.scoring import kept, known
from lib.train import new_model, new_optimizer
from lib.trainer import Trainer, learning_rate, loss_of
from report import probes

STEPS = (0.25, 0.5, 1.0, 2.0, 4.0)  # in learning rates
FILE = "landscape.csv"
FOLLOWED = ("bn", "in", "bin", "ln", "gn", "nn")
BATCHES = 5  # of training images as they are, the same after every epoch


def landscape(result: Result, data: Data) -> pd.DataFrame:
    """A row for each epoch, batch and step: epoch, batch, rate (the learning rate in the middle of the epoch), step (in rates),
    loss at the start and `moved` loss there, `change` (by how much the gradient differs there, in lengths of the first one),
    and the length of every convolution's weights, the columns `|conv1|`, … in forward order."""
    return kept(result, FILE, lambda: follow(result.run, data))


def follow(run: Run, data: Data) -> pd.DataFrame:
    """`landscape` without a look at what was kept."""
    with machine.prepared(torch.device("cpu")):
        model = new_model(run).to(memory_format=torch.channels_last)
        trainer, rows = Trainer(run, model, new_optimizer(run, model), data), []
        count = min(BATCHES, len(data.train) // run.batch_size)
        batches = [data.train.take(slice(i * run.batch_size, (i + 1) * run.batch_size)) for i in range(count)]
        for epoch in range(1, run.epochs + 1):
            trainer.epoch(epoch, tqdm(disable=True))
            rate = learning_rate(run, epoch - 0.5)
            lengths = {f"|{name}|": length for name, length in weight_lengths(model).items()}
            for number, split in enumerate(batches):
                x = data.normalize(split.images).contiguous(memory_format=torch.channels_last)
                found = along_the_gradient(model, x, split.labels, run.criterion, [step * rate for step in STEPS])
                head = {"epoch": epoch, "batch": number, "rate": rate}
                rows += [head | {"step": step} | row | lengths for step, row in zip(STEPS, found, strict=True)]
    return pd.DataFrame(rows)


def weight_lengths(model: nn.Module) -> dict[str, float]:
    """Convolution -> the Euclidean length of its weights, in forward order."""
    return {name: module.weight.norm().item() for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def along_the_gradient(model: nn.Module, x: Tensor, y: Tensor, criterion: str, lengths: list[float]) -> list[dict]:
    """For each step of so many gradients down from the model's weights: loss at the start, `moved` loss there, and `change`.
    The model, in training mode for batch norm's sake, stays as it is."""
    model = copy.deepcopy(model).train()
    start = [p.detach().clone() for p in model.parameters()]
    loss, gradient = slope(model, x, y, criterion)
    whole, rows = torch.cat([g.flatten() for g in gradient]).norm(), []
    for length in lengths:
        with torch.no_grad():
            for p, w, g in zip(model.parameters(), start, gradient, strict=True):
                p.copy_(w - length * g)
        moved, other = slope(model, x, y, criterion)
        difference = torch.cat([(a - b).flatten() for a, b in zip(other, gradient, strict=True)]).norm()
        rows.append({"loss": loss, "moved": moved, "change": (difference / whole).item()})
    return rows


def slope(model: nn.Module, x: Tensor, y: Tensor, criterion: str) -> tuple[float, list[Tensor]]:
    """The loss over a batch and its gradient, a tensor for each parameter."""
    loss = loss_of(model(x), y, criterion)
    return loss.item(), list(torch.autograd.grad(loss, list(model.parameters())))


def followed(outputs: Path) -> pd.DataFrame:
    """What is kept of the runs of `main`, with a column norm before the others; empty before any of them was followed."""
    runs = {norm: store.find(run, outputs) for norm in FOLLOWED for run in probes.short(norm, (0,))}
    frames = {norm: known(run, FILE) for norm, run in runs.items() if run}
    columns = ["norm", "epoch", "batch", "rate", "step", "loss", "moved", "change"]
    found = [frame.assign(norm=norm) for norm, frame in frames.items() if frame is not None]
    return pd.concat([pd.DataFrame(columns=columns), *found]) if found else pd.DataFrame(columns=columns, dtype=float)


def by_epoch(steps: pd.DataFrame) -> pd.DataFrame:
    """What `followed` says by norm and epoch: `change` (of the gradient after a step of one learning rate) and `rise` (of the
    loss after the longest step, nats), the mean over the batches; in how many batches that loss is above its start, `uphill`;
    and the `length` of all convolutions' weights together."""
    lengths = steps.filter(like="|")
    steps = steps.assign(length=lengths.pow(2).sum(axis=1).pow(0.5), rise=steps["moved"] - steps["loss"])
    one, longest = (steps[steps["step"] == step].groupby(["norm", "epoch"], sort=False) for step in (1, max(STEPS)))
    uphill = longest["rise"].agg(lambda rises: (rises > 0).sum())
    return one[["change", "length"]].mean().assign(rise=longest["rise"].mean(), uphill=uphill)


def effective_rates(steps: pd.DataFrame, epoch: int) -> pd.DataFrame:
    """How far a step turns each layer's weights, of which before a norm only the direction counts: from `followed`, the
    learning rate in the middle of an epoch over the square of the weights' length at its end, layer (a `place`, in forward
    order) × norm."""
    rows = steps[steps["epoch"] == epoch].groupby("norm", sort=False).first()
    lengths = rows.filter(like="|").rename(columns=lambda name: place(name.strip("|").replace("conv", "norm")))
    return lengths.pow(-2).mul(rows["rate"], axis=0).T


@command
def main(argv=None) -> int:
    args = Parser("report.landscape", __doc__, "data-dir", "outputs").parse_args(argv)
    study = probes.study_of(args.outputs, args.data_dir)
    for norm in FOLLOWED:
        ((result,),) = study.fit_all({norm: probes.short(norm, (0,))}).values()
        found = landscape(result, study.data())
        print(f"{norm}: {len(found)} steps beside {result.run.id}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
