"""Names of number formats, as configs have them."""

import jax.numpy as jnp

from sid_jax.errors import UserError

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MATMUL = ("default", "highest")


def parse_dtype(key: str, name: str) -> jnp.dtype:
    """The dtype of a config's value: "float32" or "bfloat16".

    Args:
      key: the config key that the name is from, for the error.
      name: the config's value.

    Raises:
      UserError: the name is another one.
    """
    if name not in DTYPES:
        raise UserError(f"config key {key} is {name!r}: use {' or '.join(DTYPES)}")
    return jnp.dtype(DTYPES[name])


def parse_matmul(key: str, name: str) -> str | None:
    """How precisely matrices are multiplied, as `jax.default_matmul_precision` has it; None: as JAX does by itself.

    Args:
      key: the config key that the name is from, for the error.
      name: the config's value, "default" or "highest".

    Raises:
      UserError: the name is another one.
    """
    if name not in MATMUL:
        raise UserError(f"config key {key} is {name!r}: use {' or '.join(MATMUL)}")
    return None if name == "default" else name
