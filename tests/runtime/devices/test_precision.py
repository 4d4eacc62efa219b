import jax.numpy as jnp
import pytest

from sid_jax.errors import UserError
from sid_jax.runtime.devices.precision import parse_dtype


def test_names_of_formats():
    assert parse_dtype("precision.compute", "float32") == jnp.float32
    assert parse_dtype("precision.compute", "bfloat16") == jnp.bfloat16


def test_another_name_is_an_error():
    with pytest.raises(UserError) as caught:
        parse_dtype("precision.compute", "fp16")
    assert str(caught.value) == "config key precision.compute is 'fp16': use float32 or bfloat16"
