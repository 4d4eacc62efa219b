#!/usr/bin/env bash
# A run in N processes on this machine, each with D simulated CPU devices: what a pod does, to try it out and to test it.
#   launch/local.sh N D --config configs/digits_1step.py --config.mesh.fsdp=4
set -euo pipefail

if [[ $# -lt 3 || ! $1 =~ ^[1-9][0-9]*$ || ! $2 =~ ^[1-9][0-9]*$ ]]; then
    sed -n '2,3s/^# *//p' "$0" >&2
    exit 2
fi
processes=$1 devices=$2
shift 2
python=${PYTHON:-python}
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
export JAX_PLATFORMS=cpu
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=$devices"

started=()
for ((id = 0; id < processes; id++)); do
    "$python" -m sid_jax.train --coordinator "localhost:$port" --num-processes "$processes" --process-id "$id" "$@" &
    started+=($!)
done

# The first that fails ends all of them, and so does a signal; each has a minute to save what it has.
trap : INT TERM
status=0
for _ in "${started[@]}"; do
    wait -n || { status=$?; break; }
done
if ((status)); then
    kill -TERM "${started[@]}" 2>/dev/null || true
    for ((waited = 0; waited < ${GRACE:-60}; waited++)); do
        [[ -n $(jobs -pr) ]] || break
        sleep 1
    done
    kill -KILL "${started[@]}" 2>/dev/null || true
fi
exit "$status"
