"""What a run costs as it grows: seconds an epoch and memory against depth, batch and image size; images per second against the
number of runs side by side; the report's seconds against its runs; Grad-CAM against the image size.

    python -m benchmarks.growth [--only n batch_size image_size gradcam jobs report]

Each row of the first four is measured in a process of its own, for its peak of memory, with our BN on one thread as a study's
runs have it (or on the GPU), and scaled up to an epoch of CIFAR-10's 40,000 images. It prints the tables and keeps them in
benchmarks/growth.csv.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import pandas as pd
import torch
from tqdm.auto import tqdm

from benchmarks.engine import random_data
from lib import cam, train
from lib.data import ROOT
from lib.engine import machine
from lib.engine.commands import Parser
from lib.run import Run
from lib.study import EVERYTHING, Study
from report import build

CSV = Path(__file__).with_name("growth.csv")
EPOCH, PRECISION = 40_000, "bf16"  # as the paper's profile
USUAL = {"n": 2, "batch_size": 128, "image_size": 32}
#: what grows -> its values, and what is not as usual then
GROWING = {
    "n": ((1, 2, 3, 5, 9), {}),
    "batch_size": ((2, 4, 8, 16, 32, 64, 128, 256, 512), {}),
    "image_size": ((32, 64, 128, 256), {"batch_size": 16}),
    "gradcam": ((32, 64, 128, 256), {}),
}
MAPS = 100  # images for which Grad-CAM's seconds are given
START, JOBS_SECONDS = 30, 20
SEEDS = (1, 4, 16)  # times 9 variants: runs in the report


def trainer(n: int, batch_size: int, image_size: int, images: int | None = None) -> train.Trainer:
    """On random images; at least two batches, and about as many pixels as 1,024 of CIFAR-10's images have."""
    machine.keep_freed_memory()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = images or max(2, 1024 * 32**2 // image_size**2 // batch_size) * batch_size
    data = random_data(images, image_size).to(device)
    run = Run(norm="bn", n=n, batch_size=batch_size, lr=0.01, schedule="constant", warmup_epochs=0, precision=PRECISION)
    model = train.new_model(run).to(device, memory_format=torch.channels_last)
    return train.Trainer(run, model, train.new_optimizer(run, model), data)


def measure(setting: dict) -> dict:
    """Seconds for EPOCH images and the peak of memory in MiB, both of this process."""
    ours, bar = trainer(**setting), tqdm(disable=True)
    ours.epoch(1, bar)
    seconds = min(ours.epoch(epoch, bar)["seconds"] for epoch in (2, 3)) * EPOCH / ours.count
    if ours.device.type == "cuda":
        return {"seconds": seconds, "MiB": torch.cuda.max_memory_allocated() / 2**20}
    return {"seconds": seconds, "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}


def measure_maps(image_size: int) -> dict:
    """Seconds for MAPS images' Grad-CAM maps by one network with BN, and the peak of memory in MiB, both of this process."""
    torch.set_num_threads(1)
    data = random_data(MAPS, image_size)
    model, seconds = train.new_model(Run(norm="bn")), []
    for _ in range(3):
        start = time.perf_counter()
        cam.maps(model, data, data.train)
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}


def alone(setting: dict) -> dict:
    command = [sys.executable, "-m", "benchmarks.growth", "--one", json.dumps(setting)]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def growth(what: str) -> list[dict]:
    values, unusual = GROWING[what]
    settings = [{"gradcam": value} if what == "gradcam" else USUAL | unusual | {what: value} for value in values]
    return [{"what": what, "value": value} | alone(s) for value, s in zip(values, tqdm(settings, desc=what), strict=True)]


def images_between(start: float, end: float) -> int:
    """Images that this process trains between two times of day; it trains before and until all have ended, too."""
    ours, bar, images = trainer(**USUAL, images=256), tqdm(disable=True), 0
    ours.epoch(1, bar)
    if time.time() > start:
        raise RuntimeError("the processes took too long to start; raise START")
    while (now := time.time()) < end:
        ours.epoch(1, bar)
        images += ours.count if start < now else 0
    return images


def side_by_side() -> list[dict]:
    """Images per second of all processes together, in the same stretch of time."""
    cores, rows = joblib.cpu_count(only_physical_cores=True), []
    for jobs in sorted({1, 2, cores // 2, cores, 2 * cores} - {0}):
        start = time.time() + START
        window = start, start + JOBS_SECONDS
        images = joblib.Parallel(n_jobs=jobs, batch_size=1)(joblib.delayed(images_between)(*window) for _ in range(jobs))
        rows.append({"what": "jobs", "value": jobs, "images_per_second": sum(images) / JOBS_SECONDS})
    return rows


def report_building() -> list[dict]:
    """Seconds to run the notebooks on finished runs and to build HTML and PDF."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in SEEDS:
            study = Study("smoke", "digits", seeds=tuple(range(count)), outputs=Path(folder) / "outputs")
            study.fit(EVERYTHING)
            count_of_runs = sum(map(len, study.plan(EVERYTHING).values()))
            start = time.perf_counter()
            failed = build.build(study, Path(folder) / f"report{count}", jobs=joblib.cpu_count())
            if failed:
                raise RuntimeError(f"notebooks failed: {failed}")
            rows.append({"what": "report", "value": count_of_runs, "seconds": time.perf_counter() - start})
    return rows


def main(argv=None) -> None:
    parts = {what: lambda what=what: growth(what) for what in GROWING} | {"jobs": side_by_side, "report": report_building}
    parser = Parser("benchmarks.growth", __doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(parts), default=tuple(parts))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        setting = json.loads(args.one)
        print(json.dumps(measure_maps(setting["gradcam"]) if "gradcam" in setting else measure(setting)))
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about = {"device": machine.environment(device)["device"], "precision": PRECISION}
    for what in args.only:
        found = pd.DataFrame(parts[what]()).assign(**about)
        print(found.drop(columns=list(about)).to_string(index=False, float_format="{:.1f}".format))
        before = pd.read_csv(CSV) if CSV.exists() else pd.DataFrame(columns=found.columns)
        others = before[(before["what"] != what) | (before["device"] != about["device"])]
        table = pd.concat([others, found]) if len(others) else found
        table.to_csv(CSV, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
