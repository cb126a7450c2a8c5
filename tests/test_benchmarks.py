"""The benchmarks run, and what they say follows from what they measured. How fast anything is, no test asks."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import engine, growth, precision
from report import readme

CPU = torch.device("cpu")


def test_what_is_compared_runs():
    data = engine.random_data(16)
    epochs = {"engine": engine.engine_epoch(data, 8, "bn", "float32", CPU), "alone": engine.convolutions(8, 2, "float32", CPU)}
    seconds = engine.measure(epochs, 2, CPU)
    assert {name: len(values) for name, values in seconds.items()} == {"engine": 2, "alone": 2}
    assert all((values > 0).all() for values in seconds.values())


def test_a_machines_figures_take_the_place_of_its_old_ones_only(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "CSV", tmp_path / "engine.csv")
    rows = [{"what": "engine, bn", "batch": 128, "images_per_second": 100.0}]
    for device, ratio in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        monkeypatch.setattr(engine.machine, "environment", lambda _, device=device: {"device": device})
        engine.keep(rows, {"bn": ratio}, "float32", CPU)
    table = pd.read_csv(tmp_path / "engine.csv")
    assert table.dropna(subset="ratio").set_index("device")["ratio"].to_dict() == {"b": 2.0, "a": 3.0}
    assert len(table) == 4


def test_growth_measures_an_epoch_of_the_setting():
    threads = torch.get_num_threads()
    try:
        found = growth.measure({"n": 1, "batch_size": 512, "image_size": 32})
        assert growth.trainer(1, 4, 64).count * 64**2 == 1024 * 32**2
        assert growth.trainer(1, 512, 32).count == 1024  # two batches at least
    finally:
        torch.set_num_threads(threads)
    assert found["seconds"] > 0 and found["MiB"] > 0


def test_growth_measures_grad_cam(monkeypatch):
    monkeypatch.setattr(growth, "MAPS", 4)
    threads = torch.get_num_threads()
    try:
        found = growth.measure_maps(32)
    finally:
        torch.set_num_threads(threads)
    assert found["seconds"] > 0 and found["MiB"] > 0


@pytest.mark.parametrize(
    "arguments, says", [(["--seeds", "0"], "a spread needs at least two"), (["--norm", "xn"], "unknown norm")]
)
def test_precision_says_what_is_wrong(arguments, says, capsys):
    assert precision.main(arguments) == 2
    assert says in capsys.readouterr().err


def test_precision_is_the_paired_difference_over_the_seeds():
    """Student's t with two degrees of freedom, of differences of +1, −2 and +4 images in a thousand."""
    float32, bf16 = (0.80, 0.82, 0.84), (0.801, 0.818, 0.844)
    found = {
        kind: [SimpleNamespace(diverged=False, score=lambda value=value: value) for value in values]
        for kind, values in {"float32": float32, "bf16": bf16}.items()
    }
    lines = precision.report(found)
    assert lines[0] == "float32: test accuracy 0.8000, 0.8200, 0.8400, mean 0.8200, standard deviation 0.0200"
    half = 4.302653 * np.std([0.1, -0.2, 0.4], ddof=1) / np.sqrt(3)
    assert lines[-1] == f"bf16 minus float32: +0.10 points, 95 % interval {0.1 - half:+.2f} to {0.1 + half:+.2f}"
    found["bf16"][1] = SimpleNamespace(diverged=True, run=SimpleNamespace(id="this-run"))
    with pytest.raises(ValueError, match="this-run diverged, so there is nothing to compare"):
        precision.report(found)


def test_readme_tables_come_from_the_csv_files(tmp_path):
    ratios = pd.DataFrame({"what": list(readme.RATIOS), "ratio": np.arange(1, 9) / 8})
    whats = ["tutorial", "engine, torch_bn", "engine, our BN", "convolutions alone"]
    speeds = pd.DataFrame({"what": whats, "batch": 128, "images_per_second": [1.0, 20, 300, 4000]})
    table = pd.concat([speeds, ratios]).assign(device="X", precision="bf16", threads=2)
    table.to_csv(tmp_path / "engine.csv", index=False)
    text = readme.engine_table(tmp_path)
    assert "| ratio | X, bf16, 2 threads | aim |" in text and "| 0.12 | ≥ 4 |" in text and "convolutions alone 4,000." in text
    growing = pd.DataFrame({"what": ["n", "n", "jobs"], "value": [1, 2, 4], "seconds": [3.2, 7.9, None], "MiB": [10, 20, None]})
    growing.assign(images_per_second=[None, None, 5000], device="X", precision="bf16").to_csv(
        tmp_path / "growth.csv", index=False
    )
    text = readme.growth_table(tmp_path)
    assert "| 1 / 2 | 3.2 / 7.9 s an epoch; 10 / 20 MiB |" in text and "| 4 | 5,000 images/s together |" in text
