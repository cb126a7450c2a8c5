"""What a trained network is worth elsewhere: as another run's start, and its features for a support vector machine."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import data as data_module
from lib import stats
from lib.engine.store import Result
from lib.engine.weights import imagenet_weights, source_run, start_from
from lib.networks import ResNet50, network
from lib.run import allow

if TYPE_CHECKING:
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
    """What `backbone` is to be given: the id of the first of the study's own backbones that did not fail, "" if there is none;
    or the backbone that was asked for instead."""
    own = [result.run.id for result in found.get("backbone", []) if not result.failed]
    return own[0] if own else "" if backbone == "study" else backbone


def comparable(found: dict[str, list[Result]]) -> dict[str, list[Result]]:
    """What Study.transfer plans but for the backbones, without the seeds whose backbone failed."""
    lost = {result.run.seed for result in found.get("backbone", []) if result.failed}
    kept = {name: [r for r in results if r.run.seed not in lost] for name, results in found.items() if name != "backbone"}
    return {name: results for name, results in kept.items() if results}


def starts(found: dict[str, list[Result]]) -> dict[str, list[Result]]:
    """Of `comparable` runs, "scratch" and "fine-tuned", each at the learning rate with the higher mean validation accuracy. A
    start that failed at every learning rate is left out."""
    best = {}
    for start in ("scratch", "fine-tuned"):
        tried = [results for name, results in found.items() if name.startswith(start)]
        sound = [results for results in tried if not any(result.failed for result in results)]
        if sound:
            best[start] = max(sound, key=lambda results: np.mean([result.score(split="val") for result in results]))
    return best


@torch.no_grad()
def features(model: nn.Module, data: data_module.Data, split: data_module.Split) -> np.ndarray:
    """Penultimate features (N, channels) of a split, float32; its pixels are normalized by the mean and deviation of `data`."""
    parts = (model.features(x.contiguous(memory_format=torch.channels_last)) for x, _ in data_module.eval_batches(data, split))
    return torch.cat(list(parts)).cpu().numpy()


KERNELS = ("linear", "rbf")
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # C, of which validation data choose


def one_against_rest(train, val, test, kernel: str) -> dict:
    """A support vector machine (scikit-learn) for one class against the rest. `train`, `val`, `test`: features (N, channels)
    and whether each is of the class, bool (N,); the features are standardized by the training ones.

    Returns C, chosen by the accuracy on `val` (the average precision where that ties), and on `test` the decision values (N,)
    and predictions, bool (N,).
    """
    from sklearn.metrics import average_precision_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, LinearSVC

    allow("kernel", kernel, KERNELS)
    fitted = {}
    for c in PENALTIES:
        machine = LinearSVC(C=c, dual=False, max_iter=10_000) if kernel == "linear" else SVC(C=c, kernel="rbf")
        fitted[c] = make_pipeline(StandardScaler(), machine).fit(*train)

    def on_val(c: float) -> tuple[float, float]:
        values = fitted[c].decision_function(val[0])
        return float(np.mean((values > 0) == val[1])), float(average_precision_score(val[1], values))

    best = max(PENALTIES, key=on_val)
    values = fitted[best].decision_function(test[0])
    return {"C": best, "values": values, "predictions": values > 0}


def binary_scores(labels: np.ndarray, values: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Scores of one class against the rest, as fractions: accuracy, that of always answering with the rest, and what it is
    above that, with its 95 % interval over the images; precision and recall of the class; the areas under the ROC and under the
    precision's curve over recall."""
    from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

    gain = stats.contrast({"machine": 1, "rest": -1}, {"machine": [labels == predictions], "rest": [~labels]})
    return {
        "accuracy": float(np.mean(labels == predictions)),
        "always the rest": float(1 - labels.mean()),
        "gain": gain.value,
        "gain low": gain.low,
        "gain high": gain.high,
        "precision": float(precision_score(labels, predictions, zero_division=np.nan)),
        "recall": float(recall_score(labels, predictions)),
        "ROC area": float(roc_auc_score(labels, values)),
        "average precision": float(average_precision_score(labels, values)),
    }


def curves(labels: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    """Points of the two curves: columns curve (roc or pr), x and y, as fractions. x is the false positive rate or the recall, y
    the true positive rate or the precision."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    false, true, _ = roc_curve(labels, values)
    precision, recall, _ = precision_recall_curve(labels, values)
    return pd.concat(
        [pd.DataFrame({"curve": "roc", "x": false, "y": true}), pd.DataFrame({"curve": "pr", "x": recall, "y": precision})],
        ignore_index=True,
    )


MOST = 5_000  # training images of a machine: the time of one with an RBF kernel grows with their square
SCORES = ("accuracy", "always the rest", "gain", "gain low", "gain high", "precision", "recall", "ROC area",
          "average precision", "C")  # fmt: skip


def machines(study: "Study", name: str, positive: str, weights: str = "") -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Support vector machines for one class of the study's data against the rest, on the features of a `backbone` and of the
    same network before any training, both on pixels normalized as the backbone knows them: `binary_scores` and C, and
    `curves`, of each "kernel, network", as "rbf, trained". NaN and no curves where there is no backbone (name "")."""
    scores, points, data = {}, {}, study.data()
    if name:
        source = None if name == "resnet50" else source_run(name, study.outputs)
        known = study.data(source) if source and source.dataset == study.dataset else data
        known = replace(data, mean=known.mean, std=known.std)
        splits = (data.train.take(slice(MOST)), data.val, data.test)
        labels = [(split.labels == data.classes.index(positive)).numpy() for split in splits]
        for network in ("trained", "untrained"):
            model = backbone(name, data, study.outputs, weights, trained=network == "trained")
            given = [(features(model, known, split), own) for split, own in zip(splits, labels, strict=True)]
            for kernel in KERNELS:
                made = one_against_rest(*given, kernel)
                of_test = labels[-1], made["values"]
                scores[f"{kernel}, {network}"] = binary_scores(*of_test, made["predictions"]) | {"C": made["C"]}
                points[f"{kernel}, {network}"] = curves(*of_test)
    rows = [f"{kernel}, {network}" for network in ("trained", "untrained") for kernel in KERNELS]
    return pd.DataFrame(scores).T.reindex(index=rows, columns=list(SCORES)).rename_axis("machine"), points
