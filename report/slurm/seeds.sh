#!/bin/bash
# The study with three seeds, each on a GPU node of its own: sbatch report/slurm/seeds.sh
# All share one outputs folder, in which a run is trained by one process at a time and resumed from its last epoch. Before, on a node
# with a network:
#     make .venv/installed && .venv/bin/python -c 'from lib import data; data.load("cifar10", "data")'
#SBATCH --job-name=norms --array=0-2 --gres=gpu:1 --cpus-per-task=8 --mem=32G --time=12:00:00
#SBATCH --requeue --open-mode=append --signal=B:USR1@300
cd "$SLURM_SUBMIT_DIR" || exit
export TQDM_MININTERVAL=60  # seconds between two lines of progress in the log
variants=torch_bn,bn,in,bin,ln,gn,nn,bn_8,gn_8,sweep,recipes,cnn,transfer  # without more_seeds and more_small, for a single seed

source report/slurm/requeue.sh
until_time_is_over "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" \
  .venv/bin/python -m lib.study --profile paper --dataset cifar10 --data-dir data --seeds "$SLURM_ARRAY_TASK_ID" \
  --variants "$variants" --device cuda
