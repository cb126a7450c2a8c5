"""Trainer: the epochs of a training, step by step; on a GPU compiled, and one CUDA graph a step."""

import gc
import math
import os
import time
from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from lib.data import ROOT, Data, epoch_plan, generator
from lib.engine.store import without_pause
from lib.run import Run

if os.access(ROOT, os.W_OK):  # before PyTorch chooses a place in /tmp, which most clusters clear
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ROOT / ".cache" / "inductor"))


def learning_rate(run: Run, epoch: float) -> float:
    """The learning rate at `epoch`, a fraction from 0 to `run.epochs`: linear warm-up, then the schedule."""
    if epoch < run.warmup_epochs:
        return run.lr * epoch / run.warmup_epochs
    if run.schedule == "cosine":
        share = (epoch - run.warmup_epochs) / max(run.epochs - run.warmup_epochs, 1e-9)
        return run.lr * 0.5 * (1 + math.cos(math.pi * min(share, 1)))
    if run.schedule == "step":  # He et al. 2016: divided by 10 after a half and after three quarters
        return run.lr * 0.1 ** sum(epoch >= part * run.epochs for part in (0.5, 0.75))
    return run.lr


class Trainer:
    """Training epochs of a run, on data that lie on the model's device.

    Everything that changes from step to step is a tensor on that device: the epoch's plan and learning rates and the number of
    the step. So no step waits for the CPU, and on a GPU one step, once captured as a CUDA graph, is all the others too.
    """

    eager_steps = 3  # before the capture: what PyTorch allocates or chooses at first use is then there
    turn = 250  # steps after which other trainings on the same GPU have their turn

    def __init__(self, run: Run, model: nn.Module, optimizer: torch.optim.Optimizer, data: Data):
        self.run, self.model, self.optimizer, self.data = run, model, optimizer, data.bordered(run.augment)
        self.count, self.steps = len(data.train), math.ceil(len(data.train) / run.batch_size)
        self.device = data.train.labels.device
        self.plan = torch.zeros(self.count, 6, dtype=torch.int64, device=self.device)
        self.lr = torch.zeros(self.steps, device=self.device)
        self.at = torch.zeros((), dtype=torch.int64, device=self.device)
        self.loss_sum, self.correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        self.graph, self.next_plan = None, None
        for group in optimizer.param_groups:
            group["lr"] = torch.zeros((), device=self.device)
            if "capturable" in group:  # a checkpoint brings that of the device it was written on
                group["capturable"] = self.device.type == "cuda"
        self.full_loss = self.loss  # of a batch of the usual size
        if self.device.type == "cuda" and self.count >= run.batch_size:
            self.full_loss = self.compiled_loss()
            torch.cuda.synchronize(self.device)  # what trainings on other streams share with this one is there

    def epoch(self, epoch: int, bar) -> dict[str, float]:
        """One pass over the training split: mean loss and accuracy while training, and the seconds it took."""
        return without_pause(self.paused_epoch(epoch, bar))

    def paused_epoch(self, epoch: int, bar) -> Generator[None, None, dict[str, float]]:
        """`epoch`, with a pause wherever another training may have its turn."""
        start = time.perf_counter()
        self.model.train()
        seed = generator(self.run.seed, epoch).initial_seed()
        gpus = [self.device] if torch.cuda.is_available() and self.device.type == "cuda" else []  # a test has only the name
        with torch.random.fork_rng(gpus):
            torch.default_generator.manual_seed(seed)  # of dropout: a resumed epoch drops what it would have dropped
            if self.device.type == "cuda":
                torch.cuda.manual_seed(seed)
            yield from self.steps_of_epoch(epoch, bar)
        if self.run.norm != "dropout":  # whose graphs share the device's one seed
            yield  # a GPU still works on what it was given
        mean_loss, accuracy = (self.loss_sum / self.count).item(), (self.correct / self.count).item()  # waits for the device
        if self.at.item() != self.steps:
            raise RuntimeError(f"{self.at.item()} of {self.steps} steps were done on {self.device}")
        return {"train_loss": mean_loss, "train_accuracy": accuracy, "seconds": time.perf_counter() - start}

    def steps_of_epoch(self, epoch: int, bar) -> Generator[None, None, None]:
        for i in range(self.prepare(epoch)):
            size = min(self.run.batch_size, self.count - i * self.run.batch_size)
            if self.device.type == "cuda" and size == self.run.batch_size:
                self.replay(size)
            else:
                self.step(size)
            bar.update()
            if i % self.turn == self.turn - 1 and self.run.norm != "dropout":  # which draws from one series of random numbers
                yield
        if self.device.type == "cuda" and epoch < self.run.epochs:
            self.next_plan = self.plan_of(epoch + 1)  # while the GPU still works

    def prepare(self, epoch: int) -> int:
        """Make an epoch the one that the steps are of. How many it has."""
        self.plan.copy_(self.plan_of(epoch) if self.next_plan is None else self.next_plan)
        self.lr.copy_(torch.tensor([learning_rate(self.run, epoch - 1 + (i + 1) / self.steps) for i in range(self.steps)]))
        for counter in (self.at, self.loss_sum, self.correct):
            counter.zero_()
        if self.graph is None:
            self.eager_steps = max(self.eager_steps, 1)  # another training may have reset what was compiled
        return self.steps

    def plan_of(self, epoch: int) -> Tensor:
        return epoch_plan(self.data, self.run.batch_size, self.run.augment, self.run.seed, epoch)

    def loss(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss over the images of these rows of the plan, and how many of them the network has right."""
        x, y = self.data.batch(plan)
        bf16 = self.run.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            logits = torch.cat([self.model(part) for part in x.split(self.run.ghost_batch or len(x))]).float()
        return loss_of(logits, y, self.run.criterion), (logits.argmax(1) == y).sum()

    def step(self, size: int) -> None:
        """One batch of `size` images: forward, backward, optimizer."""
        plan = self.plan.index_select(0, self.at * self.run.batch_size + torch.arange(size, device=self.device))
        loss, correct = self.full_loss(plan) if size == self.run.batch_size else self.loss(plan)
        self.optimizer.zero_grad()
        loss.backward()
        if self.run.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.run.clip_norm)
        lr = self.lr.index_select(0, self.at[None])[0]
        for group in self.optimizer.param_groups:
            group["lr"].copy_(lr * group["lr_scale"])
        self.optimizer.step()
        self.loss_sum += loss.detach() * size
        self.correct += correct
        self.at += 1

    def compiled_loss(self, **options):
        """`loss` through torch.compile, tried on one batch, which leaves no trace; as it is where there is no compiler."""
        torch._dynamo.reset()  # what was compiled for another run
        self.model.train()
        self.data.cropped(self.plan[:1])  # makes the bordered images, once, which is not to be compiled
        fast = torch.compile(self.loss, fullgraph=True, dynamic=False, **options)
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            fast(self.plan[: self.run.batch_size])[0].backward()
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except RuntimeError as error:
            why = " ".join(str(error).strip().splitlines()[:2])
            tqdm.write(f"{self.run.id} is trained uncompiled, which is slower: torch.compile failed ({why})")
            fast = self.loss
        for buffer, before in buffers:
            buffer.copy_(before)
        self.optimizer.zero_grad()
        return fast

    def replay(self, size: int) -> None:
        """`step` on a GPU: the first ones operation by operation, then all from the graph."""
        if self.graph is None and self.eager_steps == 0:
            self.capture(size)
        if self.graph is None:
            self.eager_steps -= 1
            self.step(size)
        else:
            self.graph.replay()

    def capture(self, size: int) -> None:
        """Record a step, executing nothing. Where that fails, every step stays eager."""
        gc.collect()  # a graph of an earlier training that went in the middle of this one's capture would spoil it
        graph = torch.cuda.CUDAGraph()
        gc.disable()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):  # a side stream: machine.prepared
                self.step(size)
            self.graph = graph
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.eager_steps = math.inf
            why = str(error).strip().splitlines()[0]
            tqdm.write(f"{self.run.id} is trained without a CUDA graph, which is slower: the capture failed ({why})")
        finally:
            gc.enable()


def loss_of(logits: Tensor, labels: Tensor, criterion: str) -> Tensor:
    """Mean loss over logits (N, r) and labels (N,): cross-entropy (nats), or the mean squared or absolute difference between
    the logits and 1 for the true class, 0 for the others."""
    if criterion == "cross_entropy":
        return F.cross_entropy(logits, labels)
    target = (labels[:, None] == torch.arange(logits.shape[1], device=labels.device)).to(logits.dtype)
    return F.mse_loss(logits, target) if criterion == "mse" else F.l1_loss(logits, target)
