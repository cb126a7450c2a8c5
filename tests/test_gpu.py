"""All that only a GPU can show, in one command of a few minutes:

    python -m pytest tests/test_gpu.py -s

The last test prints the seconds of an epoch for each norm, at batches of 128 and of 8, and how many times as long PyTorch's own
way takes: batches from a DataLoader, its optimizer and its batch norm, one operation at a time.
"""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tqdm.auto import tqdm

from lib import checks, train
from lib.data import Data, Split
from lib.engine import jobs, machine
from lib.engine.store import Folder
from lib.norms import NORMS
from lib.run import Run
from lib.study import Study

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that PyTorch can use"),
    pytest.mark.filterwarnings("default"),  # PyTorch's compiler warns, and a warning that is an error stops it
]

TINY = Run(norm="bn", n=1, dataset="digits", train_size=72, batch_size=16, epochs=2, warmup_epochs=1, lr=1e-3, augment="crop")


@pytest.fixture(autouse=True)
def all_compiled_and_captured(monkeypatch):
    """What is said where it is not is an error here."""
    said = []
    monkeypatch.setattr("lib.trainer.tqdm.write", lambda text, *args, **kwargs: said.append(text))
    yield
    assert not said


def fit(run: Run, folder, device="cuda", **kwargs):
    return train.fit(run, folder, device=device, progress=False, **kwargs)


def weights(result) -> list[torch.Tensor]:
    """Those of the last epoch: which one is the best may hang on a rounding."""
    return list(Folder(result.run, result.path.parent.parent).load_checkpoint()["model"].values())


def close(a, b, rtol: float = 1e-2, atol: float = 1e-3) -> bool:
    """Whether two trainings with this small learning rate, whose weights move by much more, differ by rounding alone."""
    return all(torch.allclose(x.double(), y.double(), rtol=rtol, atol=atol) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("norm", ["BN", "IN", "BIN", "LN", "GN"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_norms_equal_pytorchs_there(norm, dtype, tolerance):
    """Output and gradients of our layer on the GPU, of values in this dtype, against PyTorch's layer in float64 on the CPU."""
    ours, theirs = checks.pairs(16)[norm]
    x, g = torch.randn(2, 8, 16, 6, 6).to(dtype).unbind()
    found = []
    for layer, device, wide in ((ours, "cuda", dtype), (theirs.double(), "cpu", torch.float64)):
        own = x.to(device, wide).detach().clone().requires_grad_()
        y = layer.to(device)(own)
        y.backward(g.to(device, wide))
        found.append([y, own.grad, *(p.grad for p in layer.parameters())])
    assert max(checks.largest(a.detach().cpu(), b.detach()) for a, b in zip(*found, strict=True)) < tolerance


@pytest.mark.parametrize("norm", ["bn", "bin", "gn"])
def test_a_graph_of_the_compiled_step_is_the_eager_one(tmp_path, monkeypatch, norm):
    """Two epochs with a smaller batch at the end of each."""
    run = replace(TINY, norm=norm, precision="float32")
    found = fit(run, tmp_path / "graph")
    monkeypatch.setattr(train.Trainer, "replay", train.Trainer.step)
    monkeypatch.setattr(train.Trainer, "compiled_loss", lambda self: self.loss)
    assert close(weights(found), weights(fit(run, tmp_path / "eager")))


def test_the_same_run_gives_the_same_bits(tmp_path):
    first, second = (fit(TINY, tmp_path / name) for name in ("first", "second"))
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


@pytest.mark.parametrize("devices", [("cuda", "cuda"), ("cpu", "cuda"), ("cuda", "cpu")])
def test_a_stopped_run_goes_on_there_or_elsewhere(tmp_path, monkeypatch, devices):
    run = replace(TINY, epochs=4, precision="float32")
    whole = fit(run, tmp_path / "whole")
    with monkeypatch.context() as patch:
        real, calls = train.Trainer.paused_epoch, []

        def stopping(*args):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return real(*args)

        patch.setattr(train.Trainer, "paused_epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(run, tmp_path / "stopped", devices[0])
    result = fit(run, tmp_path / "stopped", devices[1])
    assert list(result.history["epoch"]) == [1, 2, 3, 4] and close(weights(whole), weights(result))


def test_memory_does_not_grow_with_the_runs(tmp_path):
    used = []
    for seed in range(10):
        fit(replace(TINY, seed=seed), tmp_path)
        free, total = torch.cuda.mem_get_info()
        used.append(total - free)
    assert used[-1] - used[1] < 64 * 2**20, [f"{bytes / 2**20:.0f} MiB" for bytes in used]


def test_trainings_in_turns_are_those_one_after_the_other(tmp_path):
    runs = [replace(TINY, norm=norm, seed=seed, precision="float32") for norm in ("bn", "gn") for seed in (0, 1)]
    found = jobs.fit_all(runs, tmp_path / "turns", "data", jobs=4, progress=False)
    for run in runs:
        assert close(weights(found[run.id]), weights(fit(run, tmp_path / "alone")))


def test_papermill_runs_03(tmp_path):
    import papermill

    study = {"profile": "smoke", "dataset": "digits", "seeds": [0], "outputs": str(tmp_path / "outputs")}
    papermill.execute_notebook("notebooks/03_six_variants.ipynb", tmp_path / "03.ipynb", study, cwd="notebooks")
    (run,) = Study("smoke", outputs=tmp_path / "outputs").runs("bn")
    assert "driver" in fit(run, tmp_path / "outputs").env


def some_data(images: int) -> Data:
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        pixels = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        return Split(torch.from_numpy(pixels), torch.from_numpy(rng.integers(0, 10, count)))

    return Data(split(images), split(8), split(8), tuple("0123456789"), torch.full((3,), 0.5), torch.full((3,), 0.25))


def seconds(run: Run, data: Data, steps: int) -> float:
    """Of an epoch of 40,000 images, from so many steps."""
    device = machine.check_device("cuda")
    with machine.prepared(device):
        model = train.new_model(run).to(device, memory_format=torch.channels_last)
        trainer = train.Trainer(run, model, train.new_optimizer(run, model), data.to(device))
        model.train()
        trainer.prepare(1)
        for _ in range(10):
            trainer.replay(run.batch_size)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            trainer.at.fill_(1)
            trainer.replay(run.batch_size)
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps * 40_000 / run.batch_size


def tutorial_seconds(run: Run, data: Data, steps: int) -> float:
    """The same of a loop as tutorials have it, on images that are prepared already."""
    device = machine.check_device("cuda")
    model = train.new_model(replace(run, norm="torch_bn")).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    x, y = data.normalize(data.train.images[: run.batch_size]), data.train.labels[: run.batch_size]

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(x.to(device)), y.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(10):
        step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps * 40_000 / run.batch_size


def test_seconds_of_an_epoch(capsys):
    lines = []
    for batch in (128, 8):
        data = some_data(20 * batch)
        reference = tutorial_seconds(Run(batch_size=batch), data, 100)
        lines.append(f"\nbatch {batch}: a tutorial's loop with PyTorch's BN {reference:.2f} s an epoch")
        for norm in NORMS:
            start = time.perf_counter()
            own = seconds(Run(norm=norm, batch_size=batch, clip_norm=3.0 if norm == "nn" else None), data, 300)
            ready = time.perf_counter() - start
            lines.append(f"{norm:9}{own:6.2f} s an epoch, {reference / own:5.1f} times as fast; all in {ready:.0f} s")
            assert own < reference
    with capsys.disabled():
        print("\n".join(lines), tqdm.format_sizeof(torch.cuda.max_memory_allocated(), "B", 1024))
