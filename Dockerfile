# For GPU nodes: the tested versions of requirements.txt, with the CUDA libraries that come with jax[cuda12]. The host
# needs NVIDIA's driver and container toolkit, and nothing else.
#   docker build -t sid_jax .
#   docker run --gpus all --ipc=host -v "$PWD:/work" -v "$HOME/.cache/huggingface:/cache" sid_jax \
#       train --config sd15_1step --config.prompts=prompts.txt
FROM python:3.12-slim

WORKDIR /src
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt "$(sed -n 's/^jax==/jax[cuda12]==/p' requirements.txt)" gcsfs
COPY . .
RUN pip install --no-cache-dir --no-deps .

# As launch/gpu.sh has them: no training on the CPU where the driver is missing, and most of the memory at once.
ENV JAX_PLATFORMS=cuda XLA_PYTHON_CLIENT_MEM_FRACTION=0.93 HF_HOME=/cache PYTHONUNBUFFERED=1
WORKDIR /work
ENTRYPOINT ["sid-jax"]
CMD ["--help"]
