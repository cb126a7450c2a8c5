"""Which runs the study consists of, at each profile: the one place that says so.

    python -m lib.study --profile paper --dataset cifar10 --data-dir data

trains what the notebooks need, without Jupyter; they then only read. Sections 12 and 13 show runs of report.probes besides.
"""

import itertools
import sys
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path

from lib import data
from lib.data import Data
from lib.engine import folders, jobs, machine, store, weights
from lib.engine.commands import OPTIONS, Parser, command
from lib.engine.files import check_folder
from lib.engine.store import Result
from lib.norms import NORMS
from lib.run import Run, allow
from lib.train import load_data

#: What a profile changes of a Run's defaults, which are the assignment's setting.
PROFILES = {
    "smoke": {"n": 1, "epochs": 2, "train_size": 64, "batch_size": 32, "warmup_epochs": 1, "precision": "float32"},
    "quick": {"epochs": 5, "train_size": 4000},  # of CIFAR-10's 40,000 images, or as many as there are
    # A Run's defaults: of what report.probes tried with PyTorch's BN, nothing is clearly better on validation data. Nor are
    # groups of 2 channels with GN over 100 epochs; over 12 they are. The border is the one that GN is clearly better with.
    "paper": {},
}

#: Where a variant departs from the common recipe on photographs and on the digits. Without a norm the gradient is clipped: over
#: 12 epochs on CIFAR-10 (report.probes) a norm of 3 was clearly better than 1 or 0.3 and no worse than none.
RECIPE = {"nn": {"clip_norm": 3.0}}
RECIPE_ON_DIGITS = {"nn": {"clip_norm": 1.0}}  # there the better way on validation data

#: variant -> its name in figures and tables
NAMES = {"torch_bn": "PyTorch BN", "bn": "BN", "in": "IN", "bin": "BIN", "ln": "LN", "gn": "GN", "nn": "NN"}
NAMES |= {"bn_8": "BN, batch 8", "gn_8": "GN, batch 8"}

SMALL_BATCH = 8
#: In epochs. Stops the small batches early, as the assignment asks, but not within the noise of the first half.
PATIENCE = {"smoke": 1, "quick": 5, "paper": 30}

#: Batch sizes of the sweep at each profile, and what its runs change: the same shorter schedule for all of them.
SWEEP_NORMS = ("bn", "bin", "gn")
SWEEP = {
    "smoke": ((8, 32), {"epochs": 1}),
    "quick": ((4, 16, 128), {"epochs": 2, "train_size": 500, "warmup_epochs": 1}),
    "paper": ((2, 4, 8, 16, 32, 128, 512), {"epochs": 10, "train_size": 10_000}),
}

#: 06: a shorter schedule for all its runs, and an earlier report's batch of 32, three optimizers and their weight decays.
RECIPES = {
    "smoke": {"epochs": 1},
    "quick": {"batch_size": 32, "epochs": 2, "warmup_epochs": 1, "train_size": 500},
    "paper": {"batch_size": 32, "epochs": 25, "train_size": 10_000},
}
OPTIMIZERS = {
    "SGD at 0.1": {"optimizer": "sgd", "lr": 0.1, "weight_decay": 1e-4},
    "SGD at 1e-4": {"optimizer": "sgd", "lr": 1e-4, "weight_decay": 1e-7},
    "Adam at 1e-4": {"optimizer": "adam", "lr": 1e-4, "weight_decay": 1e-7},
}

#: 08: the six-convolution CNN. What an earlier report did not say (learning rates, batch, weight decay) was chosen beforehand.
CNN_EPOCHS = {"smoke": 1, "quick": 3, "paper": 20}
CNN_BASE = {
    "model": "cnn", "norm": "torch_bn", "optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0, "schedule": "constant",
    "warmup_epochs": 0, "augment": "none", "precision": "float32",
}  # fmt: skip
SGD = {"optimizer": "sgd", "lr": 0.01}
#: factor -> its levels, and what each changes of CNN_BASE; the first is CNN_BASE itself
CNN_FACTORS = {
    "optimizer": {"Adam": {}, "SGD": SGD | {"momentum": 0.0}, "SGD with momentum": SGD | {"momentum": 0.9}},
    "normalization": {"batch norm": {}, "dropout": {"norm": "dropout"}, "neither": {"norm": "nn"}},
    "activation": {"ReLU": {}} | {name: {"activation": name} for name in ("identity", "tanh", "sigmoid")},
    "loss": {"cross-entropy": {}, "MSE": {"criterion": "mse"}, "L1": {"criterion": "l1"}},
}

