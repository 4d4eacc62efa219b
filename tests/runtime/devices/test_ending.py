"""Told to end: at once while there is nothing to lose, whatever the main thread does; later where there is."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import hashlib, signal, sys
from sid_jax.runtime.devices.ending import hearing
# Said here, whatever the tests themselves were begun under.
signal.signal(signal.SIGHUP, signal.SIG_IGN if "nohup" in sys.argv else signal.SIG_DFL)
with hearing() as ending:
    if "later" in sys.argv:
        ending.later()
    print("ready", flush=True)
    if "busy" in sys.argv:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # for minutes the main thread is not in Python
    sys.stdin.readline()
    print("told", ending.told)
"""


def begin(*arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("busy", [["busy"], []])
def test_a_process_with_nothing_to_lose_ends_at_once(number, busy):
    process = begin(*busy)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == 75
    assert said == "told to end where nothing is lost by it; run the same command again to go on\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_with_something_to_lose_is_told(number):
    process = begin("later")
    process.send_signal(number)
    assert process.communicate("\n") == ("told True\n", "")
    assert process.returncode == 0


def test_nohup_is_heeded():
    process = begin("nohup")
    process.send_signal(signal.SIGHUP)
    assert process.communicate("\n") == ("told False\n", "")
    assert process.returncode == 0
