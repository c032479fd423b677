"""A training state as one flat dictionary, from a leaf's path (``params.norm.scale``) to an array that a disk can hold.

A JAX random key is held as its words, its path followed by ``|`` and the name of its generator.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from immunax.runtime.errors import UserError


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_free(leaf: Any) -> bool:
    """Whether a leaf is tied to no device, as a step's number is: it then goes with leaves on any mesh."""
    return isinstance(leaf, jax.Array) and not leaf.committed


def _path_name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a state by path; a concrete random key's path ends with the name of its generator."""
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        concrete = _is_key(leaf) and isinstance(leaf, jax.Array)
        named[_path_name(path) + (f"|{jax.random.key_impl(leaf)}" if concrete else "")] = leaf
    return named


def stored(leaf: Any) -> Any:
    """The array that a leaf is held as: of a random key its words, of a Python number itself."""
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def described(array: Any) -> str:
    """Dtype and shape of an array or of what stands for one, such as ``float32[8, 4]``."""
    return f"{np.dtype(array.dtype)}{list(array.shape)}"


def request(path: object, like: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """What to read, by the name that it is held under.

    Args:
      path: of the checkpoint, for messages.
      like: leaves by path that it should have, from :func:`named`.
      tree: shapes and dtypes by name that it has.

    Raises:
      UserError: they are not the same.
    """
    wanted = {name.partition("|")[0]: leaf for name, leaf in like.items()}
    names = {name.partition("|")[0]: name for name in tree}
    for name in sorted(wanted.keys() ^ names.keys()):
        side = "has no" if name in wanted else "also has"
        raise UserError(f"checkpoint {path} {side} {name!r}: it was written for another model, defense or optimizer")
    asked = {}
    for name, leaf in wanted.items():
        found, there = names[name], tree[names[name]]
        target = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
        shape, dtype = np.shape(target), np.dtype(getattr(target, "dtype", None) or np.asarray(target).dtype)
        if tuple(there.shape) != shape or np.dtype(there.dtype) != dtype:
            raise UserError(
                f"checkpoint {path} has {name!r} as {described(there)}, this run expects "
                f"{dtype}{list(shape)}: it was written for another configuration"
            )
        sharding = None if _is_key(leaf) and _is_free(leaf) else getattr(leaf, "sharding", None)
        asked[found] = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    return asked


def assemble(like: Any, flat: Mapping[str, Any]) -> Any:
    """A state of arrays as they are held.

    Args:
      like: its structure, of arrays or ``jax.ShapeDtypeStruct``; each leaf is put where it lies there.
      flat: arrays by the name that they are held under.
    """
    by_name = {name.partition("|")[0]: (name.partition("|")[2], value) for name, value in flat.items()}

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        generator, value = by_name[_path_name(path)]
        if _is_key(leaf):
            if leaf.sharding is None or _is_free(leaf):
                return jax.random.wrap_key_data(jnp.asarray(value), impl=generator)
            # Within a program, as a typed key cannot be sent to devices of other processes.
            return jax.jit(partial(jax.random.wrap_key_data, impl=generator), out_shardings=leaf.sharding)(value)
        if _is_free(leaf):
            return jnp.asarray(np.asarray(value))
        if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
            return value
        array = np.asarray(value)
        return array if isinstance(leaf, np.ndarray) else type(leaf)(array.item())

    return jax.tree_util.tree_map_with_path(one, like)