#: 09: epochs of the backbone and of what starts from it, and the learning rates of either start.
TRANSFER = {"smoke": (1, 1), "quick": (4, 2), "paper": (30, 10)}
TRANSFER_LRS = (Run.lr, 0.01)

#: variant -> how many further seeds a study with one seed trains at each profile, to know how much trainings differ: of the
#: baselines and of GN, BN's rival at small batches; in the paper profile of all variants, as many as there was time for.
MORE_SEEDS = {
    "smoke": {"torch_bn": 1, "bn": 2, "gn": 1, "nn": 1},  # not all alike, so that tests see that
    "quick": {"torch_bn": 1, "bn": 1, "gn": 1, "nn": 1},
    "paper": {"torch_bn": 2, "bn": 2, "in": 1, "bin": 2, "ln": 1, "gn": 2, "nn": 2, "bn_8": 2, "gn_8": 1},
}

ALL = tuple(NORMS)
#: notebook -> what it needs: a norm's key, key_8 for the small batch, or a group of runs, which Study has under that name.
NOTEBOOKS = {
    "01_resnet_bn": ("torch_bn", "more_seeds"),
    "02_norm_sanity": ("torch_bn", "bn", "more_seeds"),
    "03_six_variants": (*ALL, "more_seeds"),
    "04_batch_size": ("bn", "gn", "bn_8", "gn_8", "sweep", "more_seeds", "more_small"),
    "05_feature_quantiles": (*ALL, "more_seeds"),
    "06_training_recipe": ("recipes",),
    "07_grad_cam": (*ALL, "more_seeds"),
    "08_cnn_ablations": ("cnn",),
    "09_transfer": ("transfer",),
    "10_shifted_images": (*ALL, "more_seeds"),
    "11_calibration": (*ALL, "more_seeds"),
    "12_norm_or_recipe": (*ALL, "more_seeds"),
    "13_why": (),  # what is trained for it is in report/probes.py
    "14_discussion": (*ALL, "bn_8", "gn_8", "sweep", "more_seeds", "more_small"),
}
EVERYTHING = (*NAMES, "more_seeds", "more_small", "sweep", "recipes", "cnn", "transfer")  # the variants first


