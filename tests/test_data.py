"""Splits, augmentation and every way in which data can be wrong."""

import hashlib
import os
import pickle
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_inputs import write_folder
from filelock import FileLock
from PIL import Image
from torchvision.datasets import CIFAR10

from lib import data
from lib.engine import files


def test_augmented_images_keep_their_order():
    whole = data.load("digits", train_size=100)
    shown = whole.augmented(whole.val, "crop", 0)
    assert torch.equal(shown.labels, whole.val.labels) and shown.images.shape == whole.val.images.shape
    assert torch.equal(whole.augmented(whole.val, "none", 0).images, whole.val.images)
    moved = (shown.images != whole.val.images).flatten(1).any(1)
    assert moved.double().mean() > 0.5


@pytest.mark.parametrize("how", data.AUGMENTATIONS)
def test_crops_show_the_image_and_the_border_that_they_name(how):
    found = replace(data.load("digits", train_size=8), mean=torch.tensor([0.2, 0.4, 0.6])).bordered(how)
    top_left = torch.tensor([[3, 0, 0, 0, 32, 32]])  # the crop that is furthest to the top and left
    shown = found.cropped(top_left)[0].permute(2, 0, 1)
    image = found.train.images[3]
    assert torch.equal(shown[:, 4:, 4:], image[:, :-4, :-4])
    if "reflect" in how:
        assert torch.equal(shown, torch.from_numpy(np.pad(image, ((0, 0), (4, 4), (4, 4)), "reflect"))[:, :32, :32])
    else:
        grey = [51, 102, 153] if "mean" in how else [0, 0, 0]
        assert torch.equal(shown[:, :4].unique(dim=1).flatten(1), torch.tensor(grey, dtype=torch.uint8)[:, None].expand(3, 32))


def test_data_keep_no_border_of_an_earlier_augmentation():
    plain = data.load("digits", train_size=8)
    assert plain.bordered("crop") is plain  # so that what it has padded is kept
    assert torch.equal(plain.bordered("crop+flip+reflect").bordered("crop").padded, plain.padded)


