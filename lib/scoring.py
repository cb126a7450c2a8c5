"""Stored models scored anew: on shifted test images, and by how sure they are. What was found is kept beside the run.

outputs/runs/<run id>/
    shifted.csv          a row for each shift and strength: see `shifted`
    reliability.csv      how often its answers are right, by their confidence: see `reliability`
    probabilities.npz    of the classes, for validation and test images: see `probabilities`
"""

import io
import zlib
from collections.abc import Callable
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib import metrics
from lib.data import Data, Split
from lib.engine.files import write_file
from lib.engine.machine import check_device, full_float32, one_cpu_thread
from lib.engine.store import MODEL, Result, read_sums
from lib.shifts import blurred, brighter, compressed, noisy, with_contrast, with_saturation

#: name -> what changes the images, and five strengths of it, from the weakest
SHIFTS = {
    "contrast": (with_contrast, (0.75, 0.5, 0.35, 0.25, 0.15)),
    "brightness": (brighter, (25, 50, 75, 100, 125)),
    "blur": (blurred, (0.4, 0.6, 0.8, 1.0, 1.5)),
    "noise": (noisy, (5, 10, 15, 20, 30)),
    "saturation": (with_saturation, (0.8, 0.6, 0.4, 0.2, 0.0)),
    "JPEG": (compressed, (80, 60, 40, 20, 10)),
}
STRONG = {name: strengths[-2] for name, (_, strengths) in SHIFTS.items()}  # the second strongest of each
BATCHES = (1, 8, 64, 512)  # images whose own statistics batch norm takes
BINS = 15  # of confidence, equally wide: Guo et al. 2017


@torch.no_grad()
def outputs_of(model: nn.Module, data: Data, split: Split, batch: int | None = None) -> tuple[Tensor, Tensor]:
    """Penultimate features (N, channels) and logits (N, r) in float32, by the running statistics, or by those of every `batch`
    images, which then change the model's running statistics."""
    device = check_device(None)
    model, data, split = model.to(device).eval(), data.to(device), split.to(device)
    for module in model.modules() if batch else ():
        module.train(hasattr(module, "running_mean"))
    with full_float32(), one_cpu_thread():
        parts = (data.normalize(images) for images in split.images.split(batch or 64))
        features = torch.cat([model.features(x.contiguous(memory_format=torch.channels_last)) for x in parts])
        return features.cpu(), model.linear(features).cpu()