@dataclass(frozen=True)
class Study:
    """A profile on a data set with some seeds. ValueError for anything that cannot be, before any training."""

    profile: str = "quick"
    dataset: str = "digits"
    data_dir: str | Path = "data"
    seeds: tuple[int, ...] | list[int] | str | int = (0,)
    outputs: str | Path = "outputs"
    changes: dict = field(default_factory=dict)  # of Run fields, for all runs
    jobs: int | str = "auto"  # runs side by side; it does not change their results
    backend: str = "local"  # of lib.engine.jobs.BACKENDS

    def __post_init__(self):
        allow("profile", self.profile, tuple(PROFILES))
        data.check_name(self.dataset)
        object.__setattr__(self, "seeds", parse_seeds(self.seeds))
        jobs.number_of_jobs(self.jobs, self.backend)
        for name in ("data_dir", "outputs"):
            object.__setattr__(self, name, check_folder(name, getattr(self, name)))
        allowed = [field.name for field in fields(Run) if field.name != "seed"]
        if not isinstance(self.changes, dict) or not set(self.changes) <= set(allowed):
            raise ValueError(f"changes is {self.changes!r}; it must be a dict whose keys are among {', '.join(allowed)}")

    def plan(self, names) -> dict[str, list[Run]]:
        """The runs behind the names of NOTEBOOKS: a variant's own, or each of a group's under a name of its own. Where that is
        a variant's name, as in `more_seeds`, the longer list counts."""
        plan = {}
        for name in names:
            part = {name: self.runs(name)} if name in NAMES else getattr(self, name)()
            plan |= {key: max(planned, plan.get(key, []), key=len) for key, planned in part.items()}
        return plan

    def runs(self, variant: str) -> list[Run]:
        """The runs of a variant, one for each seed."""
        norm = variant.removesuffix("_8")
        kwargs = self.common() | {"norm": norm} | self.own(norm)
        if variant.endswith("_8"):
            # Linear scaling of the learning rate with the batch (Wu & He 2018, section 4.1, after Goyal et al. 2017).
            usual = kwargs.get("batch_size", Run.batch_size)
            kwargs |= {"batch_size": SMALL_BATCH, "lr": Run.lr * SMALL_BATCH / usual, "patience": PATIENCE[self.profile]}
        return self.with_seeds(kwargs)

    def common(self) -> dict:
        """What all runs of the profile on this data set have different from a Run's defaults."""
        kwargs = {"dataset": self.dataset} | data.own_augmentation(self.dataset) | self.of_folder
        return self.no_more_than_there_are(kwargs | PROFILES[self.profile])

    @cached_property
    def of_folder(self) -> dict:
        """What runs on a folder of images must know of it, for which all its files are read, once for each Study."""
        if not self.dataset.startswith("folder:"):
            return {}
        classes = len(folders.class_names(data.folder_path(self.dataset)))
        return {"classes": classes, "data_hash": data.fingerprint(self.dataset)}

    def own(self, norm: str) -> dict:
        """What a norm's runs have different from those of the other norms."""
        return (RECIPE_ON_DIGITS if self.dataset == "digits" else RECIPE).get(norm, {})

    def no_more_than_there_are(self, kwargs: dict) -> dict:
        """The fields of a run without a train_size that the data set does not have."""
        if kwargs.get("train_size") and kwargs["train_size"] >= data.train_images(self.dataset):
            kwargs = {name: value for name, value in kwargs.items() if name != "train_size"}
        return kwargs

    def sweep(self) -> dict[str, list[Run]]:
        """BN, BIN and GN at many batch sizes, with the learning rate scaled linearly with the batch and as it is."""
        sizes, changes = SWEEP[self.profile]
        common, plan = self.no_more_than_there_are(self.common() | changes), {}
        for norm, size in itertools.product(SWEEP_NORMS, sizes):
            for lr in dict.fromkeys((Run.lr * size / common.get("batch_size", Run.batch_size), Run.lr)):
                kwargs = common | {"norm": norm, "batch_size": size, "lr": lr}
                plan[f"{NAMES[norm]}, batch {size}, lr {lr:g}"] = self.with_seeds(kwargs)
        return plan

    def recipes(self) -> dict[str, list[Run]]:
        """Every norm with three optimizers, and PyTorch's BN without augmentation and with another schedule."""
        every = itertools.product(ALL, OPTIMIZERS)
        changed = {f"{NAMES[norm]}, {name}": {"norm": norm} | self.own(norm) | OPTIMIZERS[name] for norm, name in every}
        usual = changed[f"{NAMES['torch_bn']}, SGD at 0.1"]
        changed["no augmentation"] = usual | {"augment": "none"}
        changed["steps"] = usual | {"schedule": "step"}
        common = self.no_more_than_there_are({"augment": "crop+flip"} | self.common() | RECIPES[self.profile])
        return {name: self.with_seeds(common | changes) for name, changes in changed.items()}

    def more_seeds(self, small: bool = False) -> dict[str, list[Run]]:
        """The variants of MORE_SEEDS with the usual batch, from further starts too where the study has only one; their names
        are those of the variants, whose runs with the study's own seeds are among these."""
        plan = {}
        for variant, count in MORE_SEEDS[self.profile].items():
            if variant.endswith("_8") == small:
                own = self.runs(variant)
                further = range(1, 1 + count) if len(self.seeds) == 1 else ()
                plan[variant] = own + [replace(own[0], seed=self.seeds[0] + i) for i in further]
        return plan

    def more_small(self) -> dict[str, list[Run]]:
        """The same of the variants with small batches."""
        return self.more_seeds(small=True)

    def cnn(self) -> dict[str, list[Run]]:
        """factor: level -> the runs of the six-convolution network with that level and the other factors' first ones."""
        every = ((factor, level) for factor, levels in CNN_FACTORS.items() for level in levels)
        return {f"{factor}: {level}": self.cnn_runs(CNN_FACTORS[factor][level]) for factor, level in every}

    def cnn_levels(self) -> dict[str, str]:
        """factor -> its level with the highest mean validation accuracy, of those that converged with every seed. Empty as long
        as a run is missing."""
        results_of = {name: [store.find(run, self.outputs) for run in planned] for name, planned in self.cnn().items()}
        if any(None in results for results in results_of.values()):
            return {}

        def score(name):
            return -1.0 if any(r.diverged for r in results_of[name]) else sum(r.score(split="val") for r in results_of[name])

        return {f: max(levels, key=lambda level: score(f"{f}: {level}")) for f, levels in CNN_FACTORS.items()}

    def cnn_combined(self) -> dict[str, list[Run]]:
        """The name "combined" -> the runs with all of `cnn_levels`; nothing as long as these are not known."""
        levels = self.cnn_levels()
        changes = {name: value for f, level in levels.items() for name, value in CNN_FACTORS[f][level].items()}
        return {"combined": self.cnn_runs(changes)} if levels else {}

    def cnn_runs(self, changes: dict) -> list[Run]:
        usual = {name: value for name, value in self.common().items() if name not in ("n", "augment")}
        return self.with_seeds(usual | CNN_BASE | {"epochs": CNN_EPOCHS[self.profile]} | changes)

    def transfer(self, backbone: str = "study") -> dict[str, list[Run]]:
        """What 09 trains: "backbone" (if it is "study": BN on the second half of the classes), and "scratch" and "fine-tuned",
        each as in "scratch at 0.1" at two learning rates, on the task, which is the first half of the classes for a backbone of
        the study and all of them for `resnet50`. Nothing if there are fewer than four classes."""
        first, later = TRANSFER[self.profile]
        common = self.common() | {"epochs": later, "warmup_epochs": min(1, later)}
        if self.dataset.startswith("folder:"):
            common.pop("train_size", None)  # how many images half of the classes have is not known before the split
        if backbone == "resnet50":
            task = common | {"model": "resnet50", "norm": "torch_bn", "batch_size": 32}
            return self.both_starts(task, ["imagenet"] * len(self.seeds))
        classes = common.get("classes", Run.classes)
        half = classes // 2
        if half < 2:
            return {}  # there are no two halves with classes to tell apart
        task = common | {"norm": "bn", "only_classes": f"0-{half - 1}", "classes": half}
        plan = {}
        if backbone == "study":
            other = {"only_classes": f"{half}-{classes - 1}", "classes": classes - half, "epochs": first}
            plan["backbone"] = self.with_seeds(task | other)
            starts = [run.id for run in plan["backbone"]]
        else:
            source = weights.source_run(backbone, self.outputs)
            if source.model != "resnet":
                raise ValueError(f"backbone is {backbone}, a run of the model {source.model}; it must be one of a resnet")
            task |= {name: getattr(source, name) for name in ("norm", "n", "group_size")} | self.own(source.norm)
            starts = [backbone] * len(self.seeds)
        return plan | self.both_starts(task, starts)

    def both_starts(self, task: dict, starts: list[str]) -> dict[str, list[Run]]:
        """A task from random weights and from `starts`, one a seed, at every learning rate of TRANSFER_LRS."""
        plan = {f"scratch at {lr:g}": self.with_seeds(task | {"lr": lr}) for lr in TRANSFER_LRS}
        for name, planned in list(plan.items()):
            tuned = [replace(run, init=start) for run, start in zip(planned, starts, strict=True)]
            plan[name.replace("scratch", "fine-tuned")] = tuned
        return plan

    def with_seeds(self, kwargs: dict) -> list[Run]:
        return [Run(**kwargs | self.changes, seed=seed) for seed in self.seeds]

    def fit(self, names, progress: bool = True) -> dict[str, list[Result]]:
        """name -> its finished runs, one for each seed; those that are missing are trained now. With "cnn" comes "combined"."""
        results = self.fit_all(self.plan(names), progress)
        return results | (self.fit_all(self.cnn_combined(), progress) if "cnn" in names else {})

    def runs_of(self, names) -> list[Run]:
        """Every run behind the names of NOTEBOOKS, each once, as far as they are known and can be trained: none that would
        start from a run that diverged."""
        plan = self.plan(names) | (self.cnn_combined() if "cnn" in names else {})
        planned = {run.id: run for group in plan.values() for run in group}
        starts = {run.init: store.find(planned[run.init], self.outputs) for run in planned.values() if run.init in planned}
        return [run for run in planned.values() if not (starts.get(run.init) and starts[run.init].diverged)]

    def fit_all(self, plan: dict[str, list[Run]], progress: bool = True) -> dict[str, list[Result]]:
        """The finished runs of a plan, which names them, as of jobs.fit_all; a name of which no run is left is left out."""
        planned = [run for runs_of_one in plan.values() for run in runs_of_one]
        result_of = jobs.fit_all(planned, self.outputs, self.data_dir, self.jobs, self.backend, progress)
        kept = {name: [result_of[run.id] for run in plan[name] if run.id in result_of] for name in plan}
        return {name: results for name, results in kept.items() if results}

    def data(self, run: Run | None = None) -> Data:
        """The data that this run sees; without one, those of the variants."""
        return load_data(run or self.runs("torch_bn")[0], self.data_dir)


