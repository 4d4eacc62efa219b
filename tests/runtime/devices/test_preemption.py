import os
import signal

from sid_jax.runtime.cli import command_line
from sid_jax.runtime.devices.preemption import EXIT_CODE, Preempted, watching


def test_sigterm_is_told_and_the_process_goes_on():
    before = signal.getsignal(signal.SIGTERM)
    with watching() as preemption:
        assert not preemption.reached(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.reached(2)
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_exit_code(capsys):
    def main(argv):
        raise Preempted("saved at update 7")

    assert command_line.run(main, []) == EXIT_CODE == 75
    assert capsys.readouterr().err == "saved at update 7; run the same command again to go on\n"
