"""What holds for any input: norms, splits, metrics, statistics and run ids (hypothesis)."""

import json
import math
from dataclasses import asdict, fields, replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from lib import data, metrics, norms, stats
from lib.engine.compiled import compiled, takes
from lib.run import Run

settings.register_profile("suite", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("suite")

shapes = st.tuples(st.integers(2, 5), st.sampled_from([4, 8]), st.integers(1, 5), st.integers(2, 5))
LAYERS = {
    "BN": norms.BatchNorm2d,
    "IN": norms.InstanceNorm2d,
    "LN": norms.LayerNorm2d,
    "GN": lambda channels: norms.GroupNorm2d(channels // 4, channels),
    "BIN": norms.BatchInstanceNorm2d,
}
AXES = {"BN": (0, 2, 3), "IN": (2, 3), "LN": (1, 2, 3)}


def image(shape, seed, mean=0.0, std=1.0):
    return mean + std * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The norms


@given(shapes, st.integers(0, 2**32), st.floats(-1e3, 1e3), st.floats(0.01, 1e3))
def test_a_norm_does_not_see_scale_and_offset_of_its_input(shape, seed, offset, scale):
    x = image(shape, seed)
    for name, layer in LAYERS.items():
        norm = layer(shape[1]).double()
        norm.eps = 0.0
        torch.testing.assert_close(norm(scale * x + offset), norm(x), rtol=1e-6, atol=1e-6, msg=name)


@given(shapes, st.integers(0, 2**32), st.floats(-1e4, 1e4), st.floats(0.1, 1e3))
def test_outputs_have_mean_0_and_variance_1_over_the_set(shape, seed, mean, std):
    x = image(shape, seed, mean, std)
    for name, axes in AXES.items():
        y = LAYERS[name](shape[1]).double()(x)
        assert y.mean(axes).abs().max() < 1e-6
        variance = x.var(axes, correction=0)
        torch.testing.assert_close(y.var(axes, correction=0), variance / (variance + 1e-5), rtol=1e-6, atol=1e-9)


@given(shapes, st.integers(0, 2**32))
def test_images_keep_to_themselves_except_in_batch_norms(shape, seed):
    """Another image in the batch changes nothing for IN, LN, GN, and the order of the images nothing for any norm."""
    x = image(shape, seed)
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(seed))
    for name, layer in LAYERS.items():
        y = layer(shape[1]).double()(x)
        torch.testing.assert_close(layer(shape[1]).double()(x[order]), y[order], msg=name)
        if name in ("IN", "LN", "GN"):
            torch.testing.assert_close(layer(shape[1]).double()(x[:1]), y[:1], msg=name)


@given(shapes, st.integers(0, 2**32), st.integers(0, 4))
def test_pooled_moments_are_those_of_all_the_values(shape, seed, how):
    x = image(shape, seed, 5.0, 2.0)
    m, v = norms.moments(x)
    mu, var = norms.pool(m, v, dim=0)
    torch.testing.assert_close(mu.flatten(), x.mean((0, 2, 3)))
    torch.testing.assert_close(var.flatten(), x.var((0, 2, 3), correction=0))


@given(shapes, st.integers(0, 2**32), st.floats(-100, 100), st.floats(0.1, 10), st.booleans(), st.booleans())
def test_compiled_and_plain_norms_agree(shape, seed, mean, std, relu, channels_last):
    form = torch.channels_last if channels_last else torch.contiguous_format
    x = image(shape, seed, mean, std).float().contiguous(memory_format=form)
    for name, layer in LAYERS.items():
        norm = compiled(layer(shape[1]))
        assert takes(norm, x)
        exact = layer(shape[1]).double()(x.double())
        exact = exact.relu() if relu else exact
        # float32 carries |mean| / std fewer digits of the value than of the distance from the mean
        assert (norm(x, relu=relu) - exact).abs().max() < 1e-5 * (10 + abs(mean) / std) * 4, name


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_bin_is_between_bn_and_in(seed, rho):
    x = image((3, 4, 3, 3), seed)
    both = norms.BatchInstanceNorm2d(4).double()
    with torch.no_grad():
        both.rho.fill_(rho)
    expected = rho * norms.BatchNorm2d(4).double()(x) + (1 - rho) * norms.InstanceNorm2d(4).double()(x)
    torch.testing.assert_close(both(x), expected)


# Splits and batches


@given(st.integers(5, 300), st.integers(0, 2**40))
def test_a_split_has_each_image_once_and_a_fifth_for_validation(images, seed):
    whole = data.Split(torch.arange(images, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2), torch.arange(images))
    train, val = data.random_split(whole, seed)
    assert sorted([*train.labels.tolist(), *val.labels.tolist()]) == list(range(images))
    assert len(val) == int(0.2 * images) and len(train) == data.train_part(images)
    again = data.random_split(whole, seed)
    assert torch.equal(again[0].labels, train.labels)


@given(st.integers(1, 100), st.integers(1, 130), st.sampled_from(data.AUGMENTATIONS), st.integers(0, 99), st.integers(1, 99))
def test_an_epoch_shows_each_image_once_within_the_padded_image(images, batch_size, how, seed, epoch):
    split = data.Split(torch.zeros(images, 3, 4, 4, dtype=torch.uint8), torch.zeros(images, dtype=torch.int64))
    some = data.Data(split, split, split, ("a", "b"), torch.zeros(3), torch.ones(3))
    plan = data.epoch_plan(some, batch_size, how, seed, epoch)
    assert sorted(plan[:, 0].tolist()) == list(range(images))
    assert plan[:, 1:3].min() >= 0 and plan[:, 1:3].max() <= 2 * data.PAD
    assert how != "none" or (plan[:, 1:3] == data.PAD).all()
    assert "flip" in how or not plan[:, 3].any()
    assert "cutout" in how or (plan[:, 4:] == 4).all()
    assert some.cropped(plan).shape == (images, 4, 4, 3)


# Metrics

answers = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes), st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=60)
    )
)


