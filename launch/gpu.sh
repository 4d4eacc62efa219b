#!/usr/bin/env bash
# A run on all GPUs of this machine, or on those of CUDA_VISIBLE_DEVICES, in one process.
#   launch/gpu.sh --config configs/sd15_1step.py --config.prompts=prompts.txt
set -euo pipefail

if [[ $# -lt 2 ]]; then
    sed -n '2,3s/^# *//p' "$0" >&2
    exit 2
fi
cd "$(dirname "$0")/.."
export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda} # rather than train on the CPU where the driver is missing
# Most of the memory at once, rather than piece by piece, leaves no gaps in it.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.93}
exec "${PYTHON:-python}" -m sid_jax.train "$@"