def bins(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """Answers by their confidence, in BINS equally wide bins from 0 to 1: upper edge -> images, how many are right, and the sum
    of their confidence. `confidence` and `right`: (N,)."""
    frame = pd.DataFrame({"images": 1, "right": np.asarray(right, int), "confidence": np.asarray(confidence, float)})
    return frame.groupby(np.ceil(frame["confidence"] * BINS).to_numpy() / BINS).sum().rename_axis("bin")


def calibration_error(by_bin: pd.DataFrame) -> float:
    """Expected calibration error, a fraction, of `bins`: by how much a bin's share of right answers and its mean confidence
    differ, the mean over the images."""
    return float((by_bin["right"] - by_bin["confidence"]).abs().sum() / by_bin["images"].sum())


def scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """accuracy, confidence (mean, a fraction), calibration_error and log_loss (nats) of logits (N, r)."""
    log_p = logits.double().log_softmax(1)
    confidence, answer = log_p.exp().max(1)
    right = (answer == labels).numpy()
    return {
        "accuracy": right.mean(),
        "confidence": confidence.mean().item(),
        "calibration_error": calibration_error(bins(confidence.numpy(), right)),
        "log_loss": nn.functional.nll_loss(log_p, labels).item(),
    }


def shifted(result: Result, data: Data) -> pd.DataFrame:
    """Scores and feature percentiles of a run's best weights on the test images of the `data` under every shift and strength,
    and as they are (shift "none"). Of batch norm a row for each of BATCHES too, as they are and with the strength of STRONG;
    `batch` is 0 where the running statistics are used."""
    return kept(result, "shifted.csv", lambda: score_shifted(result, data))


def score_shifted(result: Result, data: Data) -> pd.DataFrame:
    """`shifted` without a look at what was kept."""
    rows = []
    has_batch_norm = any(hasattr(module, "running_mean") for module in result.model().modules())
    steps = [("none", 0, lambda images, _: images)]
    steps += [(name, strength, change) for name, (change, strengths) in SHIFTS.items() for strength in strengths]
    for name, strength, change in steps:
        split = Split(change(data.test.images, strength), data.test.labels)
        by_batch = has_batch_norm and (name == "none" or strength == STRONG[name])
        for batch in (0, *(BATCHES if by_batch else ())):
            features, logits = outputs_of(result.model(), data, split, batch or None)
            row = {"shift": name, "strength": strength, "batch": batch} | scores(logits, split.labels)
            rows.append(row | metrics.quantiles(features.numpy()))
    return pd.DataFrame(rows)


def kept(result: Result, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What the CSV file of this name beside the run says, where it is of the run's weights; else it is made and written."""
    if known(result, name) is None:
        write_file(result.path / name, make().assign(weights=weights_sum(result)).to_csv(index=False).encode())
    return known(result, name)


def known(result: Result, name: str) -> pd.DataFrame | None:
    """What `kept` has written for these weights; None if there is nothing."""
    try:
        frame = pd.read_csv(result.path / name)
        return frame.drop(columns="weights") if frame["weights"].eq(weights_sum(result)).all() else None
    except (OSError, ValueError, KeyError):  # it is not there, or damaged
        return None


def of_all(score: Callable, arms: dict[str, list[Result]], data: Data) -> pd.DataFrame:
    """What `shifted` or `reliability` say of every run that did not fail, below each other: the columns variant and run (its
    number) come before the others."""
    runs = {(variant, i): run for variant, results in arms.items() for i, run in enumerate(results) if not run.failed}
    frames = {key: score(run, data) for key, run in runs.items()}
    return pd.concat(frames, names=["variant", "run"]).reset_index(["variant", "run"]).reset_index(drop=True)


def probabilities(result: Result, data: Data) -> dict[str, np.ndarray]:
    """float16 (N, r) of `val` and `test`, and of both `_mirrored`: the softmax of the mean of the logits of an image and its
    mirror image. Read from probabilities.npz where that is of these weights."""
    file, of = result.path / "probabilities.npz", weights_sum(result)
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            if str(arrays["weights"]) == of:
                return {name: arrays[name] for name in arrays.files if name != "weights"}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        pass  # it is not there, or damaged
    model, arrays = result.model(), {}
    for name, split in (("val", data.val), ("test", data.test)):
        _, logits = outputs_of(model, data, split)
        _, mirrored = outputs_of(model, data, Split(split.images.flip(3), split.labels))
        for key, values in ((name, logits), (f"{name}_mirrored", (logits + mirrored) / 2)):
            arrays[key] = values.softmax(1).numpy().astype(np.float16)
    np.savez_compressed(content := io.BytesIO(), weights=of, **arrays)
    write_file(file, content.getvalue())
    return arrays


def reliability(result: Result, data: Data) -> pd.DataFrame:
    """`bins` of the answers on "val" and "test" images (column split), plain or `mirrored` as in `probabilities`."""

    def make() -> pd.DataFrame:
        frames = {}
        for key, p in probabilities(result, data).items():
            split, _, mirrored = key.partition("_")
            right = p.argmax(1) == getattr(data, split).labels.numpy()
            frames[split, bool(mirrored)] = bins(p.max(1), right)
        return pd.concat(frames, names=["split", "mirrored"]).reset_index()

    return kept(result, "reliability.csv", make)


def weights_sum(result: Result) -> str:
    """The SHA-256 of the run's weights, as its SHA256SUMS says it."""
    return read_sums(result.path)[MODEL]
