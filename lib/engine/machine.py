"""The machine that trains: its devices, how PyTorch is to use them, and what is written down about it."""

import contextlib
import ctypes
import functools
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.data import ROOT
from lib.engine.compiled import bf16_is_emulated


def check_device(device) -> torch.device:
    """None is the GPU if there is one, else the CPU. ValueError for a device that is not here."""
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, TypeError):
        chosen = None
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if chosen is None or (chosen.type != "cpu" and f"{chosen.type}:{chosen.index or 0}" not in here):
        raise ValueError(f"device is {device!r}; here are {', '.join(here)}")
    return chosen


@contextlib.contextmanager
def one_cpu_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def full_float32():
    """What is called float32 is float32 on a GPU too and not TF32, whatever a notebook has set; afterwards that holds again."""
    settings = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep large blocks that were freed. By default it gives them back to the system, which clears them page by
    page when the next step asks for the same again: a third of the time of our norms. Nothing happens without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        mallopt(mmap_threshold, 32 * 2**20)  # the most that it takes
        mallopt(trim_threshold, 2**31 - 1)


def environment(device: torch.device) -> dict:
    """Device, thread count, versions, commit and how bf16 convolutions are computed: what else could explain a difference
    between two runs."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {package.__name__: str(package.__version__) for package in (torch, np, pd)},
        "commit": commit(),
        "bf16 convolutions": "in float32" if device.type == "cpu" and bf16_is_emulated() else "in bf16",
    }


def together(before: dict | None, now: dict) -> dict:
    """One environment from those of all that trained a run in turn: their values side by side where they differ."""
    if before is None:
        return now

    def both(old, new):
        if isinstance(old, dict):
            return {name: both(old[name], new[name]) if name in old else new[name] for name in new}
        return old if str(new) in str(old).split("; ") else f"{old}; {new}"

    return both(before, now)


def device_name(device: torch.device) -> str:
    """The GPU, or the CPU with the vector instructions that PyTorch uses on it: AMD EPYC, AVX2."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def commit() -> str:
    """The commit of this code, with a + if the working tree differs from it; empty outside a git checkout."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
