#!/usr/bin/env bash
# A run on one or several TPU slices of a GKE cluster, as a workload of XPK (pip install xpk).
#   launch/xpk.sh CLUSTER WORKLOAD v5litepod-256 2 --config configs/sdxl_4step.py --workdir gs://BUCKET/run \
#       --config.prompts=gs://BUCKET/prompts.txt --config.mesh.data=2
set -euo pipefail

if [[ $# -lt 5 || $1 == -* || ! $4 =~ ^[1-9][0-9]*$ ]]; then
    sed -n '2,4s/^# *//p' "$0" >&2
    exit 2
fi
cluster=$1 workload=$2 type=$3 slices=$4
shift 4
cd "$(dirname "$0")/.."
jax=$(sed -n 's/^jax==/jax[tpu]==/p' requirements.txt)
xpk workload create --cluster="$cluster" --workload="$workload" --tpu-type="$type" --num-slices="$slices" \
    --base-docker-image="${IMAGE:-python:3.12}" --script-dir=. \
    --command="pip install --quiet -r requirements.txt '$jax' gcsfs && python -m sid_jax.train $(printf '%q ' "$@")"
