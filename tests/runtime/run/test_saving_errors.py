import asyncio
import logging
import sys
import types

import pytest

from sid_jax.runtime.run.saving_errors import leave_out_echoes, one_line

FULL = "RESOURCE_EXHAUSTED: Error writing \"w/0\" in OCDBT database: No space left on device [os_error_code='28']"


@pytest.fixture
def hook(monkeypatch):
    """The errors that reach the hook for those that can't be raised."""
    reached = []
    monkeypatch.setattr(sys, "unraisablehook", reached.append)
    leave_out_echoes()
    leave_out_echoes()  # each start of a run does so
    return reached


def unraisable(error, source=None):
    return types.SimpleNamespace(exc_value=error, object=source)


def test_a_loop_that_is_closed_is_left_out_and_nothing_else(hook):
    others = [
        unraisable(RuntimeError("Event loop is closed"), source="a coroutine of somebody else"),
        unraisable(RuntimeError("other")),
        unraisable(ValueError("Event loop is closed")),
    ]
    for error in (unraisable(RuntimeError("Event loop is closed")), *others):
        sys.unraisablehook(error)
    assert hook == others


@pytest.mark.parametrize(
    "error, shown", [(ValueError(FULL), 0), (ValueError("other"), 1), (RuntimeError(FULL), 1)], ids=["full", "a", "b"]
)
def test_only_what_tensorstore_could_not_write_is_left_out(hook, caplog, error, shown):
    async def forgotten():
        raise error

    async def main():
        await asyncio.gather(asyncio.create_task(forgotten()), return_exceptions=True)
        asyncio.get_running_loop().call_exception_handler({"message": "was never retrieved", "exception": error})

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        asyncio.run(main())
    assert len(caplog.records) == shown


def test_an_error_is_one_line():
    assert one_line(ValueError(FULL)) == "No space left on device"
    assert one_line(OSError(5, "Input/output error")) == "Input/output error"
    assert one_line(KeyError("a")) == "KeyError: 'a'"