@given(answers)
def test_scores_against_their_definitions(given_answers):
    classes, pairs = given_answers
    labels, predictions = np.array(pairs).T
    found = metrics.scores(labels, predictions, classes)
    counts = confusion_matrix(labels, predictions, labels=range(classes))
    hits, rows, columns = np.diag(counts), counts.sum(1), counts.sum(0)
    f1 = np.divide(2.0 * hits, rows + columns, out=np.zeros(classes), where=rows + columns > 0)
    assert math.isclose(found["accuracy"], hits.sum() / len(labels))
    assert math.isclose(found["micro_f1"], found["accuracy"])
    assert math.isclose(found["macro_f1"], f1.mean())
    table = metrics.per_class(labels, predictions, tuple(map(str, range(classes))))
    assert list(table.columns) == ["precision", "recall", "f1", "support"] and list(table.index) == list(
        map(str, range(classes))
    )
    assert table["support"].tolist() == rows.tolist()
    for name, all_of_them in (("precision", columns), ("recall", rows)):
        assert np.allclose(table[name], np.divide(hits, all_of_them, out=np.zeros(classes), where=all_of_them > 0))
    assert np.allclose(table["f1"], f1)
    shown = metrics.confusion(labels, predictions, tuple(map(str, range(classes))))
    assert shown.shape == counts.shape and (shown.to_numpy() == counts).all()
    assert list(shown.index) == list(shown.columns) == list(table.index)


# Statistics


@st.composite
def arms_of(draw, names="abc"):
    """Two to three arms of one to three trainings each, all scored on the same images."""
    images = draw(st.integers(2, 40))
    training = st.lists(st.booleans(), min_size=images, max_size=images).map(np.array)
    return {name: draw(st.lists(training, min_size=1, max_size=3)) for name in names}


@given(arms_of(), st.integers(-2, 2), st.integers(-2, 2))
def test_contrasts_add_up_turn_with_the_sides_and_contain_their_middle(arms, a, b):
    found = stats.contrast({"a": a, "b": b}, arms)
    assert math.isclose(found.value, a * np.mean(arms["a"]) + b * np.mean(arms["b"]), abs_tol=1e-12)
    assert found.low <= found.value <= found.high and 0 < found.p <= 1
    assert math.isclose(found.value - found.low, found.high - found.value, abs_tol=1e-9)
    turned = stats.contrast({"a": -a, "b": -b}, arms)
    assert np.allclose([turned.value, turned.low, turned.high], [-found.value, -found.high, -found.low])
    assert np.isclose(turned.p, found.p)
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high) or np.isclose(found.p, 0.05, atol=1e-6)
    double = stats.contrast({"a": 2 * a, "b": 2 * b}, arms)
    assert np.allclose([double.value, double.low, double.high], np.multiply(2, found[:3])) and np.isclose(double.p, found.p)


