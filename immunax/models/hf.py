"""Hugging Face's layout of a checkpoint: our tree from its tensors, and its tensors from our tree.

Everything about tensors follows from one table, :func:`immunax.models.families.tensors`: which leaf of our tree is which
tensor of theirs, its shape in the file, and whether it is transposed.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

from immunax.models.config import DecoderConfig
from immunax.models.families.tensors import Path, Tensor
from immunax.runtime.errors import UserError, nearest
from immunax.runtime.placement import fill
from immunax.runtime.together import host

Read = Callable[[str, tuple[int, ...]], np.ndarray]
"""``read(name, shape)``: a tensor by its name in the file, in the file's own layout and any float dtype."""


def names(config: DecoderConfig, table: Mapping[Path, Tensor]) -> set[str]:
    """Names of a table's tensors, of every layer."""
    return {tensor.name.format(layer=layer) for tensor in table.values() for layer in range(config.n_layers)}


def check_sizes(
    config: DecoderConfig,
    table: Mapping[Path, Tensor],
    found: Collection[str],
    place: Callable[[str, tuple[int, ...]], Any],
    where: str,
) -> None:
    """Holds what a configuration claims against what the files have, before anything is allocated.

    Args:
      config: the decoder that it describes.
      table: the tensors that this takes.
      found: names of the tensors in the files.
      place: raises where a tensor of a name and shape is not there.
      where: the configuration's name, for messages.

    Raises:
      UserError: there are fewer layers than claimed, or a tensor is missing or has another shape; one that is left over and
        has nearly its name is suggested.
    """
    if config.n_layers > len(found):  # or the names alone would fill the memory
        raise UserError(f"{where}: says {config.n_layers} layers, but the weights have {len(found)} tensors in all.")
    expected = names(config, table)
    for tensor in table.values():
        for layer in range(config.n_layers if tensor.stacked else 1):
            name = tensor.name.format(layer=layer)
            if name not in found:
                hint = nearest(name, set(found) - expected)
                raise UserError(f"{where}: tensor {name!r} is missing from the weights.{hint}")
            place(name, tensor.shape)


def assemble(
    config: DecoderConfig,
    table: Mapping[Path, Tensor],
    read: Read,
    devices: Mesh | None = None,
    dtype: str = "float32",
) -> dict:
    """Builds a tree where it is to lie, leaf by leaf, holding one tensor besides it at a time.

    Args:
      config: the decoder.
      table: what the tree holds, such as :func:`immunax.models.families.tensors` says.
      read: gives each tensor.
      devices: the mesh that the leaves are split over; None is the default device.
      dtype: of the leaves.

    Returns:
      Nested dict of JAX arrays.
    """
    leaves = {path: _stack(config, path, tensor, read, devices, dtype) for path, tensor in table.items()}
    return traverse_util.unflatten_dict(leaves)


def _stack(
    config: DecoderConfig, path: Path, tensor: Tensor, read: Read, devices: Mesh | None, dtype: str
) -> jax.Array:
    def one(name: str) -> np.ndarray:
        value = read(name, tensor.shape)
        return value.T if tensor.transpose else value

    if not tensor.stacked:
        return fill(path, tensor.leaf_shape, dtype, [(0, one(tensor.name))], devices)
    pieces = ((layer, one(tensor.name.format(layer=layer))[None]) for layer in range(config.n_layers))
    return fill(path, (config.n_layers, *tensor.leaf_shape), dtype, pieces, devices)


def split(config: DecoderConfig, table: Mapping[Path, Tensor], tree: Mapping[str, Any]) -> Iterator[tuple[str, "Held"]]:
    """The inverse of :func:`assemble`.

    Args:
      config: the decoder.
      table: what the tree holds.
      tree: numpy or JAX arrays.

    Yields:
      Name and array in the file's layout, which is brought to the host when it is read, leaf after leaf.

    Raises:
      UserError: a leaf is missing or has another shape than the table says.
    """
    flat = traverse_util.flatten_dict(dict(tree))
    for path, tensor in table.items():
        expected = (config.n_layers, *tensor.leaf_shape) if tensor.stacked else tensor.leaf_shape
        leaf: Any = flat.get(path)
        if leaf is None or leaf.shape != expected:
            given = "none" if leaf is None else list(leaf.shape)
            raise UserError(f"weights {'.'.join(path)}: expected shape {list(expected)}, found {given}.")
        for layer in range(config.n_layers if tensor.stacked else 1):
            yield tensor.name.format(layer=layer), Held(leaf, tensor, layer if tensor.stacked else None)


class Held(NamedTuple):
    """A tensor of a file that still lies where the model does: of all of them, one at a time is on the host.

    Attributes:
      leaf: of the model's tree.
      tensor: where the leaf lives in files.
      layer: which of a stacked leaf; None of one that is whole.
    """

    leaf: Any
    tensor: Tensor
    layer: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return self.tensor.shape

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.tensor.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Brings it to the host, in the file's layout; of several processes all have to."""
        value = host(self.leaf if self.layer is None else self.leaf[self.layer])
        return np.asarray(value.T if self.tensor.transpose else value, dtype)
