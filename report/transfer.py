"""What a trained network is worth elsewhere: as another run's start, and its features for a support vector machine."""

from dataclasses import replace

import numpy as np
import pandas as pd
import sklearn.metrics
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from torch import nn

from lib import data as data_module
from lib import stats
from lib.engine.machine import check_device, full_float32
from lib.engine.store import Result
from lib.engine.weights import imagenet_weights, source_run, start_from
from lib.networks import ResNet50, network
from lib.run import allow
from lib.study import Study


def backbone(name: str, data: data_module.Data, outputs, weights: str = "", trained: bool = True) -> nn.Module:
    """A network in eval mode whose `features` are to be used: "resnet50" with ImageNet's weights, or a run of the study by its
    id; or the same network before any training. ValueError where it cannot be had: nothing else takes its place."""
    source = None if name == "resnet50" else source_run(name, outputs)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(source.seed if source else 0)
        model = network(source) if source else ResNet50(len(data.classes))
    if not trained:
        return model.eval()
    if source:
        return Result(source, outputs).model()
    start_from(model, {f"body.{key}": tensor for key, tensor in imagenet_weights(weights).items()}, data)
    return model.eval()


def check_weights(backbone: str, weights: str) -> None:
    """ValueError if the weights of "resnet50" cannot be had, or if another backbone is given some."""
    if backbone == "resnet50":
        imagenet_weights(weights)
    elif weights:
        raise ValueError(f"weights is {weights!r}, which only the backbone resnet50 takes; the backbone is {backbone}")


def chosen_class(positive: str, classes: tuple[str, ...], backbone: str) -> str:
    """The class to tell from the rest: `positive`, or the third by default, of those that the backbone has not seen. ValueError
    for another."""
    half = len(classes) // 2
    unseen = classes[:half] if backbone == "study" and half >= 2 else classes
    chosen = str(positive) or unseen[min(2, len(unseen) - 1)]
    allow("positive", chosen, unseen)
    return chosen


def usable(found: dict[str, list[Result]], backbone: str) -> str:
    """The backbone that was asked for; for "study" the id of its first one that did not fail, "" if there is none."""
    own = [result.run.id for result in found.get("backbone", []) if not result.failed]
    return own[0] if own else "" if backbone == "study" else backbone


def comparable(found: dict[str, list[Result]]) -> dict[str, list[Result]]:
    """What Study.transfer plans but for the backbones, without the seeds whose backbone failed."""
    lost = {result.run.seed for result in found.get("backbone", []) if result.failed}
    kept = {name: [r for r in results if r.run.seed not in lost] for name, results in found.items() if name != "backbone"}
    return {name: results for name, results in kept.items() if results}


def starts(found: dict[str, list[Result]]) -> dict[str, list[Result]]:
    """The "scratch" and "fine-tuned" runs of `comparable`, each at the learning rate with the higher mean validation accuracy.
    A start that failed at every learning rate is left out."""
    best = {}
    for start in ("scratch", "fine-tuned"):
        tried = [results for name, results in found.items() if name.startswith(start)]
        sound = [results for results in tried if not any(result.failed for result in results)]
        if sound:
            best[start] = max(sound, key=lambda results: np.mean([result.score(split="val") for result in results]))
    return best


@full_float32()
@torch.no_grad()
def features(model: nn.Module, data: data_module.Data, split: data_module.Split) -> np.ndarray:
    """Penultimate features (N, channels) of a split, float32; its pixels are normalized by the mean and deviation of `data`."""
    device = check_device(None)
    model, data, split = model.to(device), data.to(device), split.to(device)
    parts = (model.features(x.contiguous(memory_format=torch.channels_last)) for x in data_module.eval_batches(data, split))
    return torch.cat(list(parts)).cpu().numpy()


KERNELS = ("linear", "rbf")
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # C, of which validation data choose
MOST = 5_000  # training images of a machine: the time of one with an RBF kernel grows with their square


def one_against_rest(train, val, test, kernel: str) -> tuple[float, np.ndarray]:
    """A support vector machine (scikit-learn) for one class against the rest: C, chosen by the accuracy on `val` (the average
    precision where that ties), and the decision values of `test`, (N,), which are above 0 for the class. `train`, `val`,
    `test`: features (N, channels), standardized by the training ones, and whether each is of the class, bool (N,)."""
    allow("kernel", kernel, KERNELS)
    fitted = {}
    for c in PENALTIES:
        machine = LinearSVC(C=c, dual=False, max_iter=10_000) if kernel == "linear" else SVC(C=c, kernel="rbf")
        fitted[c] = make_pipeline(StandardScaler(), machine).fit(*train)

    def on_val(c: float) -> tuple[float, float]:
        values = fitted[c].decision_function(val[0])
        return float(np.mean((values > 0) == val[1])), float(sklearn.metrics.average_precision_score(val[1], values))

    best = max(PENALTIES, key=on_val)
    return best, fitted[best].decision_function(test[0])


def binary_scores(labels: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Scores of one class against the rest, as fractions: accuracy, that of always answering with the rest, and the gain on
    that, with its 95 % interval over the images; precision and recall of the class; the areas under the ROC and under the
    precision's curve over recall. `labels`: bool (N,); `values`: above 0 where the answer is the class."""
    answers = values > 0
    gain = stats.contrast({"machine": 1, "rest": -1}, {"machine": [labels == answers], "rest": [~labels]})
    return {
        "accuracy": float(np.mean(labels == answers)),
        "always the rest": float(1 - labels.mean()),
        "gain": gain.value,
        "gain low": gain.low,
        "gain high": gain.high,
        "precision": float(sklearn.metrics.precision_score(labels, answers, zero_division=np.nan)),
        "recall": float(sklearn.metrics.recall_score(labels, answers)),
        "ROC area": float(sklearn.metrics.roc_auc_score(labels, values)),
        "average precision": float(sklearn.metrics.average_precision_score(labels, values)),
    }


def machines(study: Study, name: str, positive: str, weights: str = "") -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Support vector machines for one class of the study's data against the rest, on the features of a `backbone` and of the
    same network before any training, both on pixels normalized as the backbone knows them: `binary_scores` and C of each
    "kernel, network", as "rbf, trained", and its curve, with columns precision and recall. NaN and no curves where there is no
    backbone (name "")."""
    rows = [f"{kernel}, {network}" for network in ("trained", "untrained") for kernel in KERNELS]
    columns = [*binary_scores(np.array([True, False]), np.array([1.0, -1.0])), "C"]
    scores, curves = pd.DataFrame(index=pd.Index(rows, name="machine"), columns=columns, dtype=float), {}
    if not name:
        return scores, curves
    data = study.data()
    source = None if name == "resnet50" else source_run(name, study.outputs)
    known = study.data(source) if source and source.dataset == study.dataset else data
    known = replace(data, mean=known.mean, std=known.std)
    splits = data.train.take(slice(MOST)), data.val, data.test
    labels = [(split.labels == data.classes.index(positive)).numpy() for split in splits]
    for trained in ("trained", "untrained"):
        model = backbone(name, data, study.outputs, weights, trained=trained == "trained")
        given = [(features(model, known, split), own) for split, own in zip(splits, labels, strict=True)]
        for kernel in KERNELS:
            c, values = one_against_rest(*given, kernel)
            scores.loc[f"{kernel}, {trained}"] = pd.Series(binary_scores(labels[-1], values) | {"C": c})
            precision, recall, _ = sklearn.metrics.precision_recall_curve(labels[-1], values)
            curves[f"{kernel}, {trained}"] = pd.DataFrame({"precision": precision, "recall": recall})
    return scores, curves
