"""The training engine against a loop as tutorials write it, our norms against PyTorch's, and all against the convolutions.

    python -m benchmarks.engine [--quick]

The things compared take turns, round by round, so that a machine whose speed drifts slows them alike (the tutorial's loop with
the engine first, then the norms with the convolutions); a figure is the median over the rounds. It prints a table, keeps it in
benchmarks/engine.csv (not with --quick) and ends with one line of ratios:

    bs128, bs8           images per second of our engine with our BN, against the tutorial's loop with PyTorch's BN
    bn, in, ln, gn       seconds of our engine's epoch with that norm, against PyTorch's BN in the same engine
    bin                  the same for BIN, against our BN
    conv_fraction        our engine's images per second with our BN, against PyTorch's convolutions of the step alone

Everything uses all cores, the engine by more threads than the one that a study's runs have. The engine is in bf16, as the
paper's profile; PyTorch's convolutions alone are too, unless this CPU is slow at that; the tutorial's loop is float32, as
tutorials are.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import transforms
from tqdm.auto import tqdm

from lib import data as data_module
from lib import train
from lib.engine import machine
from lib.engine.commands import Parser
from lib.engine.compiled import bf16_is_emulated
from lib.norms import NORMS
from lib.resnet import ResNet
from lib.run import Run

CSV = Path(__file__).with_name("engine.csv")


class Images(torch.utils.data.Dataset):
    """What torchvision.datasets.CIFAR10 gives: PIL images from an array (N, 32, 32, 3), through transforms."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform):
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def random_data(images: int, side: int = 32) -> data_module.Data:
    """Random pixels and labels, in CIFAR-10's shape or with another side: speed does not depend on what they show."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 3, side, side), generator=rng, dtype=torch.uint8)
    split = data_module.Split(pixels, torch.randint(10, (images,), generator=rng))
    mean, std = data_module.pixel_statistics(pixels)
    return data_module.Data(split, split, split, tuple("0123456789"), mean, std)


def tutorial_epoch(data: data_module.Data, batch_size: int, device: torch.device) -> Callable[[], None]:
    """A training epoch as tutorials write it: float32, PyTorch's layers throughout, a DataLoader with 2 workers, the loss read
    after every batch."""
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(data.mean.tolist(), data.std.tolist())])
    dataset = Images(data.train.images.permute(0, 2, 3, 1).numpy(), data.train.labels.numpy(), transform)
    loader = torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, num_workers=2, persistent_workers=True)
    model = ResNet(2, 10, "torch_bn").to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def epoch():
        model.train()
        running_loss, correct = 0.0, 0
        for inputs, labels in loader:
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            correct += (outputs.argmax(1) == labels).sum().item()

    return epoch


def engine_epoch(
    data: data_module.Data, batch_size: int, norm: str, precision: str, device: torch.device
) -> Callable[[], None]:
    """A training epoch of lib.train, data and augmentation included."""
    run = Run(norm=norm, batch_size=batch_size, lr=0.01, schedule="constant", warmup_epochs=0, precision=precision)
    data = data.to(device)
    model = train.new_model(run).to(device, memory_format=torch.channels_last)
    trainer = train.Trainer(run, model, train.new_optimizer(run, model), data)
    return lambda: trainer.epoch(1, tqdm(disable=True))


def convolutions(batch_size: int, batches: int, precision: str, device: torch.device) -> Callable[[], None]:
    """PyTorch's convolutions of the step alone, forward and backward, channels-last."""
    layers, side, dtype = [], 32, torch.bfloat16 if precision == "bf16" else torch.float32
    for module in ResNet(2, 10).modules():
        if isinstance(module, nn.Conv2d):
            module = module.to(device, dtype, memory_format=torch.channels_last)
            x = torch.randn(batch_size, module.in_channels, side, side, device=device, dtype=dtype)
            x = x.contiguous(memory_format=torch.channels_last).requires_grad_(bool(layers))  # no gradient for the image
            side //= module.stride[0]
            with torch.no_grad():
                layers.append((module, x, torch.randn_like(module(x))))

    def epoch():
        for _ in range(batches):
            for module, x, g in layers:
                module.weight.grad = x.grad = None
                F.conv2d(x, module.weight, stride=module.stride, padding=module.padding).backward(g)

    return epoch


def measure(epochs: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, np.ndarray]:
    """Seconds of every epoch in every round, after one that does not count."""
    seconds = {name: [] for name in epochs}
    for number in range(rounds + 1):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(a: np.ndarray, b: np.ndarray) -> float:
    """The median over the rounds of a/b."""
    return float(np.median(a / b))


def main(argv=None) -> None:
    parser = Parser("benchmarks.engine", __doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and engine.csv is left as it is")
    quick = parser.parse_args(argv).quick
    machine.keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision, of_pytorch = "bf16", "float32" if device.type == "cpu" and bf16_is_emulated() else "bf16"
    rounds, large, small = (5, 768, 128) if quick else (9, 1536, 256)
    data = {128: random_data(large), 8: random_data(small)}
    loops = {
        (batch, who): make(data[batch], batch)
        for batch in data
        for who, make in (
            ("tutorial", lambda d, b: tutorial_epoch(d, b, device)),
            ("engine, our BN", lambda d, b: engine_epoch(d, b, "bn", precision, device)),
        )
    }
    norms = {norm: engine_epoch(data[128], 128, norm, precision, device) for norm in NORMS}
    alone = convolutions(128, large // 128, of_pytorch, device)
    against_tutorial = measure(loops, rounds, device)
    against_torch = measure(norms | {"convolutions alone": alone}, rounds, device)

    rows = [
        {"what": who, "batch": batch, "images_per_second": len(data[batch].train) / np.median(seconds)}
        for (batch, who), seconds in against_tutorial.items()
    ]
    rows += [
        {"what": f"engine, {name}" if name in norms else name, "batch": 128, "images_per_second": large / np.median(seconds)}
        for name, seconds in against_torch.items()
    ]
    figures = {f"bs{b}": ratio(against_tutorial[b, "tutorial"], against_tutorial[b, "engine, our BN"]) for b in data}
    figures |= {norm: ratio(against_torch[norm], against_torch["torch_bn"]) for norm in ("bn", "in", "ln", "gn")}
    figures["bin"] = ratio(against_torch["bin"], against_torch["bn"])
    figures["conv_fraction"] = ratio(against_torch["convolutions alone"], against_torch["bn"])
    print(f"{rounds} rounds, {torch.get_num_threads()} threads, engine in {precision}")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.0f}".format))
    if not quick:
        keep(rows, figures, precision, device)
    print(" ".join(f"{name}={value:.2f}" for name, value in figures.items()))


def keep(rows: list[dict], figures: dict[str, float], precision: str, device: torch.device) -> None:
    """engine.csv, a machine's rows in the place of those that it had before."""
    rows = rows + [{"what": name, "ratio": value} for name, value in figures.items()]
    table = pd.DataFrame(rows).assign(precision=precision, threads=torch.get_num_threads())
    table.insert(0, "device", machine.environment(device)["device"])
    if CSV.exists():
        before = pd.read_csv(CSV)
        table = pd.concat([before[before["device"] != table["device"][0]], table])
    table.to_csv(CSV, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
