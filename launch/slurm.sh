#!/usr/bin/env bash
# A run on GPUs of a SLURM cluster: one process a node, which has all GPUs of the node. The shell's environment is taken.
#   sbatch --nodes=4 --gres=gpu:8 launch/slurm.sh --config configs/sdxl_4step.py --workdir /shared/run --config.prompts=prompts.txt
#SBATCH --job-name=sid_jax
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --signal=TERM@180
set -euo pipefail

if [[ $# -lt 2 ]]; then
    sed -n '2,3s/^# *//p' "$0" >&2
    exit 2
fi
# Most of the memory at once, rather than piece by piece, leaves no gaps in it.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.93}
srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m sid_jax.train "$@"
