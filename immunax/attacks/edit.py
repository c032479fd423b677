"""What attacks share that change weight matrices by themselves."""

from typing import cast

import jax
import jax.numpy as jnp
from flax import traverse_util

from immunax.models.model import Params


def nothing() -> jax.Array:
    """The losses ``[0]`` of an attack that optimises nothing."""
    return jnp.zeros(0)


def matrices(params: Params) -> dict[tuple[str, ...], jax.Array]:
    """The weight matrices of the layers by path, ``[L, in, out]`` each."""
    flat = traverse_util.flatten_dict(params)
    return {path: cast(jax.Array, leaf) for path, leaf in flat.items() if path[0] == "layers" and path[-1] == "kernel"}


def with_matrices(params: Params, changed: dict[tuple[str, ...], jax.Array]) -> Params:
    """The same weights with some leaves replaced."""
    return traverse_util.unflatten_dict({**traverse_util.flatten_dict(params), **changed})
