"""A run: everything that decides a training's result, the checks of it, and the id made from it."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property

import numpy as np

from lib import data
from lib.networks import ACTIVATIONS, REGULARIZERS
from lib.norms import NORMS
from lib.resnet import INITIALIZATIONS

SPLITS = ("train", "val", "test")
CODE_VERSION = 1  # raise it with a change of code that changes results beyond rounding: old runs then get another id
NORMS_VERSION = 2  # the same for the norms, of which the other variants know nothing

#: Fields that Run got later. At their default they are no part of the id, so that runs from before keep theirs.
LATER_FIELDS = (
    "model", "activation", "criterion", "only_classes", "init", "initialization", "probe", "bias_decay", "gate", "ghost_batch",
)  # fmt: skip
LEAST = {"n": 1, "classes": 2, "batch_size": 1, "epochs": 1, "group_size": 1, "split_seed": 0, "seed": 0, "warmup_epochs": 0}
LEAST |= {"train_size": 8, "patience": 1, "ghost_batch": 2}
#: model -> what may stand for `norm`
NORMS_OF = {"resnet": tuple(NORMS), "cnn": REGULARIZERS, "resnet50": ("torch_bn",)}
OUR_NORMS = tuple(name for name in NORMS if name not in ("torch_bn", "nn"))


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
    weight_decay: float = 5e-4  # chosen on validation data: report.probes
    schedule: str = "cosine"  # half a period, from lr to 0, a step at a time
    warmup_epochs: int = 2  # linear from 0; the networks without batch statistics start rough at lr 0.1
    clip_norm: float | None = None  # of the whole gradient
    gate_lr: float = 10.0  # BIN's gates learn at so many times lr: the authors' published training code
    group_size: int = 4  # channels in a group of GN, that is C/4 groups
    augment: str = "crop+flip+reflect"  # He et al. 2016, section 4.2, but for the border: report.probes
    precision: str = "bf16"  # of the training's convolutions; statistics, loss, weights and evaluation are float32
    model: str = "resnet"  # or cnn or resnet50 (lib.networks), which have no n
    activation: str = "relu"  # of lib.networks.ACTIVATIONS; the ResNet has ReLU
    only_classes: str = ""  # as in 0-4: these classes alone, renumbered from 0
    init: str = ""  # id of the finished run whose best weights, but for the last layer, it starts from; or imagenet
    criterion: str = "cross_entropy"  # the loss; or mse or l1, between the logits and 1 for the true class, 0 for the others
    initialization: str = "he"  # of the ResNet's weights; or fixup, with which each block starts as its shortcut alone
    probe: bool = False  # tried for a choice: its test images are never scored
    bias_decay: bool = True  # weight decay on γ, β and biases too
    gate: float = 1.0  # where BIN's gates start; with a gate_lr of 0 they stay there
    ghost_batch: int | None = None  # images that share batch norm's statistics, of each batch; None: all (Hoffer et al. 2017)

    def __post_init__(self):
        data.check_name(self.dataset)
        if not isinstance(self.data_hash, str):
            raise ValueError(f"data_hash is {self.data_hash!r}; it must be text")
        allow("model", self.model, tuple(NORMS_OF))
        allow("norm", self.norm, NORMS_OF[self.model])
        allow("activation", self.activation, tuple(ACTIVATIONS) if self.model == "cnn" else ("relu",))
        if self.only_classes != "" and self.classes != len(kept := data.class_range(self.only_classes)):
            raise ValueError(f"classes (r) is {self.classes}, but only_classes {self.only_classes} has {len(kept)}")
        if not isinstance(self.init, str) or (self.init == "imagenet" and self.model != "resnet50"):
            raise ValueError(f"init is {self.init!r}; it must be the id of a run, or imagenet if the model is resnet50")
        allow("initialization", self.initialization, INITIALIZATIONS if self.model == "resnet" else ("he",))
        allow("criterion", self.criterion, ("cross_entropy", "mse", "l1"))
        for name in ("probe", "bias_decay"):
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"{name} is {value!r}; it must be True or False")
        allow("optimizer", self.optimizer, ("sgd", "adam"))
        allow("schedule", self.schedule, ("cosine", "step", "constant"))
        allow("augment", self.augment, data.AUGMENTATIONS)
        allow("precision", self.precision, ("bf16", "float32"))
        for name, least in LEAST.items():
            if getattr(self, name) is not None or getattr(Run, name) is not None:  # None is allowed where it is the default
                at_least(name, getattr(self, name), least, int)
        if max(self.seed, self.split_seed) >= 2**63:
            raise ValueError(f"seed {self.seed} or split_seed {self.split_seed} is too large; both must be below 2**63")
        for name in ("momentum", "weight_decay", "gate_lr"):
            at_least(name, getattr(self, name), 0, float)
        for name, value in (("lr", self.lr), ("clip_norm", 1.0 if self.clip_norm is None else self.clip_norm)):
            if not (is_number(value, float) and 0 < value < np.inf):
                raise ValueError(f"{name} is {value!r}; it must be a number above 0")
        if not is_number(self.gate, float) or not 0 <= self.gate <= 1:
            raise ValueError(f"gate is {self.gate!r}; it must be a number from 0 to 1")
        for field in fields(self):  # 1 and 1.0 are one run
            if "float" in str(field.type) and getattr(self, field.name) is not None:
                object.__setattr__(self, field.name, float(getattr(self, field.name)))
        if self.ghost_batch is not None:
            if self.model != "resnet":
                raise ValueError(f"ghost_batch is {self.ghost_batch}, but model is {self.model}; only the resnet takes one")
            allow("norm with a ghost_batch", self.norm, ("torch_bn", "bn", "bin"))
        if self.momentum >= 1:
            raise ValueError(f"momentum is {self.momentum}; it must be below 1")
        if self.norm == "gn" and 16 % self.group_size:
            raise ValueError(f"group_size is {self.group_size}; it must divide the 16, 32 and 64 channels: 1, 2, 4, 8, 16")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; it must be at most epochs, here {self.epochs}")

    @property
    def splits(self) -> tuple[str, ...]:
        """The parts of the data that it is scored on when it is finished."""
        return SPLITS[:2] if self.probe else SPLITS

    @property
    def data_name(self) -> str:
        """The data set without the place it lies in."""
        return "folder-" + data.folder_path(self.dataset).name if self.dataset.startswith("folder:") else self.dataset

    @property
    def data_slug(self) -> str:
        """data_name for file names."""
        return "".join(c if c.isalnum() or c in "-_" else "_" for c in self.data_name)

    @property
    def data_key(self) -> tuple:
        """Runs with the same key see the same images."""
        return self.dataset, self.data_hash, self.split_seed, self.train_size, self.only_classes

    @property
    def code(self) -> int | str:
        """The version of the code that trains this run."""
        return f"{CODE_VERSION}.{NORMS_VERSION}" if self.norm in OUR_NORMS else CODE_VERSION

    @cached_property
    def id(self) -> str:
        """Readable, and different for every difference in a field: cifar10-bn-n2-b128-e100-s0-1a2b3c4d."""
        decisive = asdict(self) | {"dataset": self.data_name, "code": self.code}
        for name in LATER_FIELDS:
            if decisive[name] == getattr(Run, name):
                del decisive[name]
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
        network = f"n{self.n}" if self.model == "resnet" else self.model
        return f"{self.data_slug}-{self.norm}-{network}-b{self.batch_size}-e{self.epochs}-s{self.seed}-{digest}"


def is_number(value, kind) -> bool:
    """Whether it is an int, or where `kind` is float an int or a float; True and False are neither."""
    return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)


def allow(name: str, value, allowed: tuple) -> None:
    """ValueError for a value that is none of `allowed`."""
    if value not in allowed:
        raise ValueError(f"unknown {name} {value!r}; allowed are {', '.join(allowed)}")


def at_least(name: str, value, least, kind) -> None:
    """ValueError for what is no finite number of this kind, or below `least`."""
    word = "an integer" if kind is int else "a number"
    if not is_number(value, kind) or not least <= value < np.inf:
        raise ValueError(f"{name} is {value!r}; it must be {word} of at least {least}")
