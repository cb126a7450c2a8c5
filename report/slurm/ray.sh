#!/bin/bash
# The whole study on all nodes of one job, through Ray: sbatch report/slurm/ray.sh
# Before, on a node with a network:
#     make .venv/installed && .venv/bin/pip install -e '.[ray]' && .venv/bin/python -c 'from lib import data; data.load("cifar10", "data")'
#SBATCH --job-name=norms --nodes=4 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=16 --mem=32G --time=12:00:00
#SBATCH --requeue --open-mode=append --signal=B:USR1@300
cd "$SLURM_SUBMIT_DIR" || exit
export TQDM_MININTERVAL=60
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN  # without one, whoever reaches the port can run code as you
RAY_AUTH_TOKEN=$(.venv/bin/python -c 'import secrets; print(secrets.token_hex(32))')
port=$((20000 + SLURM_JOB_ID % 20000))  # other jobs on this node have others
export RAY_ADDRESS
RAY_ADDRESS=$(.venv/bin/python -c 'from ray.util import get_node_ip_address; print(get_node_ip_address())'):$port
.venv/bin/ray start --head --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" || exit
others=$((SLURM_NNODES - 1))
if [ "$others" -gt 0 ]; then
  srun --nodes="$others" --ntasks="$others" --cpus-per-task="$SLURM_CPUS_PER_TASK" --exclude="$SLURMD_NODENAME" \
    .venv/bin/ray start --address="$RAY_ADDRESS" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
fi
.venv/bin/python - "$SLURM_NNODES" <<'END' || exit
import sys, time
import ray

ray.init(logging_level="error")
end, wanted = time.monotonic() + 300, int(sys.argv[1])
while (here := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > end:
        sys.exit(f"error: {here} of {wanted} nodes are there after five minutes")
    time.sleep(1)
END
source report/slurm/requeue.sh
until_time_is_over "$SLURM_JOB_ID" \
  .venv/bin/python -m lib.study --profile paper --dataset cifar10 --data-dir data --seeds 0,1,2 --backend ray
status=$?
.venv/bin/ray stop
exit "$status"
