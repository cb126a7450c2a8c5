"""The machine that trains: its devices, how PyTorch is to use them, and what is written down about it."""

import contextlib
import ctypes
import functools
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.data import ROOT
from lib.engine.compiled import bf16_is_emulated


def check_device(device) -> torch.device:
    """None is the first GPU if there is one, else the CPU. ValueError for a device that is not here, or that PyTorch cannot
    use: nothing is trained on a CPU because a GPU's driver is too old."""
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.device_count() else "cpu"))
    except (RuntimeError, TypeError):
        chosen = None
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if chosen is None or (chosen.type != "cpu" and f"{chosen.type}:{chosen.index or 0}" not in here):
        raise ValueError(f"device is {device!r}; here are {', '.join(here)}")
    if chosen.type == "cpu":
        return chosen
    gpu = torch.device("cuda", chosen.index or 0)
    if problem := why_not(gpu):
        raise ValueError(
            f"{gpu} cannot be used by PyTorch {torch.__version__}: {problem}; install what it asks for, or train on the CPU, "
            "where CUDA_VISIBLE_DEVICES= hides the GPU"
        )
    return gpu


def why_not(gpu: torch.device) -> str:
    """Why PyTorch cannot compute on a GPU that the system counts, by its driver or its architecture; empty if it can."""
    try:
        major, minor = torch.cuda.get_device_capability(gpu)
    except (RuntimeError, AssertionError) as error:
        return f"CUDA {torch.version.cuda} does not start ({str(error).strip().splitlines()[0].rstrip('.')})"
    built = [arch.partition("_")[::2] for arch in torch.cuda.get_arch_list()]  # ("sm", "90"), …, ("compute", "120")
    for kind, version in built:
        of = int(re.match(r"\d+", version)[0])
        if of <= 10 * major + minor and (kind == "compute" or of // 10 == major):
            return ""
    return f"its architecture is sm_{major}{minor}, and there is code for {', '.join(torch.cuda.get_arch_list())}"


def gpus() -> list[torch.device]:
    """Every GPU here. ValueError if one cannot be used."""
    return [check_device(f"cuda:{i}") for i in range(torch.cuda.device_count())]


@contextlib.contextmanager
def prepared(device: torch.device, stream: int = 0):
    """All that a training needs of a device that `check_device` gave, and with a GPU one of its side streams: the default one
    cannot be captured as a graph. OSError, in one sentence, for what a GPU has too little of."""
    keep_freed_memory()
    gpu = contextlib.ExitStack()
    try:
        with gpu, one_cpu_thread(), full_float32():
            if device.type == "cuda":
                gpu.enter_context(torch.cuda.stream(side_stream(device, stream)))
            yield
    except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
        why = str(error).strip().splitlines()[0]
        if not re.search("out of memory|busy or unavailable", why):  # a fault of the code or of the GPU
            raise
        raise OSError(
            f"{why}; the same command goes on, and fewer trainings side by side need less, as --jobs 1 has them"
        ) from None


@functools.cache
def side_stream(device: torch.device, number: int) -> torch.cuda.Stream:
    """Made once: every new stream brings workspaces of 65 MB that are never given back."""
    return torch.cuda.Stream(device)


@contextlib.contextmanager
def one_cpu_thread():
    """PyTorch on one thread, and then on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def full_float32():
    """On a GPU too what is called float32 is float32 and not TF32, and convolutions are added up in one order, whatever a
    notebook has set; afterwards that holds again."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    wanted = (cudnn.conv, "fp32_precision", "ieee"), (matmul, "fp32_precision", "ieee"), (cudnn, "deterministic", True)
    with contextlib.ExitStack() as undone:
        for place, name, value in wanted:
            undone.callback(setattr, place, name, getattr(place, name))
            setattr(place, name, value)
        yield


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep large blocks that were freed. By default it gives them back to the system, which clears them page by
    page when the next step asks for the same again: a third of the time of our norms. Nothing happens without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        mallopt(mmap_threshold, 32 * 2**20)  # the most that it takes
        mallopt(trim_threshold, 2**31 - 1)


def environment(device: torch.device, at_once: int = 1) -> dict:
    """Device and how many trainings take turns on it, thread count, versions, commit and how bf16 convolutions are computed:
    what else could explain a difference between two runs, in results or seconds."""
    return {
        "device": device_name(device) + (f", {at_once} trainings in turns" if at_once > 1 else ""),
        **of_gpu(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {package.__name__: str(package.__version__) for package in (torch, np, pd)},
        "commit": commit(),
        "bf16 convolutions": "in float32" if device.type == "cpu" and bf16_is_emulated() else "in bf16",
    }


def of_gpu(device: torch.device) -> dict:
    if device.type == "cpu":
        return {}
    number = ctypes.c_int()  # the CUDA that the driver supports, as in 13000
    ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1").cuDriverGetVersion(ctypes.byref(number))
    return {
        "driver": f"CUDA {number.value // 1000}.{number.value % 1000 // 10}",
        "cuDNN": torch.backends.cudnn.version(),
    }


def together(before, now):
    """One environment from those of all that trained a run in turn: their values side by side where they differ."""
    if before is None:
        return now
    if isinstance(now, dict):
        return before | {name: together(before.get(name), value) for name, value in now.items()}
    return before if str(now) in str(before).split("; ") else f"{before}; {now}"


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