def fake_cifar(folder: Path, monkeypatch, per_batch=20) -> Path:
    """Files in CIFAR-10's format with their MD5 sums told to torchvision: its real reading code runs on them."""
    base = folder / CIFAR10.base_folder
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name, content):
        (base / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((base / name).read_bytes()).hexdigest()]

    def batch(name):
        pixels = rng.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        return write(name, {"data": pixels, "labels": [int(v) for v in rng.integers(0, 10, per_batch)]})

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    meta = write("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    return folder


def images_of(split: data.Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


def test_digits_are_split_without_overlap_and_always_alike():
    a, b = data.load("digits"), data.load("digits")
    assert (len(a.train), len(a.val), len(a.test)) == (1151, 287, 359)
    assert a.train.images.shape[1:] == (3, 32, 32) and a.train.images.dtype == torch.uint8
    assert torch.equal(a.train.images, b.train.images) and torch.equal(a.val.labels, b.val.labels)
    assert not images_of(a.train) & images_of(a.val)
    assert not (images_of(a.train) | images_of(a.val)) & images_of(a.test)


def test_split_seed_changes_training_and_validation_but_never_the_test_split():
    a, b = data.load("digits"), data.load("digits", split_seed=1)
    assert not torch.equal(a.train.labels, b.train.labels)
    assert torch.equal(a.test.images, b.test.images)


def test_smaller_training_part_is_a_part_of_the_larger():
    small, whole = data.load("digits", train_size=100), data.load("digits")
    assert (len(small.train), len(small.val), len(small.test)) == (100, 25, 359)
    assert images_of(small.train) <= images_of(whole.train) and images_of(small.val) <= images_of(whole.val)


def test_cifar10_from_files(tmp_path, monkeypatch):
    found = data.load("cifar10", fake_cifar(tmp_path, monkeypatch))
    assert (len(found.train), len(found.val), len(found.test)) == (80, 20, 20)
    raw = CIFAR10(tmp_path, train=False)
    assert np.array_equal(found.test.images[3].permute(1, 2, 0).numpy(), raw.data[3])  # channels and orientation
    assert found.test.labels.tolist() == raw.targets
    assert found.classes[7] == "class 7"


@pytest.mark.skipif(
    "CIFAR10_DIR" not in os.environ, reason="CIFAR10_DIR does not name a folder with the official CIFAR-10 files"
)
def test_official_cifar10():
    found = data.load("cifar10", os.environ["CIFAR10_DIR"])
    assert (len(found.train), len(found.val), len(found.test)) == (40_000, 10_000, 10_000)
    assert torch.bincount(found.test.labels).tolist() == [1000] * 10
    assert not images_of(found.train) & images_of(found.val)
    torch.testing.assert_close(found.mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=0.003, rtol=0)


def test_damaged_cifar10_is_refused_before_it_is_unpickled(tmp_path, monkeypatch):
    file = fake_cifar(tmp_path, monkeypatch) / CIFAR10.base_folder / "data_batch_3"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged or incomplete \(MD5\)"):
        data.load("cifar10", tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="damaged or incomplete"):
        data.load("cifar10", tmp_path)


def test_missing_cifar10_is_downloaded_or_the_reason_is_given(tmp_path, monkeypatch):
    def no_network(self):
        raise OSError("no route to host")

    monkeypatch.setattr(CIFAR10, "download", no_network)
    with pytest.raises(ValueError, match=r"downloaded .no route to host.; get https://.*cifar-10-python.tar.gz in another way"):
        data.load("cifar10", tmp_path)


def test_a_host_that_accepts_and_says_nothing_is_given_up(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/cifar-10-python.tar.gz")
        monkeypatch.setattr(files, "SILENCE", 0.2)
        sentence = (
            rf"could not be downloaded \(timed out\); get {CIFAR10.url} in another way and put it into {tmp_path}, or the"
        )
        with pytest.raises(ValueError, match=sentence):
            data.load("cifar10", tmp_path)
    assert socket.getdefaulttimeout() is None
    with FileLock(tmp_path / "cifar10.lock", timeout=0):  # is free again
        pass


def test_statistics_are_those_of_the_training_part_alone():
    found = data.load("digits")
    pixels = found.train.images.double() / 255
    torch.testing.assert_close(found.mean.double(), pixels.mean((0, 2, 3)), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.std.double(), pixels.std((0, 2, 3), correction=0), atol=1e-6, rtol=0)
    normalized = found.normalize(found.train.images)
    torch.testing.assert_close(normalized.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalized.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_crop_is_a_window_of_the_padded_image_and_flip_mirrors_it():
    image = torch.arange(1, 1 + 3 * 8 * 8, dtype=torch.uint8).view(1, 3, 8, 8)
    padded = torch.nn.functional.pad(image[0], [4] * 4)
    windows = {padded[:, y : y + 8, x : x + 8].numpy().tobytes() for y in range(9) for x in range(9)}
    mirrored = {padded[:, y : y + 8, x : x + 8].flip(2).numpy().tobytes() for y in range(9) for x in range(9)}
    split = data.Split(image.expand(2000, -1, -1, -1), torch.zeros(2000, dtype=torch.long))
    many = data.Data(split, split, split, ("a", "b"), torch.zeros(3), torch.ones(3))

    def shown(how):
        return many.cropped(data.epoch_plan(many, 128, how, 0, 1)).permute(0, 3, 1, 2)

    assert images_of(data.Split(shown("crop"), split.labels)) == windows  # all 81, and nothing else
    flipped = [i.numpy().tobytes() in mirrored for i in shown("crop+flip")]
    assert 0.45 < np.mean(flipped) < 0.55
    assert torch.equal(shown("none"), split.images)


def test_cutout_blackens_a_square_of_the_image_that_is_shown():
    white = torch.full((2000, 3, 16, 16), 255, dtype=torch.uint8)
    split = data.Split(white, torch.zeros(2000, dtype=torch.long))
    some = data.Data(split, split, split, ("a", "b"), torch.zeros(3), torch.ones(3))
    plan = data.epoch_plan(some, 128, "crop+flip+cutout", 0, 1)
    plan[:, 1:3] = data.PAD  # nothing else is black
    black = (some.cropped(plan) == 0).all(3)
    tops, lefts = set(), set()
    for image, (top, left) in zip(black, plan[:, 4:].tolist(), strict=True):
        expected = torch.zeros(16, 16, dtype=torch.bool)
        expected[max(top, 0) : top + 4, max(left, 0) : left + 4] = True
        assert torch.equal(image, expected)
        tops.add(top)
        lefts.add(left)
    assert tops == lefts == set(range(-2, 14))  # the centre is at any pixel
    assert not (some.cropped(data.epoch_plan(some, 128, "none", 0, 1)) == 0).any()


def test_an_epoch_sees_each_training_image_once_and_no_other():
    found = data.load("digits", train_size=100)
    plan = data.epoch_plan(found, 32, "none", seed=3, epoch=2)
    seen = torch.cat([found.batch(rows)[0] for rows in plan.split(32)])
    wanted = data_rows(found.normalize(found.train.images))
    assert data_rows(seen) == wanted


def data_rows(images: torch.Tensor) -> list[bytes]:
    return sorted(image.numpy().tobytes() for image in images)


def test_batches_depend_on_seed_and_epoch_only():
    found = data.load("digits", train_size=64)

    def epoch(seed, number):
        return data.epoch_plan(found, 16, "crop+flip", seed, number)

    assert torch.equal(epoch(0, 1), epoch(0, 1))
    assert not torch.equal(epoch(0, 1), epoch(0, 2))
    assert not torch.equal(epoch(0, 1), epoch(1, 1))
    assert not torch.equal(epoch(0, 1), epoch(1, 0))


def test_evaluation_images_are_never_augmented():
    found = data.load("digits", train_size=64)
    for split in (found.val, found.test):
        seen = torch.cat([x for x in data.eval_batches(found, split)])
        assert torch.equal(seen, found.normalize(split.images))


@pytest.mark.parametrize("side, at_once", [(32, 500), (64, 125), (256, 7), (1024, 1)])
def test_evaluation_takes_as_many_images_as_their_size_allows(side, at_once):
    images = torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(at_once + 1, 3, side, side)
    split = data.Split(images, torch.zeros(at_once + 1, dtype=torch.int64))
    found = data.Data(split, split, split, ("a", "b"), torch.zeros(3), torch.ones(3))
    assert [len(x) for x in data.eval_batches(found, split)] == [at_once, 1]


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val", "test")])
def test_image_folder(tmp_path, parts):
    found = data.load(f"folder:{write_folder(tmp_path, parts, size=(24, 16))}")
    assert found.classes == ("crow", "owl", "wren")
    assert found.train.images.shape[1:] == (3, 16, 24)
    assert len(found.train) + len(found.val) == 18 * (len(parts) - 1)
    assert len(found.test) == 18


def test_smaller_validation_part_of_a_folder_has_all_its_classes(tmp_path):
    found = data.load(f"folder:{write_folder(tmp_path, ('train', 'val', 'test'), images=30)}", train_size=64)
    assert len(found.val) == 16 and len(set(found.val.labels.tolist())) == 3


def test_training_images_are_counted_as_they_are_split(tmp_path):
    path = f"folder:{write_folder(tmp_path)}"
    for name in ("digits", path):
        assert data.train_images(name) == len(data.load(name).train)


def test_relative_folder_starts_at_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert data.folder_path("folder:birds") == data.ROOT / "birds"
    assert data.folder_path("folder:/birds").as_posix() == "/birds"


def test_fingerprint_of_a_folder_changes_with_any_file(tmp_path):
    path = write_folder(tmp_path)
    before = data.fingerprint(f"folder:{path}")
    assert before == data.fingerprint(f"folder:{path}") and len(before) == 10
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path / "test" / "owl" / "3.png")
    assert data.fingerprint(f"folder:{path}") != before


ODD = ("train/.ipynb_checkpoints/0.png", "__MACOSX/train/._0.png", "train/crow/._0.png", "train/owl/.0.jpg")


@pytest.mark.parametrize("odd", [*ODD, "test/__MACOSX/wren/0.png", "train/.DS_Store", "test/.git/0.png"])
def test_what_a_system_leaves_in_a_folder_is_no_image_and_no_class(tmp_path, odd):
    path = write_folder(tmp_path / "birds")
    before = data.load(f"folder:{path}"), data.fingerprint(f"folder:{path}")
    (path / odd).parent.mkdir(parents=True, exist_ok=True)
    (path / odd).write_bytes(b"no image")
    found = data.load(f"folder:{path}")
    assert found.classes == before[0].classes and torch.equal(found.train.images, before[0].train.images)
    assert data.fingerprint(f"folder:{path}") == before[1]
