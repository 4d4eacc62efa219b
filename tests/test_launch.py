"""The scripts of launch/: their shell, what they pass on, and the one that runs here."""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

SCRIPTS = sorted(Path("launch").glob("*.sh"))
# What a shell splits, expands and ends commands at.
AWKWARD = ["--config", "configs/sd15_1step.py", "--config.prompts=/a b/it's $HOME; `x`.txt"]


def run(script, *arguments, path=None, **environment):
    environment = os.environ | environment
    if path:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    return subprocess.run([f"launch/{script}", *arguments], env=environment, capture_output=True, text=True)


@pytest.fixture
def commands(tmp_path):
    """A function that puts a command on a path of its own, which only writes down its arguments; and that path."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def add(name):
        log = tmp_path / f"{name}.log"
        # Each argument with a NUL after it, each call with another.
        (folder / name).write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >> {log}\nprintf '\\0' >> {log}\n")
        (folder / name).chmod(0o755)
        return lambda: [call.split("\0") for call in log.read_text().removesuffix("\0\0").split("\0\0")]

    add.path = folder
    return add


def unquoted(command):
    """What a shell makes of a command's last arguments."""
    return subprocess.run(["bash", "-c", f'printf "%s\\n" {command}'], capture_output=True, text=True).stdout.split(
        "\n"
    )


def test_shellcheck_has_nothing_to_say():
    shellcheck = Path(sysconfig.get_path("scripts")) / "shellcheck"
    done = subprocess.run([shellcheck, *SCRIPTS, ".ci/run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", [script.name for script in SCRIPTS if script.name != "tpu_worker.sh"])
def test_without_arguments_a_script_says_how_it_is_called(script):
    done = run(script)
    assert done.returncode == 2
    assert f"launch/{script}" in done.stderr and "--config" in done.stderr
    assert os.access(f"launch/{script}", os.X_OK)


@pytest.mark.parametrize(
    ("slices", "service", "everywhere"),
    [("one", "tpu-vm", ["--worker=all"]), ("queued", "queued-resources", ["--node=all", "--worker=all"])],
)
def test_a_pod_gets_the_code_and_the_arguments(commands, slices, service, everywhere):
    calls = commands("gcloud")
    assert run("tpu_pod.sh", "my-tpu", *AWKWARD, path=commands.path, SLICES=slices).returncode == 0
    copy, start = calls()
    assert copy[:4] == ["compute", "tpus", service, "scp"] and copy[5:] == ["my-tpu:", *everywhere]
    assert start[:5] == ["compute", "tpus", service, "ssh", "my-tpu"] and start[5:-1] == everywhere
    before, _, arguments = start[-1].partition("launch/tpu_worker.sh ")
    assert before.startswith("--command=mkdir -p sid_jax && tar ")
    assert unquoted(arguments)[:3] == AWKWARD


def test_a_workload_of_xpk(commands):
    calls = commands("xpk")
    assert run("xpk.sh", "cluster", "name", "v5litepod-16", "2", *AWKWARD, path=commands.path).returncode == 0
    (call,) = calls()
    assert call[:2] == ["workload", "create"]
    assert {"--cluster=cluster", "--workload=name", "--tpu-type=v5litepod-16", "--num-slices=2"} <= set(call)
    before, _, arguments = call[-1].partition("-m sid_jax.train ")
    assert "'jax[tpu]==" in before
    assert unquoted(arguments)[:3] == AWKWARD


def test_a_step_of_slurm(commands):
    calls = commands("srun")
    assert run("slurm.sh", *AWKWARD, path=commands.path).returncode == 0
    assert calls() == [["--kill-on-bad-exit=1", "python", "-m", "sid_jax.train", *AWKWARD]]


def test_the_gpus_of_one_machine(commands):
    calls = commands("python")
    assert run("gpu.sh", *AWKWARD, path=commands.path).returncode == 0
    assert calls() == [["-m", "sid_jax.train", *AWKWARD]]


def test_a_worker_installs_and_trains(commands, tmp_path):
    """In a copy, as it makes its virtual environment beside itself."""
    (tmp_path / "launch").mkdir()
    for name in ("launch/tpu_worker.sh", "requirements.txt"):
        (tmp_path / name).write_bytes(Path(name).read_bytes())
    installs, trains = commands("uv"), commands("python")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (commands.path / "python").rename(tmp_path / ".venv/bin/python")
    environment = os.environ | {"PATH": f"{commands.path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    subprocess.run(["bash", tmp_path / "launch/tpu_worker.sh", *AWKWARD], env=environment, check=True)
    (install,) = installs()
    assert install[:2] == ["pip", "install"] and any(name.startswith("jax[tpu]==") for name in install)
    assert trains() == [["-m", "sid_jax.train", *AWKWARD]]


def test_local_processes_end_together(tmp_path):
    """The first that fails says how; the others, which would wait for it for ever, are ended."""
    python, log = tmp_path / "python", tmp_path / "calls"
    python.write_text(f"""#!/bin/sh
        if [ "$1" = -c ]; then echo 1234; exit; fi
        printf '%s|' "$@" "$JAX_PLATFORMS" "$XLA_FLAGS" >> {log}.$8
        if [ "$8" = 1 ]; then until [ -e {log}.0 ] && [ -e {log}.2 ]; do sleep 0.1; done; exit 7; fi
        exec sleep 100
    """)
    python.chmod(0o755)
    assert run("local.sh", "3", "4", *AWKWARD, PYTHON=str(python), XLA_FLAGS="--old").returncode == 7
    flags = ["-m", "sid_jax.train", "--coordinator", "localhost:1234", "--num-processes", "3", "--process-id"]
    environment = ["cpu", "--old --xla_force_host_platform_device_count=4"]
    for number in range(3):
        called = Path(f"{log}.{number}").read_text().split("|")[:-1]
        assert called == [*flags, str(number), *AWKWARD, *environment]


def test_local_processes_succeed_together(tmp_path):
    (tmp_path / "python").write_text('#!/bin/sh\n[ "$1" = -c ] && echo 1234\nexit 0\n')
    (tmp_path / "python").chmod(0o755)
    assert run("local.sh", "2", "1", *AWKWARD, PYTHON=str(tmp_path / "python")).returncode == 0
