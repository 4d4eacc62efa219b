#!/usr/bin/env bash
# On one worker of a TPU slice, where launch/tpu_pod.sh calls it: installs what is missing, and trains.
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH="$HOME/.local/bin:$PATH"
if ! command -v uv >/dev/null; then
    curl -LsSf https://astral.sh/uv/install.sh | sh
fi
if [[ ! -d .venv ]]; then
    uv venv --python 3.12 .venv # the images' own Python may be older than 3.11
fi
uv pip install --quiet --python .venv/bin/python -r requirements.txt "$(sed -n 's/^jax==/jax[tpu]==/p' requirements.txt)" gcsfs
exec .venv/bin/python -m sid_jax.train "$@"
