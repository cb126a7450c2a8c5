"""Run ids, the store and bad values."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, fields, replace

import pytest

from lib.data import ROOT
from lib.engine import store
from lib.engine.files import write_file
from lib.engine.store import Folder, Result, without_pause
from lib.norms import NORMS
from lib.run import CODE_VERSION, LATER_FIELDS, NORMS_VERSION, Run

OTHER = {
    "norm": "gn", "n": 3, "dataset": "digits", "data_hash": "0123456789", "classes": 25, "train_size": 100, "split_seed": 1,
    "seed": 1, "batch_size": 8, "epochs": 60, "patience": 5, "optimizer": "adam", "lr": 0.05, "momentum": 0.8,
    "weight_decay": 1e-4, "schedule": "step", "warmup_epochs": 0, "clip_norm": 1.0, "gate_lr": 1.0, "group_size": 8,
    "augment": "none", "precision": "float32", "model": "cnn", "criterion": "mse", "only_classes": "5-14", "init": "other-run",
    "initialization": "fixup", "probe": True, "bias_decay": False, "gate": 0.5, "ghost_batch": 8,
}  # fmt: skip


def test_every_field_decides_the_id():
    assert OTHER.keys() | {"activation"} == {field.name for field in fields(Run)}
    ids = {Run().id, Run(model="cnn", activation="tanh").id}
    ids |= {replace(Run(), **{name: value}).id for name, value in OTHER.items()}
    assert len(ids) == len(OTHER) + 2


def test_every_folder_of_the_store_has_the_id_of_its_config():
    """The committed runs are never trained again: their ids must outlive every change of Run."""
    folders = [file.parent for file in (ROOT / "outputs" / "runs").glob("*/config.json")]
    assert len(folders) >= 136
    wrong = [folder.name for folder in folders if store.read_run(folder).id != folder.name]
    assert not wrong
    for folder in folders:  # nothing of it was dropped or made up
        config = json.loads((folder / "config.json").read_text())
        assert config.pop("code_version") == store.read_run(folder).code
        assert asdict(store.read_run(folder)).items() >= config.items()


def test_a_new_field_at_its_default_is_no_part_of_the_id():
    """The id as it is defined, of the fields that the first runs had."""
    known = [field.name for field in fields(Run) if field.name not in LATER_FIELDS]
    decisive = {name: getattr(Run(), name) for name in known} | {"code": Run().code}
    assert Run().id.endswith(hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8])
    assert Run(probe=False).id == Run().id != Run(probe=True).id


def test_id_is_readable_and_a_safe_folder_name():
    assert re.fullmatch(r"cifar10-bn-n2-b128-e100-s0-[0-9a-f]{8}", Run(norm="bn").id)
    odd = Run(dataset="folder:/tmp/../etc/my birds; rm")
    assert re.fullmatch(r"[\w-]+", odd.id)


def test_equal_runs_have_one_id():
    for name, whole in (("lr", 1), ("clip_norm", 3), ("weight_decay", 0), ("gate_lr", 10), ("momentum", 0)):
        a, b = Run(**{name: whole}), Run(**{name: float(whole)})
        assert a == b and a.id == b.id, name


def test_the_place_of_a_folder_is_not_part_of_the_id():
    assert Run(dataset="folder:/a/birds", data_hash="x").id == Run(dataset="folder:/b/c/birds", data_hash="x").id


def test_id_is_the_same_in_another_process():
    code = "from lib.run import Run; print(Run(norm='gn', lr=0.05).id)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert other.stdout.strip() == Run(norm="gn", lr=0.05).id


def test_code_version_changes_the_id(monkeypatch):
    before = Run().id
    monkeypatch.setattr("lib.run.CODE_VERSION", CODE_VERSION + 1)
    assert Run().id != before


def test_version_of_our_norms_changes_the_ids_of_their_runs_only(monkeypatch):
    before = {norm: Run(norm=norm).id for norm in NORMS}
    monkeypatch.setattr("lib.run.NORMS_VERSION", NORMS_VERSION + 1)
    changed = {norm for norm, old in before.items() if Run(norm=norm).id != old}
    assert changed == {"bn", "in", "bin", "ln", "gn"}


def test_assignment_setting_is_the_default():
    run = Run()
    assert (run.n, run.classes, run.batch_size, run.epochs, run.optimizer, run.lr) == (2, 10, 128, 100, "sgd", 0.1)


def test_an_unfinished_run_has_no_result(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"run {Run().id} is not finished"):
        Result(Run(), tmp_path)


def test_files_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = Folder(Run(), tmp_path)
    folder.path.mkdir(parents=True)
    folder.write("a.txt", "old")

    def dies(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", dies)
    with pytest.raises(KeyboardInterrupt):
        folder.write("a.txt", "new")
    assert (folder.path / "a.txt").read_text() == "old"


WAITING = """
import sys
from lib.engine.store import Folder, without_pause
from lib.run import Run
with without_pause(Folder(Run(), sys.argv[1]).locked()):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_one_process_at_a_time_and_a_dead_holder_blocks_nobody(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert holder.stdout.readline() == "held\n"
    said = []

    def say(sentence):
        said.append(sentence)
        holder.kill()

    with without_pause(Folder(Run(), tmp_path).locked(say)):
        pass
    holder.communicate()
    assert said == [f"{Run().id} is being trained by another process; waiting for it"]


def test_a_file_that_another_process_writes_too_is_whole(tmp_path, monkeypatch):
    file, real = tmp_path / "shifted.csv", os.fsync

    def meanwhile(handle):
        monkeypatch.setattr(os, "fsync", real)
        write_file(file, b"theirs")
        assert file.read_bytes() == b"theirs"
        real(handle)

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_file(file, b"ours")
    assert file.read_bytes() == b"ours" and list(tmp_path.iterdir()) == [file]
