"""A tiny pipeline with random weights, on disk, for the tests of the commands; compiled programs are shared."""

import fcntl
import gc
import importlib.metadata
import os
import subprocess
import sys
import tempfile

# Small networks take longer to compile than to run. LLVM's optimisations are left out, before JAX starts, and the
# splitting of a program for more cores than there are. So are XLA's newer emitters of loops, which are slower here,
# where they can be: later versions have no others, and end a process for a flag that they do not know.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_parallel_codegen_split_count=1"
    + (" --xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib").startswith("0.10.") else "")
)

# As `plan` has it for itself: the plugin of GPUs does not compile for them where JAX looks for one here.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
import torchvision_beside_cpu_torch
from hypothesis import configuration
from jax._src import compilation_cache as programs
from jax._src import compiler

from sid_jax import train
from sid_jax.digits.tiny import write_tiny

torchvision_beside_cpu_torch.install()

# What Hypothesis keeps, which it begins with before the first fixture; the folder is removed at the end.
_hypothesis = tempfile.TemporaryDirectory(prefix="hypothesis-")
configuration.set_hypothesis_home_dir(_hypothesis.name)


def pytest_collection_modifyitems(items):
    """Tests of whole commands come first: they take longest, and a worker that began one last would end alone."""
    items.sort(key=lambda item: len(item.path.parts))


def pytest_collection_finish():
    """Tracing makes objects by the million, and few circles among them: Python need not look for circles so often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """The folder of the session, which its workers have in common."""
    root = tmp_path_factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


@pytest.fixture(scope="session")
def once(common):
    """Has a folder made by the worker that asks for it first, and gives it to all."""

    def folder(name, make):
        with (common / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (common / f"{name}.made").exists():
                (common / name).mkdir()
                make(common / name)
                (common / f"{name}.made").touch()
        return common / name

    return folder


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(common):
    """Programs that several tests compile are compiled once in a session, and nothing is left behind."""
    jax.config.update("jax_compilation_cache_dir", str(common / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    kept, read, write = {}, programs.get_executable_and_time, compiler._cache_write

    def get(key, *rest):
        """As JAX reads a program of the folder, which takes seconds, but for those that this process has already."""
        if key not in kept:
            found = read(key, *rest)
            if found[0] is None:
                return found
            kept[key] = found
        return kept[key]

    def put(key, seconds, name, backend, executable, *callbacks):  # which newer versions do not give to it
        """As JAX writes a program into the folder; small ones, which it does not write, are kept in this process."""
        if not any(callbacks):
            kept[key] = executable, int(seconds)
        write(key, seconds, name, backend, executable, *callbacks)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(programs, "get_executable_and_time", get)
        patched.setattr(compiler, "_cache_write", put)
        yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="session")
def tiny(once):
    """A folder with `teacher` (a pipeline of 32x32 pictures), `metric` and `prompts.txt`; not to be changed."""
    return once("tiny", write_tiny)


@pytest.fixture(scope="session")
def tiny_overrides(tiny):
    """Overrides of `configs/digits_1step.py` for a run of 6 updates from the tiny teacher."""
    return [
        f"--config.teacher={tiny / 'teacher'}",
        f"--config.prompts={tiny / 'prompts.txt'}",
        f"--config.evaluate.metric={tiny / 'metric'}",
        "--config.images=48",
        "--config.batch=8",
        "--config.log_every=2",
        "--config.sample_every=3",
        "--config.sample_images=4",
        "--config.checkpoint_every=3",
        "--config.evaluate.samples=100",
        "--config.evaluate.pictures=0",
        "--config.evaluate.teacher_steps=2",
    ]


@pytest.fixture
def tiny_arguments(tiny_overrides, tmp_path):
    """Arguments of `train` for a run of 6 updates, without the table at its end, in `tmp_path / "run"`."""
    return [
        "--config=configs/digits_1step.py", f"--workdir={tmp_path / 'run'}", *tiny_overrides,
        "--config.evaluate.metric=",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def finished(tiny_overrides, once):
    """The folder of a run that has ended, with its table; not to be changed."""

    def make(folder):
        train.main(["--config=configs/digits_1step.py", f"--workdir={folder / 'run'}", *tiny_overrides])

    return once("finished", make) / "run"


@pytest.fixture(scope="session")
def pipelines(once):
    """Folders of a pipeline of each kind, `sd` and `sdxl`, as PyTorch's diffusers writes them; only to be read."""

    def make(folder):
        import torch_pipelines  # here, as PyTorch takes seconds

        torch_pipelines.save(folder)

    folder = once("pipelines", make)
    return {kind: folder / kind for kind in ("sd", "sdxl")}


@pytest.fixture
def eight_devices():
    """Runs a program in a process of its own, with arguments, on 8 simulated devices; returns what it printed."""

    def run(program, *arguments):
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
        simulated = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        done = subprocess.run(command, env=os.environ | simulated, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
