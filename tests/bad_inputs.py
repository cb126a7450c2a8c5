"""Wrong inputs through every door, and the one sentence that answers each: what was given and what is allowed.

A door takes what is given and a folder to work in, and returns what it said. Nothing may be left under folder/outputs.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import nbformat
import numpy as np
import torch
from PIL import Image

from lib import norms, study, train
from lib.data import ROOT
from lib.engine import verify
from lib.resnet import ResNet
from lib.run import Run
from lib.study import Study
from report import build


def write_folder(path: Path, parts=("train", "test"), classes=("crow", "owl", "wren"), images=6, size=(16, 16)) -> Path:
    """A small image folder of random pixels."""
    rng = np.random.default_rng(0)
    for part in parts:
        for name in classes:
            (path / part / name).mkdir(parents=True)
            for i in range(images):
                pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path / part / name / f"{i}.png")
    return path


def raised(call) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    except Exception as error:
        return f"not a ValueError but\n{error!r}"
    return "nothing was said"


def said(main, args: list[str], folder: Path) -> str:
    """What a command line's main writes to stderr, if it ends with 2."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        try:
            code = main([*args, "--outputs", str(folder / "outputs")] if "--outputs" not in args else args)
        except SystemExit as stop:
            code = stop.code
    return stderr.getvalue().strip() if code == 2 else f"exit code {code}"


def fit_tiny(given: dict, folder: Path) -> str:
    tiny = {"norm": "bn", "n": 1, "dataset": "digits", "train_size": 32, "epochs": 1, "warmup_epochs": 0, "batch_size": 16}
    how = {"outputs": folder / "outputs"} | {name: given[name] for name in ("device", "outputs") if name in given}
    fields = {name: value for name, value in given.items() if name not in how}
    return raised(lambda: train.fit(Run(**tiny | fields), progress=False, **how))


def papermill_notebook(given: tuple[str, dict], folder: Path) -> str:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    name, parameters = given
    try:
        papermill.execute_notebook(
            ROOT / "notebooks" / f"{name}.ipynb", folder / "out.ipynb", {"outputs": str(folder / "outputs")} | parameters,
            kernel_name="python3", cwd=ROOT / "notebooks", progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=40"],
        )  # fmt: skip
    except PapermillExecutionError as error:
        return error.evalue
    return ""


def notebook_cells(given: tuple[str, dict], folder: Path) -> str:
    """The same without a kernel, which takes seconds to start: the cells one after the other, until one raises."""
    name, parameters = given
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    first, *others = [cell.source for cell in cells if cell.cell_type == "code"]
    names = {}
    exec(first, names)
    names |= {"outputs": str(folder / "outputs")} | parameters

    def run():
        for code in others:
            exec(code, names)

    with mock.patch("lib.plots.setup"):  # which is for all figures of a process
        return raised(run)


