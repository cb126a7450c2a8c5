"""What a run may start from: the weights of another run, or ImageNet's for ResNet-50."""

from pathlib import Path

import torch
from torch import Tensor, nn

from lib.data import Data
from lib.engine import store
from lib.engine.files import no_long_silence, sha256, write_file
from lib.engine.store import Result
from lib.networks import ResNet50
from lib.run import Run

LAST = "linear."  # the layer whose weights are not taken over: it is of the other task's classes


def initial_weights(run: Run, outputs) -> dict[str, Tensor]:
    """What `run.init` names: name -> tensor, without the last layer; empty for a start from random weights. ValueError if the
    run that it names is not finished or is of another network, or if ImageNet's weights cannot be had."""
    if not run.init:
        return {}
    if run.init == "imagenet":
        return {f"body.{name}": tensor for name, tensor in imagenet_weights().items()}
    source = source_run(run.init, outputs)
    same = ("model", "n", "norm", "group_size", "activation")
    differ = [name for name in same if getattr(source, name) != getattr(run, name)]
    if differ:
        raise ValueError(f"init is {run.init}, which differs in {', '.join(differ)}; it must be a run of the same network")
    state = Result(source, outputs).model().state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(LAST)}


def source_run(run_id: str, outputs) -> Run:
    """The finished run whose weights another one starts from. ValueError if there is none of that id, or it diverged."""
    path = Path(outputs) / "runs" / run_id
    run = store.read_run(path)
    if run is None or run.id != run_id or not store.Folder(run, outputs).sound:
        raise ValueError(f"init or backbone is {run_id!r}, which is no finished run in {path.parent}; train it first")
    if Result(run, outputs).diverged:
        raise ValueError(
            f"init or backbone is {run_id}, whose loss became no number; give a run that converged, or another seed"
        )
    return run


def start_from(model: nn.Module, weights: dict[str, Tensor], data: Data) -> None:
    """Put `initial_weights` into a new model; the last layer keeps its own."""
    if isinstance(model, ResNet50) and weights:
        model.pixels(data.mean.cpu(), data.std.cpu())
    model.load_state_dict(model.state_dict() | weights)


def weights_entry():
    from torchvision import models  # slow to import, and seldom needed

    return models.ResNet50_Weights.IMAGENET1K_V2


def weights_file() -> Path:
    """Where torchvision keeps ImageNet's weights for ResNet-50; the folder is PyTorch Hub's, which TORCH_HOME moves."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(weights_entry().url).name


def imagenet_weights(file: str | Path = "") -> dict[str, Tensor]:
    """torchvision's ResNet-50 without its last layer: from `file`, or from PyTorch's cache, or downloaded with a progress bar.
    The file's SHA-256 is held against its name, as torchvision does. ValueError says what could not be had."""
    target = weights_file()
    expected = target.stem.rpartition("-")[2]
    if file:
        source = Path(file).expanduser()
        if not source.is_file():
            raise ValueError(f"weights is {source}, which is no file; give torchvision's {target.name}")
        if not sha256(source.read_bytes()).startswith(expected):
            raise ValueError(f"{source} is not torchvision's {target.name}: its SHA-256 does not begin with {expected}")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_file(target, source.read_bytes())
    if target.is_file() and not sha256(target.read_bytes()).startswith(expected):
        raise ValueError(f"{target} is damaged: its SHA-256 does not begin with {expected}; remove it to download it again")
    try:
        with no_long_silence():
            state = weights_entry().get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"ImageNet's weights for ResNet-50 are not in {target.parent} and could not be downloaded from "
            f"{weights_entry().url} ({error}); give the file, or another backbone"
        ) from None
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
