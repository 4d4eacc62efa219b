#!/usr/bin/env bash
# A run on every worker of a Cloud TPU slice that exists; gcloud says which project and zone, or CLOUDSDK_COMPUTE_ZONE.
#   launch/tpu_pod.sh NAME --config configs/sd15_1step.py --workdir gs://BUCKET/run --config.prompts=gs://BUCKET/prompts.txt
# Several slices, as queued resources: SLICES=queued launch/tpu_pod.sh NAME ... --config.mesh.data=NUMBER_OF_SLICES
set -euo pipefail

if [[ $# -lt 2 || $1 == -* ]]; then
    sed -n '2,4s/^# *//p' "$0" >&2
    exit 2
fi
name=$1
shift
if [[ ${SLICES:-one} == queued ]]; then
    tpus=(gcloud compute tpus queued-resources) everywhere=(--node=all --worker=all)
else
    tpus=(gcloud compute tpus tpu-vm) everywhere=(--worker=all)
fi

# What is committed is what runs.
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git archive --format=tar.gz --output="$folder/sid_jax.tar.gz" HEAD
"${tpus[@]}" scp "$folder/sid_jax.tar.gz" "$name:" "${everywhere[@]}"

command="mkdir -p sid_jax && tar -xzf sid_jax.tar.gz -C sid_jax && exec sid_jax/launch/tpu_worker.sh $(printf '%q ' "$@")"
"${tpus[@]}" ssh "$name" "${everywhere[@]}" --command="$command"