@given(arms_of("ab"), st.integers(0, 2**32))
def test_the_order_of_images_and_trainings_does_not_matter(arms, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(arms["a"][0]))
    mixed = {name: [trainings[i][order] for i in rng.permutation(len(trainings))] for name, trainings in arms.items()}
    assert np.allclose(stats.contrast({"a": 1, "b": -1}, mixed), stats.contrast({"a": 1, "b": -1}, arms), atol=1e-9)


@given(st.lists(st.floats(1e-9, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferronis(p):
    corrected = stats.holm(p)
    assert (np.diff(corrected[np.argsort(p)]) >= 0).all()
    assert (corrected >= p).all() and (corrected <= np.minimum(1, np.multiply(p, len(p))) + 1e-15).all()
    assert np.isclose(corrected.min(), min(1, min(p) * len(p)))  # the smallest bears the whole correction
    rejected = 0  # step by step, as Holm (1979) says it
    for value in sorted(p):
        if value >= 0.05 / (len(p) - rejected):
            break
        rejected += 1
    assert (corrected < 0.05).sum() == rejected


# Quantiles


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=200))
def test_quantiles_are_in_order_and_within_the_values(values):
    found = list(metrics.quantiles(np.array(values)).values())
    assert found == sorted(found) and min(values) <= found[0] and found[-1] <= max(values)


# Runs

CHOICES = {
    "norm": ["torch_bn", "bn", "in", "bin", "ln", "gn", "nn"], "dataset": ["digits", "cifar10"], "optimizer": ["sgd", "adam"],
    "schedule": ["cosine", "step", "constant"], "augment": list(data.AUGMENTATIONS), "precision": ["bf16", "float32"],
    "group_size": [1, 2, 4, 8, 16], "criterion": ["cross_entropy", "mse", "l1"], "init": ["", "some-run"],
    "initialization": ["he", "fixup"], "probe": [False, True], "bias_decay": [True, False], "gate": [0.0, 0.5, 1.0],
}  # fmt: skip
runs_of_any_kind = st.fixed_dictionaries(
    {name: st.sampled_from(values) for name, values in CHOICES.items()}
    | {
        "n": st.integers(1, 20),
        "classes": st.integers(2, 1000),
        "train_size": st.none() | st.integers(8, 50_000),
        "split_seed": st.integers(0, 2**63 - 1),
        "seed": st.integers(0, 2**63 - 1),
        "batch_size": st.integers(1, 4096),
        "epochs": st.integers(10, 1000),
        "warmup_epochs": st.integers(0, 10),
        "patience": st.none() | st.integers(1, 100),
        "lr": st.floats(1e-8, 1e3),
        "momentum": st.floats(0, 0.999),
        "weight_decay": st.floats(0, 1),
        "clip_norm": st.none() | st.floats(1e-3, 1e3),
        "gate_lr": st.floats(0, 100),
    }
)


@given(runs_of_any_kind, runs_of_any_kind)
def test_ids_are_equal_only_for_equal_runs(a, b):
    a, b = Run(**a), Run(**b)
    assert (a.id == b.id) == (a == b)


@given(runs_of_any_kind)
def test_a_run_survives_its_config_file_and_its_id_is_a_folder_name(kwargs):
    run = Run(**kwargs)
    back = Run(**json.loads(json.dumps(asdict(run))))
    assert back == run and back.id == run.id
    assert run.id == "".join(c for c in run.id if c.isalnum() or c in "-_") and len(run.id) < 200


TOGETHER = ("model", "activation", "only_classes", "ghost_batch")  # whose other values need another norm or number of classes


@given(runs_of_any_kind, st.sampled_from([field.name for field in fields(Run) if field.name not in TOGETHER]), st.data())
def test_any_other_value_of_any_field_is_another_id(kwargs, name, draw):
    run = Run(**kwargs)
    other = draw.draw(st.text() if name == "data_hash" else runs_of_any_kind.map(lambda values: values[name]))
    if other != getattr(run, name):
        assert replace(run, **{name: other}).id != run.id


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_an_image_folder_of_any_name_gives_a_safe_run_id(name):
    run_id = Run(dataset=f"folder:/data/{name}", data_hash="x").id
    assert "/" not in run_id and ".." not in run_id and run_id.endswith(run_id[-8:])
