"""Pickles of EDM, from bytes."""

import pytest

from sid_jax.errors import UserError
from sid_jax.formats.edm_pickle import EDMPickle


@pytest.fixture
def opened(tmp_path):
    """A function from bytes to the bundle of a file that has them."""

    def open_bytes(data, name="network-snapshot-000001.pkl"):
        (tmp_path / name).write_bytes(data)
        return EDMPickle(tmp_path / name)

    return open_bytes


@pytest.fixture
def refusal(opened):
    """A function from bytes to the one line that they are refused with."""

    def reason(data, name="network-snapshot-000001.pkl"):
        with pytest.raises(UserError) as caught:
            opened(data, name)
        message = str(caught.value)
        assert name in message and "\n" not in message and len(message) < 1000
        return message

    return reason
