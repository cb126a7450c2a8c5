"""The three data sources, as uint8 images on the training device, with crop and flip a batch at a time.

`digits`       1,797 handwritten digits that ship inside scikit-learn, 8×8 grey enlarged to 32×32 RGB: no download
`cifar10`      torchvision's CIFAR-10, MD5-checked, downloaded when it is not in the data folder
`folder:PATH`  an image folder PATH/train/<class>/ [PATH/val/<class>/] PATH/test/<class>/, all images of one size
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor

from lib.engine import folders
from lib.engine.files import no_long_silence

ROOT = Path(__file__).resolve().parent.parent
AUGMENTATIONS = ("none", "crop", "crop+flip", "crop+flip+cutout", "crop+flip+mean", "crop+flip+reflect")
PAD = 4  # pixels around a training image before it is cropped: He et al. 2016, section 4.2
BORDERS = ("mean", "reflect")  # of those pixels: the training images' mean, the image's own reflection; else they are black
CUTOUT_SHARE = 4  # the sides of cutout's hole (DeVries & Taylor 2017) are the image's divided by this
VAL_FRACTION = 0.2  # of the training images: 10,000 of CIFAR-10's 50,000, as the assignment asks


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, 3, H, W) and labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index) -> "Split":
        return Split(self.images[index], self.labels[index])

    def to(self, device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Data:
    """Training, validation and test split, the class names, and the training part's pixel mean and std (3,) in [0, 1]."""

    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    mean: Tensor
    std: Tensor
    border: str = "black"  # around the training images before they are cropped, or one of BORDERS

    def to(self, device: torch.device) -> "Data":
        if self.mean.device == device:
            return self
        return replace(self, **{name: getattr(self, name).to(device) for name in ("train", "val", "test", "mean", "std")})

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> float32, each channel with the training part's mean 0 and standard deviation 1."""
        scale, offset = self.scale_and_offset
        return images * scale[:, None, None] - offset[:, None, None]

    @property
    def scale_and_offset(self) -> tuple[Tensor, Tensor]:
        return 1 / (255 * self.std), self.mean / self.std

    @cached_property
    def padded(self) -> Tensor:
        """The training images with PAD pixels around each, a row for each pixel: uint8 (N * (H + 8) * (W + 8), 3)."""
        images, (height, width) = self.train.images, self.train.images.shape[2:]
        if self.border == "reflect":
            y, x = (torch.from_numpy(np.pad(np.arange(size), PAD, mode="reflect")) for size in (height, width))
            images = images[:, :, y[:, None], x]
        else:
            images = F.pad(images, [PAD] * 4)
        if self.border == "mean":
            mean = (255 * self.mean).round().to(torch.uint8)[:, None, None]
            outside = F.pad(torch.zeros(height, width, dtype=torch.bool, device=mean.device), [PAD] * 4, value=True)
            images = torch.where(outside, mean, images)
        return images.permute(0, 2, 3, 1).reshape(-1, 3)

    def bordered(self, how: str) -> "Data":
        """These data with the border that an augmentation asks for."""
        last = how.split("+")[-1]
        border = last if last in BORDERS else "black"
        return self if border == self.border else replace(self, border=border)

    def cropped(self, plan: Tensor) -> Tensor:
        """The training images that the rows of an `epoch_plan` name, cropped, flipped and with the black hole that they
        say: uint8 (B, H, W, 3)."""
        image, top, left, flip, hole_top, hole_left = (column[:, None] for column in plan.unbind(1))
        height, width = self.train.images.shape[2:]
        y, x = torch.arange(height, device=plan.device), torch.arange(width, device=plan.device)
        hole = within(y - hole_top, height // CUTOUT_SHARE)[:, :, None] & within(x - hole_left, width // CUTOUT_SHARE)[:, None]
        x = left + torch.where(flip.bool(), width - 1 - x, x)
        pixels = (image * (height + 2 * PAD) + top + y)[:, :, None] * (width + 2 * PAD) + x[:, None]
        pixels = pixels.masked_fill(hole, 0)  # a corner of the first image: black, as every border is that cutout goes with
        return self.padded.index_select(0, pixels.flatten()).view(len(plan), height, width, 3)

    def augmented(self, split: Split, how: str, seed: int) -> Split:
        """A split's images as training would show them in some epoch, in their own order."""
        source = replace(self, train=split).bordered(how)
        plan = epoch_plan(source, len(split), how, seed, epoch=1)
        plan = plan[plan[:, 0].argsort()]
        parts = [source.cropped(rows) for rows in plan.split(1000)]
        return Split(torch.cat(parts).permute(0, 3, 1, 2), split.labels)

    def batch(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        """The images of a plan's rows, normalized, float32 (B, 3, H, W) in channels-last memory, and their labels (B,)."""
        images, (scale, offset) = self.cropped(plan), self.scale_and_offset
        # A row of pixels at a time: the last dimension is then wide enough for vector registers.
        x = images.flatten(2).float().mul_(scale.repeat(images.shape[2])).sub_(offset.repeat(images.shape[2]))
        return x.view(images.shape).permute(0, 3, 1, 2), self.train.labels[plan[:, 0]]


def load(dataset: str, data_dir="data", split_seed: int = 0, train_size: int | None = None, only_classes: str = "") -> Data:
    """The data set `dataset`, its training images split at random into training and validation by `split_seed`.

    `only_classes`, as in "0-4", keeps the images of these classes, renumbered from 0, of each of the three parts; `train_size`
    only the first so many training images of those, and a fourth as many for validation. ValueError (unknown, damaged or empty
    data) says what was given and what is allowed.
    """
    check_name(dataset)
    if dataset.startswith("folder:"):
        train, val, test, classes = folder(folder_path(dataset), split_seed)
    else:
        rest, test, classes = digits() if dataset == "digits" else cifar10(Path(data_dir))
        train, val = random_split(rest, split_seed)
    if only_classes:
        kept = class_range(only_classes)
        if kept.stop > len(classes):
            raise ValueError(f"only_classes is {only_classes}; {dataset} has the classes 0 to {len(classes) - 1}")
        train, val, test = (narrowed(split, kept) for split in (train, val, test))
        classes = classes[kept.start : kept.stop]
    if train_size is not None:
        if train_size > len(train):
            raise ValueError(f"train_size is {train_size}; this data set has {len(train)} training images")
        train, val = train.take(slice(train_size)), val.take(slice(max(1, train_size // 4)))
    for name, split in (("training", train), ("validation", val), ("test", test)):
        if not len(split):
            raise ValueError(f"there are {len(train)} training images and none for {name}; give at least 5 for each class")
    return Data(train, val, test, tuple(classes), *pixel_statistics(train.images))


def class_range(only_classes: str) -> range:
    """The numbers that "0-4" means. ValueError for what names no two classes."""
    ends = re.fullmatch(r"(\d+)-(\d+)", only_classes) if isinstance(only_classes, str) else None
    kept = range(int(ends[1]), int(ends[2]) + 1) if ends else range(0)
    if len(kept) < 2:
        raise ValueError(
            f"only_classes is {only_classes!r}; it must be the first and last of two or more classes, as in 0-4, or empty"
        )
    return kept


def narrowed(split: Split, kept: range) -> Split:
    """The images of these classes, renumbered from 0."""
    split = split.take((split.labels >= kept.start) & (split.labels < kept.stop))
    return Split(split.images, split.labels - kept.start)


def check_name(dataset: str) -> None:
    """Refuse what names no data set, with a ValueError."""
    if not isinstance(dataset, str) or not re.fullmatch("digits|cifar10|folder:.+", dataset, re.DOTALL):
        raise ValueError(f"unknown data set {dataset!r}; the data sets are digits, cifar10 and folder:PATH")


def own_augmentation(dataset: str) -> dict[str, str]:
    """What a run on these data has in place of a Run's default augmentation."""
    return {"augment": "crop"} if dataset == "digits" else {}  # a digit's mirror image is none, and its background is black


def folder_path(dataset: str) -> Path:
    """The folder that folder:PATH names; a relative PATH starts at the project's top folder, wherever a command was started."""
    return ROOT / Path(dataset.removeprefix("folder:")).expanduser()


def shuffled(split: Split, seed: int) -> Split:
    """The images in an order that the seed decides."""
    return split.take(torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)))


def train_part(images: int) -> int:
    """How many of so many images are for training."""
    return images - int(VAL_FRACTION * images)


def random_split(split: Split, seed: int) -> tuple[Split, Split]:
    """A random four fifths and the other fifth; the same for every run with this seed."""
    split, size = shuffled(split, seed), train_part(len(split))
    return split.take(slice(size)), split.take(slice(size, None))


def train_images(dataset: str) -> int:
    """How many training images a data set has after the split, found without reading them."""
    if not dataset.startswith("folder:"):
        return {"digits": 1151, "cifar10": 40_000}[dataset]
    path = folder_path(dataset)
    count = sum(len(folders.image_files(path / "train" / name)) for name in folders.class_names(path))
    return count if (path / "val").is_dir() else train_part(count)


def pixel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel (3,), pixels in [0, 1], from the counts of the 256 values."""
    counts = torch.stack([torch.bincount(images[:, c].flatten(), minlength=256) for c in range(3)]).double()
    share, value = counts / counts.sum(1, keepdim=True), torch.arange(256).double() / 255
    mean = share @ value
    std = (share * (value - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.float(), std.float().clamp_min(1e-3)  # a constant channel has no spread to divide by


def digits() -> tuple[Split, Split, list[str]]:
    """1,438 images for training and validation and 359 for the test, a fixed random fifth."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    grey = torch.from_numpy(raw.images).float()[:, None] * (255 / 16)  # (1797, 1, 8, 8)
    images = F.interpolate(grey, size=(32, 32), mode="bilinear").round().to(torch.uint8).expand(-1, 3, -1, -1)
    whole = Split(images.contiguous(), torch.from_numpy(raw.target).long())
    return *random_split(whole, seed=0), [str(name) for name in raw.target_names]


def cifar10(data_dir: Path) -> tuple[Split, Split, list[str]]:
    """CIFAR-10's training and test images and its classes, downloaded if they are not there. ValueError if that fails, or
    if the files are damaged."""
    from torchvision.datasets import CIFAR10

    try:
        sets = [CIFAR10(data_dir, train=train, download=False) for train in (True, False)]
    except RuntimeError:
        base = data_dir / CIFAR10.base_folder
        if base.exists() and not (data_dir / CIFAR10.filename).exists():  # with the archive, it is unpacked again
            either = "remove that folder to download again, or put the official python batches there"
            raise ValueError(f"the CIFAR-10 files in {base} are damaged or incomplete (MD5); {either}") from None
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(data_dir / "cifar10.lock"), no_long_silence():  # one of several that start at once
                sets = [CIFAR10(data_dir, train=train, download=True) for train in (True, False)]
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"CIFAR-10 is not in {data_dir} and could not be downloaded ({error}); get {CIFAR10.url} in another way and "
                f"put it into {data_dir}, or the official python batches into {base}"
            ) from None
    splits = [Split(torch.from_numpy(s.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(s.targets)) for s in sets]
    return *splits, sets[0].classes


def folder(path: Path, split_seed: int) -> tuple[Split, Split, Split, list[str]]:
    """Training, validation and test split of an image folder, and its class names."""
    parts = {part: Split(*tensors) for part, tensors in folders.read(path).items()}
    two = [shuffled(parts[part], split_seed) for part in ("train", "val")] if "val" in parts else None
    return *(two or random_split(parts["train"], split_seed)), parts["test"], folders.class_names(path)


def fingerprint(dataset: str) -> str:
    """Ten hex digits that change with any file of an image folder; empty for data sets whose name fixes the content."""
    return folders.fingerprint(folder_path(dataset)) if dataset.startswith("folder:") else ""


def generator(*numbers: int) -> torch.Generator:
    """A random generator of its own for every combination of numbers, the same on every device."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


def epoch_plan(data: Data, batch_size: int, how: str, seed: int, epoch: int) -> Tensor:
    """What an epoch shows, in order: int64 (N, 6), the number of the image, top and left of the crop, whether to flip, and top
    and left of the hole, which is outside of the image if there is none.

    It depends on (seed, epoch), batch size and augmentation and nothing else, so every variant sees the same batches and a
    resumed run sees those that it would have seen.
    """
    rng = generator(seed, epoch)
    sides = torch.tensor(data.train.images.shape[2:])
    plan = torch.full((len(data.train), 6), PAD)
    plan[:, 0], plan[:, 3], plan[:, 4:] = torch.randperm(len(data.train), generator=rng), 0, sides
    for rows in plan.split(batch_size):
        if how != "none":
            rows[:, 1:3] = torch.randint(2 * PAD + 1, (2, len(rows)), generator=rng).T
        if "flip" in how:
            rows[:, 3] = torch.rand(len(rows), generator=rng) < 0.5
        if "cutout" in how:  # its centre is anywhere in the image, so it may lie outside in part
            centre = (torch.rand(len(rows), 2, generator=rng) * sides).long()
            rows[:, 4:] = centre - sides // CUTOUT_SHARE // 2
    return plan


def within(distance: Tensor, size: int) -> Tensor:
    """Where a distance from the first of `size` places is that of one of them."""
    return (distance >= 0) & (distance < size)


def eval_batches(data: Data, split: Split) -> Iterator[Tensor]:
    """The images as they are, in order, normalized: as many at a time as have the pixels of 500 CIFAR-10 images, on a GPU of
    5,000, which takes each batch as a few hundred launches whatever its size."""
    pixels = (5000 if split.images.is_cuda else 500) * 32 * 32
    at_once = max(1, pixels // (split.images.shape[2] * split.images.shape[3]))
    return map(data.normalize, split.images.split(at_once))
