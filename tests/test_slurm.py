"""The Slurm scripts, run by bash with stand-ins for srun, scontrol, Ray and Python that write down how they were called."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from lib.data import ROOT

STUB = """#!/bin/bash
{ echo "$(basename "$0") $*"; echo "  token $RAY_AUTH_MODE $RAY_AUTH_TOKEN at $RAY_ADDRESS"; } >> calls
"""
PYTHON = """case "$*" in
  *secrets*) echo 0123abcd ;;
  *get_node_ip_address*) echo 10.0.0.7 ;;
  "- "*) cat >> waiting.py; exit $NODES_MISSING ;;
  *lib.study*)
    trap 'echo ended >> calls; exit 143' TERM
    touch ready
    for ((i = 0; i < ${LONG:-0}; i++)); do sleep 0.1; done ;;
esac
"""


@pytest.fixture
def script(tmp_path):
    """Starts a script in a folder of stand-ins, as Slurm would."""
    started = []

    def start(name: str, **environment) -> subprocess.Popen:
        (tmp_path / ".venv" / "bin").mkdir(parents=True)
        shutil.copytree(ROOT / "report" / "slurm", tmp_path / "report" / "slurm")
        for stub in ("srun", "scontrol", ".venv/bin/ray", ".venv/bin/python"):
            file = tmp_path / stub
            file.write_text(STUB + (PYTHON if stub.endswith("python") else ""))
            file.chmod(0o755)
        slurm = {
            "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "4321", "SLURM_ARRAY_JOB_ID": "4319",
            "SLURM_ARRAY_TASK_ID": "2", "SLURM_NNODES": "4",
            "SLURM_CPUS_PER_TASK": "16", "SLURMD_NODENAME": "n01", "NODES_MISSING": "0",
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
        }  # fmt: skip
        command = ["bash", str(ROOT / "report" / "slurm" / name)]
        started.append(subprocess.Popen(command, env=os.environ | slurm | environment, cwd="/"))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def calls(folder) -> list[str]:
    return [line for line in (folder / "calls").read_text().splitlines() if not line.startswith("  ")]


def test_a_node_trains_its_seed(script, tmp_path):
    assert script("seeds.sh").wait(30) == 0
    (call,) = calls(tmp_path)
    assert call.startswith(
        "python -m lib.study --profile paper --dataset cifar10 --data-dir data --seeds 2 --variants torch_bn,bn"
    )
    assert call.endswith("--device cuda")


@pytest.mark.parametrize("name, job", [("seeds.sh", "4319_2"), ("ray.sh", "4321")])
def test_a_job_that_runs_out_of_time_goes_back_into_the_queue_once_its_study_has_ended(script, tmp_path, name, job):
    """Of an array this task alone: its SLURM_JOB_ID may be that of the whole array."""
    process = script(name, LONG="300")
    while not (tmp_path / "ready").is_file():
        time.sleep(0.05)
    time.sleep(0.3)  # until the script waits for it
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 143
    after = [call for call in calls(tmp_path) if call.split()[0] in ("scontrol", "ended")]
    assert after == [f"scontrol requeue {job}", "ended"]
    text = (ROOT / "report" / "slurm" / name).read_text()
    assert re.search(r"^#SBATCH .*--requeue .*--open-mode=append .*--signal=B:USR1@300$", text, flags=re.M)


def test_ray_starts_on_all_nodes_before_the_study_does(script, tmp_path):
    assert script("ray.sh").wait(30) == 0
    found = calls(tmp_path)
    address = f"10.0.0.7:{20000 + 4321}"
    worker = f"ray start --address={address} --num-cpus=16 --block"
    (srun,) = [call for call in found if call.startswith("srun")]
    assert srun == f"srun --nodes=3 --ntasks=3 --cpus-per-task=16 --exclude=n01 .venv/bin/{worker}"
    rest = [call for call in found if call != srun][2:]  # the first two asked for a token and an address
    assert rest == [
        "ray start --head --port=24321 --num-cpus=16", "python - 4",
        "python -m lib.study --profile paper --dataset cifar10 --data-dir data --seeds 0,1,2 --backend ray", "ray stop",
    ]  # fmt: skip
    text = (tmp_path / "calls").read_text()
    assert text.count(f"  token token 0123abcd at {address}") == 5  # in all processes of the cluster
    compile((tmp_path / "waiting.py").read_text(), "waiting.py", "exec")


def test_a_study_does_not_start_without_all_nodes(script, tmp_path):
    assert script("ray.sh", NODES_MISSING="1").wait(30) == 1
    assert not any("lib.study" in call for call in calls(tmp_path))


def test_one_node_needs_no_others(script, tmp_path):
    assert script("ray.sh", SLURM_NNODES="1").wait(30) == 0
    assert not any(call.startswith("srun") for call in calls(tmp_path))