def parse_seeds(seeds) -> tuple[int, ...]:
    """0, [0, 1] or "0,1" -> (0, 1): the form that make, papermill and Python each give. ValueError for what is no seed."""
    try:
        if isinstance(seeds, str):
            parsed = tuple(int(seed) for seed in seeds.strip("[]() ").split(","))
        else:
            parsed = tuple(seeds) if isinstance(seeds, (list, tuple)) else (seeds,)
        if len(set(parsed)) < max(len(parsed), 1) or any(type(seed) is not int or not 0 <= seed < 2**63 for seed in parsed):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"seeds is {seeds!r}; it must be one or more different integers of at least 0, as in 0,1,2") from None
    return parsed


@command
def main(argv=None) -> int:
    parser = Parser("lib.study", __doc__, *OPTIONS)
    parser.add_argument("--jobs", default="auto", help="runs side by side (default: auto, one for each core)")
    parser.add_argument("--backend", default="local", help=f"one of {', '.join(jobs.BACKENDS)} (default: local)")
    parser.add_argument("--device", choices=("cuda",), help="cuda: stop if there is no GPU (default: use one if there is)")
    parser.add_argument("--variants", help="as in bn,gn_8,sweep (default: all that the notebooks need)")
    args = parser.parse_args(argv)
    names = EVERYTHING if args.variants is None else args.variants.split(",")
    for name in names:
        allow("variant", name, EVERYTHING)
    if args.backend == "local":
        print(f"what is missing is trained on {machine.device_name(machine.check_device(args.device))}", flush=True)
    elif args.device:
        raise ValueError(f"device is {args.device}, but the backend is {args.backend}, whose workers have their own")
    given = {field.name: getattr(args, field.name) for field in fields(Study) if field.name != "changes"}
    for name, results in Study(**given).fit(names).items():
        for result in results:
            accuracy = "diverged" if result.diverged else f"test accuracy {result.score():.4f}"
            print(f"{NAMES.get(name, name)}: seed {result.run.seed}  {accuracy}  best epoch {result.best_epoch}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
