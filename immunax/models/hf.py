"""Hugging Face's layout of a checkpoint: tensor names and orientation, to and from ours.

Everything about tensors follows from one table (:func:`table`): which leaf of our tree is which tensor of theirs, its
shape in the file, and whether it is transposed (their linear layers store ``[out, in]``, ours ``[in, out]``). Their
layers are separate tensors, ours are stacked on a leading axis.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import traverse_util

from immunax.models.config import DecoderConfig
from immunax.runtime.errors import UserError

Read = Callable[[str, tuple[int, ...]], np.ndarray]
"""``read(name, shape)``: a tensor by its Hugging Face name, in the file's own layout and any float dtype."""


@dataclass(frozen=True)
class Tensor:
    """One leaf of the tree and where it lives in the files.

    Attributes:
      path: keys in our tree.
      name: Hugging Face name; ``{layer}`` stands for the layer's number in a stacked leaf.
      shape: in the file, of one layer.
      transpose: the file holds the transposed matrix.
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transpose: bool = False

    @property
    def stacked(self) -> bool:
        """Whether the leaf has a leading axis of layers."""
        return self.path[0] == "layers"


def table(config: DecoderConfig) -> tuple[Tensor, ...]:
    """Every tensor of a decoder, in the order of the forward pass.

    Args:
      config: the decoder.

    Returns:
      One :class:`Tensor` per leaf.
    """
    wide = config.d_model
    embed = Tensor(("embed_tokens", "embedding"), "model.embed_tokens.weight", (config.vocab_size, wide))
    norm = Tensor(("norm", "scale"), "model.norm.weight", (wide,))
    head = Tensor(("lm_head", "kernel"), "lm_head.weight", (config.vocab_size, wide), transpose=True)
    norms = (_scale((name,), wide) for name in ("input_layernorm", "post_attention_layernorm"))
    layer = (*norms, *_attention(config), *_mlp(config))
    return (embed, *layer, norm) if config.tie_embeddings else (embed, *layer, norm, head)


def projections(config: DecoderConfig) -> dict[str, Tensor]:
    """The linear layers by leaf name (``q_proj``): what an adapter can attach to."""
    return {t.path[-2]: t for t in (*_attention(config), *_mlp(config)) if t.path[-1] == "kernel"}


def _scale(module: tuple[str, ...], size: int) -> Tensor:
    return Tensor(("layers", *module, "scale"), f"model.layers.{{layer}}.{'.'.join(module)}.weight", (size,))


def _linear(module: tuple[str, ...], d_in: int, d_out: int, bias: bool = False) -> Iterator[Tensor]:
    name = f"model.layers.{{layer}}.{'.'.join(module)}"
    yield Tensor(("layers", *module, "kernel"), f"{name}.weight", (d_out, d_in), transpose=True)
    if bias:
        yield Tensor(("layers", *module, "bias"), f"{name}.bias", (d_out,))


def _attention(config: DecoderConfig) -> Iterator[Tensor]:
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    for name, size in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        yield from _linear(("self_attn", name), config.d_model, size, config.qkv_bias)
    yield from _linear(("self_attn", "o_proj"), queries, config.d_model)
    if config.qk_norm:
        yield _scale(("self_attn", "q_norm"), config.head_dim)
        yield _scale(("self_attn", "k_norm"), config.head_dim)


def _mlp(config: DecoderConfig) -> Iterator[Tensor]:
    yield from _linear(("mlp", "gate_proj"), config.d_model, config.d_ff)
    yield from _linear(("mlp", "up_proj"), config.d_model, config.d_ff)
    yield from _linear(("mlp", "down_proj"), config.d_ff, config.d_model)


def names(config: DecoderConfig) -> set[str]:
    """Hugging Face names of every tensor of a decoder."""
    found = set()
    for tensor in table(config):
        found |= {tensor.name.format(layer=layer) for layer in range(config.n_layers)}
    return found


def assemble(config: DecoderConfig, tensors: Iterable[Tensor], read: Read) -> dict:
    """Builds a tree, holding one tensor besides it at a time.

    Args:
      config: the decoder.
      tensors: what the tree holds, such as :func:`table`.
      read: gives each tensor.

    Returns:
      Nested dict of float32 numpy arrays.
    """
    return traverse_util.unflatten_dict({tensor.path: _stack(config, tensor, read) for tensor in tensors})


def _stack(config: DecoderConfig, tensor: Tensor, read: Read) -> np.ndarray:
    shape = tensor.shape[::-1] if tensor.transpose else tensor.shape
    count = config.n_layers if tensor.stacked else 1
    leaf = np.empty((count, *shape), np.float32)
    for layer in range(count):
        value = read(tensor.name.format(layer=layer), tensor.shape)
        leaf[layer] = value.T if tensor.transpose else value
    return leaf if tensor.stacked else leaf[0]


def split(
    config: DecoderConfig, tensors: Iterable[Tensor], tree: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
    """The inverse of :func:`assemble`.

    Args:
      config: the decoder.
      tensors: what the tree holds.
      tree: numpy or JAX arrays.

    Yields:
      Hugging Face name and array in the file's layout (a view), leaf after leaf.

    Raises:
      UserError: a leaf is missing or has another shape than the table says.
    """
    flat = traverse_util.flatten_dict(dict(tree))
    for tensor in tensors:
        leaf = _leaf(flat, config, tensor)
        for layer, value in enumerate(leaf if tensor.stacked else leaf[None]):
            yield tensor.name.format(layer=layer), value.T if tensor.transpose else value


def _leaf(flat: Mapping[Any, Any], config: DecoderConfig, tensor: Tensor) -> np.ndarray:
    shape = tensor.shape[::-1] if tensor.transpose else tensor.shape
    expected = (config.n_layers, *shape) if tensor.stacked else shape
    leaf = flat.get(tensor.path)
    found = None if leaf is None else np.asarray(leaf)
    if found is None or found.shape != expected:
        given = "none" if found is None else list(found.shape)
        raise UserError(f"weights {'.'.join(tensor.path)}: expected shape {list(expected)}, found {given}.")
    return found
