"""What a run may start from: the weights of another run, or ImageNet's for ResNet-50."""

from pathlib import Path

from torch import Tensor, nn

from lib.data import Data
from lib.engine import store
from lib.engine.resnet50 import ResNet50, imagenet_weights
from lib.engine.store import Result
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
