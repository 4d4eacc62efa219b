"""What ends a command before its `main` is called: one line, and the exit code that it would have later."""

import os
import signal
import subprocess
import sys

import jax
import pytest

from sid_jax.runtime.cli import command_line

COMMAND = """
import time
def main(argv):
    print("began")
if __name__ == "slow":
    print("importing", flush=True)
    try:
        time.sleep(60)
    except BaseException as error:  # as an import does of a module that it can do without
        pass
"""

CONVOLVES = """
import os
import jax
def main(argv):
    x = jax.numpy.ones((1, 1, 1, 1))
    print("began", os.environ["XLA_FLAGS"], jax.lax.conv(x, x, (1, 1), "SAME")[0, 0, 0, 0], sep="\\n")
"""

# A test that runs in a shell's background has SIGINT ignored, and so would have what it starts.
STARTS = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from sid_jax.runtime.cli.start import start; start({!r}, preemptible={})"
)


def begin(folder, name, program=COMMAND, preemptible=False, arguments=(), stdin=None, **environment):
    """Starts the module `name` of the text `program`; with `stdin`, by a program that comes from there."""
    (folder / f"{name}.py").write_text(program)
    how = ["-c", STARTS.format(name, preemptible)] if stdin is None else ["-"]
    return subprocess.Popen(
        [sys.executable, *how, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"PYTHONPATH": f"{folder}:{os.getcwd()}"} | environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 75, "told to end")]
)
def test_a_signal_while_a_command_is_imported(tmp_path, number, code, said):
    process = begin(tmp_path, "slow", preemptible=True, XLA_FLAGS="")
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    error = process.communicate()[1]
    assert process.returncode == code
    assert error.startswith(said) and error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_ENABLE_X64", "maybe"),
        ("JAX_DEFAULT_MATMUL_PRECISION", "good"),
        ("XLA_FLAGS", "--xla_cpu_nothing=1"),
        ("XLA_FLAGS", "no flag"),
    ],
)
def test_settings_that_jax_does_not_take(tmp_path, name, value):
    process = begin(tmp_path, "quick", **({"XLA_FLAGS": ""} | {name: value}))
    out, error = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert error.startswith("error: ") and error.count("\n") == 1 and name in error


@pytest.mark.parametrize("given", ["", "--xla_cpu_multi_thread_eigen=true"])
def test_xla_computes_convolutions_of_cpus_itself(tmp_path, given):
    began, flags, x = run_of_a_convolution(tmp_path, given)
    assert (began, x) == ("began", "1.0") and flags.startswith(given)
    if jax.lib.__version__.startswith("0.10."):
        assert "ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION" in flags
    else:  # which versions know the flag is not known
        assert flags == given


def test_the_users_choice_of_convolutions_stays(tmp_path):
    given = "--xla_cpu_experimental_ynn_fusion_type=+LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
    assert run_of_a_convolution(tmp_path, given)[1] == given


def run_of_a_convolution(folder, flags):
    process = begin(folder, "convolves", CONVOLVES, XLA_FLAGS=flags, JAX_PLATFORMS="cpu")
    out, error = process.communicate()
    assert process.returncode == 0, error
    return out.splitlines()


@pytest.mark.parametrize("error", [RuntimeError("Unable to initialize backend 'gpuu'"), AssertionError()])
def test_no_device(error, monkeypatch, capsys):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "gpuu")
    assert command_line.run(lambda argv: jax.devices() and None, []) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: JAX can't start its devices, as the environment's JAX_PLATFORMS=gpuu asks: ")
    assert said.count("\n") == 1


TUNED = """
import os, sys
def main(argv):
    print(os.environ.get("GLIBC_TUNABLES"), os.getpid(), sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is another one")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_memory_comes_in_large_pages_where_nothing_else_is_asked_for(tmp_path, given, expected):
    process = begin(tmp_path, "tuned", TUNED, arguments=("a b", "--x"), GLIBC_TUNABLES=given, XLA_FLAGS="")
    assert process.communicate()[0] == f"{expected} {process.pid} ['a b', '--x']\n"


def test_a_program_from_standard_input_is_not_begun_anew(tmp_path, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    process = begin(tmp_path, "tuned", TUNED, stdin=subprocess.PIPE, XLA_FLAGS="")
    out = process.communicate(STARTS.format("tuned", False))[0]
    assert out.startswith("None ") and out.endswith(" []\n")