def without_make() -> dict[str, str]:
    """The environment as it is outside of `make test`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


def make(given: list[str], folder: Path) -> str:
    env = without_make()
    subprocess.run(["make", ".venv/installed"], cwd=ROOT, env=env, capture_output=True, check=True)  # pip may have its say here
    command = ["make", "--no-print-directory", "report", f"OUTPUTS={folder / 'outputs'}", *given]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if not re.match(r"make: \*\*\* .*Error \d+", line)]
    return "\n".join(lines) if done.returncode == 2 else f"exit code {done.returncode}"


def image_folder(change, folder: Path) -> str:
    """An image folder that was good until `change` was made to it."""
    path = write_folder(folder / "birds")
    change(path)
    return raised(lambda: Study("smoke", f"folder:{path}", outputs=folder / "outputs").fit(["bn"], progress=False))


def cifar_folder(change, folder: Path) -> str:
    base = folder / "cifar-10-batches-py"
    base.mkdir()
    change(base)
    return raised(lambda: Study("smoke", "cifar10", folder, outputs=folder / "outputs").fit(["bn"], progress=False))


def layer(given, folder: Path) -> str:
    make_it, shape = given
    return raised(lambda: make_it() if shape is None else make_it()(torch.zeros(shape)))


DOORS = {
    "Run": lambda given, folder: raised(lambda: Run(**given)),
    "Study": lambda given, folder: raised(lambda: Study(**given)),
    "fit": fit_tiny,
    "layer": layer,
    "python -m lib.study": lambda given, folder: said(study.main, given, folder),
    "python -m lib.train": lambda given, folder: said(train.main, given, folder),
    "python -m lib.engine.verify": lambda given, folder: said(verify.main, given, folder),
    "python -m report.build": lambda given, folder: said(build.main, given, folder),
    "papermill": papermill_notebook,
    "notebook": notebook_cells,
    "make": make,
    "image folder": image_folder,
    "CIFAR-10 folder": cifar_folder,
}


def empty_class(path):
    for file in (path / "train" / "owl").iterdir():
        file.unlink()


def no_classes(path):
    for folder in (path / "train").iterdir():
        folder.rename(path / folder.name)


def one_image_per_class(path):
    for folder in (path / "train").iterdir():
        for file in sorted(folder.iterdir())[1:]:
            file.unlink()


def all_of_size(width, height):
    def change(path):
        for file in path.rglob("*.png"):
            Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file)

    return change


def cut_image(path):
    file = path / "train" / "owl" / "2.png"
    file.write_bytes(file.read_bytes()[:200])


def sixteen_bits(path):
    Image.fromarray(np.full((16, 16), 40_000, np.uint16)).save(path / "train" / "owl" / "2.png")


def far_too_large(path):
    Image.new("1", (16_000, 16_000)).save(path / "train" / "owl" / "2.png")


def link_out(path):
    file = path / "train" / "owl" / "2.png"
    file.unlink()
    file.symlink_to(ROOT / "README.md")


def pickled_command(base):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {base / 'was-run'}",)

    import pickle

    for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (base / name).write_bytes(pickle.dumps(Payload()))


NAN, INF = float("nan"), float("inf")
SEEDS = "; it must be one or more different integers of at least 0, as in 0,1,2"
FOLDER = "; it must be the path of a folder"
INTEGER = "; it must be an integer of at least "
NORMS = "; allowed are torch_bn, bn, in, bin, ln, gn, nn"
PROFILES = "unknown profile 'fast'; allowed are smoke, quick, paper"
SETS = "; the data sets are digits, cifar10 and folder:PATH"

#: door, what is given, a part of the sentence that answers it
CASES = [
    ("Run", {"norm": "batch"}, "unknown norm 'batch'" + NORMS),
    ("Run", {"norm": None}, "unknown norm None" + NORMS),
    ("Run", {"norm": ["bn"]}, "unknown norm ['bn']" + NORMS),
    ("Run", {"n": 0}, "n is 0" + INTEGER + "1"),
    ("Run", {"n": 2.0}, "n is 2.0" + INTEGER + "1"),
    ("Run", {"n": "2"}, "n is '2'" + INTEGER + "1"),
    ("Run", {"dataset": "imagenet"}, "unknown data set 'imagenet'" + SETS),
    ("Run", {"dataset": 10}, "unknown data set 10" + SETS),
    ("Run", {"dataset": "folder:"}, "unknown data set 'folder:'" + SETS),
    ("Run", {"data_hash": 7}, "data_hash is 7; it must be text"),
    ("Run", {"classes": "10"}, "classes is '10'" + INTEGER + "2"),
    ("Run", {"classes": 1}, "classes is 1" + INTEGER + "2"),
    ("Run", {"train_size": 3}, "train_size is 3" + INTEGER + "8"),
    ("Run", {"train_size": 64.5}, "train_size is 64.5" + INTEGER + "8"),
    ("Run", {"split_seed": -1}, "split_seed is -1" + INTEGER + "0"),
    ("Run", {"seed": 1.5}, "seed is 1.5" + INTEGER + "0"),
    ("Run", {"seed": 2**63}, f"seed {2**63} or split_seed 0 is too large; both must be below 2**63"),
    ("Run", {"seed": None}, "seed is None" + INTEGER + "0"),
    ("Run", {"batch_size": 0}, "batch_size is 0" + INTEGER + "1"),
    ("Run", {"batch_size": "128"}, "batch_size is '128'" + INTEGER + "1"),
    ("Run", {"epochs": True}, "epochs is True" + INTEGER + "1"),
    ("Run", {"epochs": INF}, "epochs is inf" + INTEGER + "1"),
    ("Run", {"patience": 0}, "patience is 0" + INTEGER + "1"),
    ("Run", {"optimizer": "rmsprop"}, "unknown optimizer 'rmsprop'; allowed are sgd, adam"),
    ("Run", {"lr": 0}, "lr is 0; it must be a number above 0"),
    ("Run", {"lr": NAN}, "lr is nan; it must be a number above 0"),
    ("Run", {"lr": INF}, "lr is inf; it must be a number above 0"),
    ("Run", {"lr": "0.1"}, "lr is '0.1'; it must be a number above 0"),
    ("Run", {"momentum": -0.1}, "momentum is -0.1; it must be a number of at least 0"),
    ("Run", {"momentum": 1.5}, "momentum is 1.5; it must be below 1"),
    ("Run", {"weight_decay": NAN}, "weight_decay is nan; it must be a number of at least 0"),
    ("Run", {"schedule": "linear"}, "unknown schedule 'linear'; allowed are cosine, step, constant"),
    ("Run", {"warmup_epochs": 101}, "warmup_epochs is 101; it must be at most epochs, here 100"),
    ("Run", {"warmup_epochs": 0.5}, "warmup_epochs is 0.5" + INTEGER + "0"),
    ("Run", {"clip_norm": -1}, "clip_norm is -1; it must be a number above 0"),
    ("Run", {"gate_lr": "x"}, "gate_lr is 'x'; it must be a number of at least 0"),
    ("Run", {"norm": "gn", "group_size": 5}, "group_size is 5; it must divide the 16, 32 and 64 channels: 1, 2, 4, 8, 16"),
    ("Run", {"group_size": 0}, "group_size is 0" + INTEGER + "1"),
    ("Run", {"augment": "flip"}, "unknown augment 'flip'; allowed are none, crop, crop+flip, crop+flip+cutout, crop+flip+mean"),
    ("Run", {"precision": "fp8"}, "unknown precision 'fp8'; allowed are bf16, float32"),
    ("Run", {"model": "vgg"}, "unknown model 'vgg'; allowed are resnet, cnn, resnet50"),
    ("Run", {"model": "cnn", "norm": "gn"}, "unknown norm 'gn'; allowed are torch_bn, dropout, nn"),
    ("Run", {"activation": "tanh"}, "unknown activation 'tanh'; allowed are relu"),
    ("Run", {"criterion": "hinge"}, "unknown criterion 'hinge'; allowed are cross_entropy, mse, l1"),
    ("Run", {"only_classes": "4"}, "only_classes is '4'; it must be the first and last of two or more classes, as in 0-4, or empty"),
    ("Run", {"only_classes": None}, "only_classes is None; it must be the first and last of two or more classes, as in 0-4, or empty"),
    ("Run", {"initialization": "xavier"}, "unknown initialization 'xavier'; allowed are he, fixup"),
    ("Run", {"model": "cnn", "initialization": "fixup"}, "unknown initialization 'fixup'; allowed are he"),
    ("Run", {"init": "imagenet"}, "init is 'imagenet'; it must be the id of a run, or imagenet if the model is resnet50"),
    ("Run", {"probe": 1}, "probe is 1; it must be True or False"),
    ("Run", {"bias_decay": "no"}, "bias_decay is 'no'; it must be True or False"),
    ("Run", {"gate": 1.5}, "gate is 1.5; it must be a number from 0 to 1"),
    ("Run", {"gate": "open"}, "gate is 'open'; it must be a number from 0 to 1"),
    ("Run", {"ghost_batch": 1}, "ghost_batch is 1; it must be an integer of at least 2"),
    ("Run", {"ghost_batch": 8, "norm": "gn"}, "unknown norm with a ghost_batch 'gn'; allowed are torch_bn, bn, bin"),
    ("Run", {"ghost_batch": 8, "model": "cnn"}, "ghost_batch is 8, but model is cnn; only the resnet takes one"),
    ("fit", {"only_classes": "5-14"}, "only_classes is 5-14; digits has the classes 0 to 9"),
    ("fit", {"init": "../elsewhere"}, "init or backbone is '../elsewhere', which is no finished run in"),
    ("Study", {"profile": "fast"}, PROFILES),
    ("Study", {"profile": None}, "unknown profile None; allowed are smoke, quick, paper"),
    ("Study", {"dataset": "cifar"}, "unknown data set 'cifar'" + SETS),
    ("Study", {"dataset": None}, "unknown data set None" + SETS),
    ("Study", {"seeds": "a,b"}, "seeds is 'a,b'" + SEEDS),
    ("Study", {"seeds": []}, "seeds is []" + SEEDS),
    ("Study", {"seeds": [1, 1]}, "seeds is [1, 1]" + SEEDS),
    ("Study", {"seeds": -1}, "seeds is -1" + SEEDS),
    ("Study", {"seeds": [0.5]}, "seeds is [0.5]" + SEEDS),
    ("Study", {"seeds": 2**63}, f"seeds is {2**63}" + SEEDS),
    ("Study", {"seeds": {"seed": 0}}, "seeds is {'seed': 0}" + SEEDS),
    ("Study", {"outputs": 3}, "outputs is 3" + FOLDER),
    ("Study", {"outputs": __file__}, f"outputs is {__file__}, which is a file" + FOLDER),
    ("Study", {"data_dir": ""}, "data_dir is ''" + FOLDER),
    ("Study", {"jobs": 0}, "jobs is 0; it must be an integer of at least 1, or auto"),
    ("Study", {"jobs": "many"}, "jobs is 'many'; it must be an integer of at least 1, or auto"),
    ("Study", {"jobs": 1.5}, "jobs is 1.5; it must be an integer of at least 1, or auto"),
    ("Study", {"backend": "spark"}, "unknown backend 'spark'; allowed are local, ray, dask"),
    ("fit", {"classes": 5}, "classes (r) is 5, but digits has 10 classes; give that number"),
    ("fit", {"train_size": 5000}, "train_size is 5000; this data set has 1151 training images"),
    ("fit", {"dataset": "folder:/nowhere"}, "there is no folder /nowhere/train; an image folder has train/, test/"),
    ("fit", {"device": "gpu"}, "device is 'gpu'; here are cpu"),
    ("fit", {"device": "cuda:99"}, "device is 'cuda:99'; here are cpu"),
    ("fit", {"outputs": 3}, "outputs is 3" + FOLDER),
    ("Study", {"changes": {"lrr": 1}}, "changes is {'lrr': 1}; it must be a dict whose keys are among norm, n, dataset"),
    ("Study", {"changes": None}, "changes is None; it must be a dict"),
    ("Study", {"changes": {"seed": 3}}, "changes is {'seed': 3}; it must be a dict whose keys are among"),
    ("layer", (lambda: norms.BatchNorm2d(0), None), "the number of channels is 0" + INTEGER + "1"),
    ("layer", (lambda: norms.InstanceNorm2d("8"), None), "the number of channels is '8'" + INTEGER + "1"),
    ("layer", (lambda: norms.BatchNorm2d(True), None), "the number of channels is True" + INTEGER + "1"),
    ("layer", (lambda: norms.GroupNorm2d(2.0, 8), None), "2.0 groups do not divide 8 channels; give a divisor of it"),
    ("layer", (lambda: norms.make_norm("gn", 16, 0), None), "groups of 0 channels do not divide 16 channels; give a divisor"),
    ("layer", (lambda: norms.make_norm("gn", 16, 4.0), None), "groups of 4.0 channels do not divide 16 channels; give a divisor"),
    ("layer", (lambda: norms.GroupNorm2d(0, 8), None), "0 groups do not divide 8 channels; give a divisor of it"),
    ("layer", (lambda: norms.make_norm("gn", 16, 5), None), "groups of 5 channels do not divide 16 channels; give a divisor"),
    ("layer", (lambda: lambda x: norms.BatchNorm2d(4)(x.long()), (2, 4, 3, 3)), "was given torch.int64 values; it takes floating"),
    ("layer", (lambda: norms.BatchInstanceNorm2d(4), (2, 4, 1, 1)), "there is no variance, so H * W must be at least 2"),
    ("layer", (lambda: norms.BatchNorm2d(4, eps=0), None), "eps is 0; it must be a number above 0"),
    ("layer", (lambda: norms.BatchNorm2d(4, eps=NAN), None), "eps is nan; it must be a number above 0"),
    ("layer", (lambda: norms.BatchNorm2d(4, eps=""), None), "eps is ''; it must be a number above 0"),
    ("layer", (lambda: norms.BatchNorm2d(4, momentum=""), None), "momentum is ''; it must be a number from 0 to 1, or None"),
    ("layer", (lambda: norms.BatchNorm2d(4, momentum=-0.1), None), "momentum is -0.1; it must be a number from 0 to 1, or None"),
    ("layer", (lambda: norms.BatchNorm2d(4, momentum=2), None), "momentum is 2; it must be a number from 0 to 1, or None"),
    ("layer", (lambda: norms.GroupNorm2d(3, 16), None), "3 groups do not divide 16 channels; give a divisor of it"),
    ("layer", (lambda: norms.BatchNorm2d(4), (2, 3, 8, 8)), "was given shape (2, 3, 8, 8); it takes (N, 4, H, W)"),
    ("layer", (lambda: norms.BatchNorm2d(4), (2, 5, 8, 8)), "was given shape (2, 5, 8, 8); it takes (N, 4, H, W)"),
    ("layer", (lambda: norms.InstanceNorm2d(4), (2, 3, 8, 8)), "was given shape (2, 3, 8, 8); it takes (N, 4, H, W)"),
    ("layer", (lambda: norms.BatchInstanceNorm2d(4), (2, 3, 8, 8)), "was given shape (2, 3, 8, 8); it takes (N, 4, H, W)"),
    ("layer", (lambda: norms.LayerNorm2d(4), (2, 4)), "was given shape (2, 4); it takes (N, 4, H, W)"),
    ("layer", (lambda: norms.BatchNorm2d(4), (1, 4, 1, 1)), "there is no variance, so N * H * W must be at least 2"),
    ("layer", (lambda: norms.InstanceNorm2d(4), (2, 4, 1, 1)), "there is no variance, so H * W must be at least 2"),
    ("layer", (lambda: ResNet(0, 10), None), "n is 0" + INTEGER + "1"),
    ("layer", (lambda: ResNet(2.0, 10), None), "n is 2.0" + INTEGER + "1"),
    ("layer", (lambda: ResNet(1, 1), None), "r is 1" + INTEGER + "2"),
    ("layer", (lambda: ResNet(1, 10, "x"), None), "unknown norm 'x'; the norms are torch_bn, bn, in, bin, ln, gn, nn"),
    ("layer", (lambda: ResNet(1, 10), (2, 1, 8, 8)), "was given shape (2, 1, 8, 8); it takes (N, 3, H, W)"),
    ("layer", (lambda: ResNet(1, 10), (2, 3, 10, 8)), "the images are 10×8; both sides must be multiples of 4"),
    ("python -m lib.study", ["--profile", "fast"], "error: " + PROFILES),
    ("python -m lib.study", ["--variants", "bn,xn"], "error: unknown variant 'xn'; allowed are torch_bn, bn, in, bin, ln, gn, nn, bn_8, gn_8, more_seeds"),
    ("python -m lib.study", ["--variants", ""], "error: unknown variant ''; allowed are torch_bn"),
    ("python -m lib.study", ["--dataset", "folder:/nowhere"], "error: there is no folder /nowhere/train"),
    ("python -m lib.study", ["--seeds", ""], "error: seeds is ''" + SEEDS),
    ("python -m lib.study", ["--jobs", "0"], "error: jobs is '0'; it must be an integer of at least 1, or auto"),
    ("python -m lib.study", ["--outputs", __file__], f"error: outputs is {__file__}, which is a file" + FOLDER),
    ("python -m lib.study", ["--proflie", "paper"], "error: unrecognized arguments: --proflie paper; python -m lib.study --help"),
    ("python -m lib.train", ["--n", "two"], "error: argument --n: invalid int value: 'two'; python -m lib.train --help"),
    ("python -m lib.train", ["--norm", "xn"], "error: unknown norm 'xn'" + NORMS),
    ("python -m lib.train", ["--dataset", "digits", "--classes", "7"], "error: classes (r) is 7, but digits has 10 classes"),
    ("python -m lib.train", ["--lr", "-1"], "error: lr is -1.0; it must be a number above 0"),
    ("python -m report.build", ["--jobs", "0"], "error: jobs is 0" + INTEGER + "1"),
    ("python -m report.build", ["--outputs", str(ROOT)], f"error: outputs is {ROOT}, whose notebooks/ are the sources; give another"),
    ("python -m report.build", ["--report", __file__], f"error: report is {__file__}, which is a file" + FOLDER),
    ("python -m lib.train", ["--outputs", ""], "error: outputs is ''" + FOLDER),
    ("python -m report.build", ["--dataset", "folder:/nowhere"], "error: there is no folder /nowhere/train"),
    ("python -m report.build", ["--dataset", "mnist"], "error: unknown data set 'mnist'" + SETS),
    ("notebook", ("01_resnet_bn", {"profile": "fast"}), PROFILES),
    ("notebook", ("02_norm_sanity", {"seeds": "one"}), "seeds is 'one'" + SEEDS),
    ("notebook", ("03_six_variants", {"dataset": "mnist"}), "unknown data set 'mnist'" + SETS),
    ("papermill", ("04_batch_size", {"outputs": ""}), "outputs is ''" + FOLDER),
    ("papermill", ("05_feature_quantiles", {"dataset": "digits", "epoch": 3, "sede": 1}), "unknown parameter epoch, sede; allowed are profile, dataset, data_dir, seeds, outputs"),
    ("notebook", ("05_feature_quantiles", {"data_dir": 3}), "data_dir is 3" + FOLDER),
    ("notebook", ("09_transfer", {"backbone": "resnet18"}), "init or backbone is 'resnet18', which is no finished run in"),
    ("notebook", ("09_transfer", {"positive": "bird"}), "unknown positive 'bird'; allowed are 0, 1, 2"),
    ("notebook", ("09_transfer", {"backbone": "resnet50", "weights": "/nowhere.pth"}), "weights is /nowhere.pth, which is no file"),
    ("python -m lib.engine.verify", ["--outputs", "/nowhere"], "error: outputs is /nowhere, which has no finished run"),
    ("make", ["JOBS=all"], "error: jobs is 'all'; it must be an integer of at least 1, or auto"),
    ("make", ["DATASET="], "error: unknown data set ''" + SETS),
    ("make", ["PROFIL=paper"], "unknown variable PROFIL; allowed are PROFILE DATASET DATA_DIR SEEDS OUTPUTS JOBS"),
    ("image folder", lambda p: (p / "test").rename(p / "other"), "birds/test; an image folder has train/, test/ and perhaps val/"),
    ("image folder", no_classes, "birds/train has 0 class folders; at least 2 are needed"),
    ("image folder", lambda p: (p / "test" / "owl").rename(p / "owl"), "birds/train differ in the class folders owl"),
    ("image folder", empty_class, "train/owl has no images"),
    ("image folder", lambda p: (p / "train" / "owl" / "2.png").write_bytes(b"no image"), "owl/2.png cannot be read as an image"),
    ("image folder", cut_image, "owl/2.png cannot be read as an image"),
    ("image folder", lambda p: all_of_size(20, 8)(p / "train" / "owl"), "0.png is 8×20 where the others are 16×16; give one size"),
    ("image folder", sixteen_bits, "owl/2.png has more than 8 bits a channel (PIL's mode I;16); convert it to 8 bits"),
    ("image folder", far_too_large, "owl/2.png cannot be read as an image"),
    ("image folder", all_of_size(18, 16), "the images are 16×18; both sides must be multiples of 4"),
    ("image folder", one_image_per_class, "there are 3 training images and none for validation; give at least 5 for each class"),
    ("image folder", link_out, "owl/2.png is a link out of"),
    ("CIFAR-10 folder", lambda base: None, "are damaged or incomplete (MD5); remove that folder to download again"),
    ("CIFAR-10 folder", pickled_command, "are damaged or incomplete (MD5); remove that folder to download again"),
    ("CIFAR-10 folder", lambda base: (base / "test_batch").write_bytes(b""), "are damaged or incomplete (MD5)"),
]  # fmt: skip


def name(case) -> str:
    door, _, says = case
    return f"{door}: {says}"[:80]


def wrong(case, folder: Path) -> str:
    """Through its door. "" if the answer is one clear sentence and nothing was begun; else what was not so."""
    door, given, says = case
    folder.mkdir(parents=True)
    answer = DOORS[door](given, folder)
    if says not in answer:
        return f"{answer!r} does not say {says!r}"
    if "\n" in answer:
        return f"{answer!r} is more than one line"
    left = [path.name for path in (folder / "outputs", folder / "cifar-10-batches-py" / "was-run") if path.exists()]
    return f"{left} was left behind" if left else ""


def answered(folder: Path, say=print) -> tuple[int, int]:
    """How many wrong inputs got their one clear sentence, and how many there are."""
    failures = {i: wrong(case, folder / str(i)) for i, case in enumerate(CASES)}
    for i, why in failures.items():
        if why:
            say(f"{name(CASES[i])}: {why}")
    return sum(not why for why in failures.values()), len(failures)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(answered(Path(temporary) / "inputs"))
        sys.exit(0)
