"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) as a pytree beside the base weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from immunax.runtime.errors import UserError, nearest
from immunax.runtime.projections import NAMES


@dataclass(frozen=True)
class LoraSpec:
    """Which projections get an adapter, and how large it is.

    Attributes:
      rank: inner dimension r.
      alpha: the adapter's output is multiplied by ``alpha / rank``.
      targets: names of the projections, such as ``q_proj``.
      dropout: chance that an entry of an adapter's input is left out in a training step; see :class:`Dropout`.
      layers: numbers of the layers that have adapters, from 0; a fraction of the depth means the first ones; None all.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = NAMES
    dropout: float = 0.0
    layers: tuple[int, ...] | float | None = None

    def __post_init__(self):
        if self.rank < 1:
            raise UserError(f"LoRA rank {self.rank}: expected at least 1.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"LoRA dropout {self.dropout}: expected a chance, 0 <= dropout < 1.")
        object.__setattr__(self, "targets", tuple(self.targets))
        if isinstance(self.layers, Sequence):
            object.__setattr__(self, "layers", tuple(sorted(self.layers)))

    @property
    def scale(self) -> float:
        """``alpha / rank``."""
        return self.alpha / self.rank

    def rows(self, depth: int) -> tuple[int, ...]:
        """The layers that have adapters, of a decoder of ``depth`` layers.

        Raises:
          UserError: it has no such layers.
        """
        if self.layers is None:
            return tuple(range(depth))
        numbers = self.layers if isinstance(self.layers, tuple) else tuple(range(round(self.layers * depth)))
        if not numbers or len(set(numbers)) < len(numbers) or not all(0 <= number < depth for number in numbers):
            given = list(self.layers) if isinstance(self.layers, tuple) else self.layers
            raise UserError(
                f"LoRA layers {given}: expected different numbers from 0 to {depth - 1}, or a fraction of the {depth} layers."
            )
        return numbers


class Dropout(NamedTuple):
    """What adapters leave out of their input, as PEFT does: an entry by chance ``rate``; the others are divided by ``1 - rate``.

    Each projection of each layer draws a mask of its own, at every step and for every batch.

    Attributes:
      rate: float32.
      key: of all masks of a run, until a step is drawn.
      drawn: ``[2, 2]`` float32, the key of the step that is being taken, in pieces of 16 bits: real numbers, so that estimators
        may differentiate and subtract weights with all that is in them. None outside of steps, where nothing is left out.
    """

    rate: jax.Array
    key: Any
    drawn: Any = None

    def at(self, step: jax.Array | int) -> "Dropout":
        """Awake for one step, or for an inner step within one."""
        data = jax.random.key_data(jax.random.fold_in(self.key if self.drawn is None else _whole(self.drawn), step))
        return Dropout(self.rate, None, jnp.stack([data >> 16, data & 0xFFFF]).astype(jnp.float32))

    def masks(self, tokens: jax.Array) -> jax.Array:
        """The key of the masks of a batch ``[B, T]``: other tokens, as of another stream, draw others."""
        return jax.random.fold_in(_whole(self.drawn), tokens.sum())


def _whole(pieces: jax.Array) -> jax.Array:
    high, low = pieces.astype(jnp.uint32)
    return jax.random.wrap_key_data(high << 16 | low)


def dropped(x: jax.Array, rate: jax.Array, key: jax.Array) -> jax.Array:
    """``x`` with each entry 0 by chance ``rate``, and else divided by ``1 - rate``."""
    kept = jax.random.uniform(key, x.shape) >= rate
    return jnp.where(kept, x * (1 / (1 - rate)).astype(x.dtype), jnp.zeros((), x.dtype))


class Adapted(NamedTuple):
    """Base weights with adapters; every function that takes weights takes this too.

    Attributes:
      base: the plain weights.
      lora: nested like ``base``, with ``{a: [L, in, r], b: [L, r, out]}`` where there is an adapter; both are zero in a layer
        that has none, and stay so, since each's gradient is a product with the other.
      scale: ``alpha / rank``.
      dropout: in a training step, what the adapters leave out; otherwise None.
    """

    base: Any
    lora: Any
    scale: Any
    dropout: Dropout | None = None

    def scaled(self) -> Any:
        """The adapters with ``scale`` folded into ``b``, and where they have dropout its ``rate`` ``[L]`` beside."""
        flat = {path: leaf * self.scale if path[-1] == "b" else leaf for path, leaf in _flat(self.lora).items()}
        if self.dropout is not None:
            rate = jnp.broadcast_to(self.dropout.rate, depth(self.base))
            flat |= {(*path[:-1], "rate"): rate for path in flat if path[-1] == "a"}
        return traverse_util.unflatten_dict(flat)


def init(key: jax.Array, base: Any, spec: LoraSpec) -> Adapted:
    """Fresh adapters, which leave the model's function unchanged.

    Args:
      key: random key.
      base: plain weights.
      spec: which projections, and how large.

    Returns:
      :class:`Adapted` with ``a`` uniform in ``±1/sqrt(in)`` (Kaiming with slope √5, as in the authors' code), ``b`` zero.

    Raises:
      UserError: a target is no projection of this model, or a layer is none.
    """
    kernels = {path[:-1]: leaf for path, leaf in _flat(base).items() if path[-1] == "kernel"}
    known = {path[-1] for path in kernels if path[0] == "layers"}
    for target in spec.targets:
        if target not in known:
            raise UserError(
                f"LoRA target {target!r}: expected some of {', '.join(sorted(known))}.{nearest(target, known)}"
            )
    chosen = sorted(path for path in kernels if path[0] == "layers" and path[-1] in spec.targets)
    lora, chosen_layers = {}, np.isin(np.arange(depth(base)), spec.rows(depth(base)))
    for path, subkey in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        n_layers, d_in, d_out = kernels[path].shape
        bound = d_in**-0.5
        drawn = jax.random.uniform(subkey, (n_layers, d_in, spec.rank), minval=-bound, maxval=bound)
        lora[(*path, "a")] = drawn if chosen_layers.all() else drawn * chosen_layers[:, None, None]
        lora[(*path, "b")] = jnp.zeros((n_layers, spec.rank, d_out))
    return Adapted(base, traverse_util.unflatten_dict(lora), jnp.float32(spec.scale))


def depth(base: Any) -> int:
    """L of plain weights."""
    return jax.tree.leaves(base["layers"])[0].shape[0]


def taken(lora: Any, layers: tuple[int, ...]) -> Any:
    """The adapters of some layers alone, ``[S, ...]``."""
    return jax.tree.map(lambda leaf: leaf[np.array(layers)], lora)


def placed(lora: Any, layers: tuple[int, ...], depth: int) -> Any:
    """The inverse of :func:`taken`: ``[L, ...]``, zero in all other layers."""
    return jax.tree.map(
        lambda leaf: jnp.zeros((depth, *leaf.shape[1:]), leaf.dtype).at[np.array(layers)].set(leaf), lora
    )


def widen(lora: Any, rank: int) -> Any:
    """Adapters as ones of a larger rank that compute the same, so that members of a population share a shape.

    The added columns of ``a`` and rows of ``b`` are zero, and so are both their gradients: each is a product with the
    other. Any optimizer that leaves a zero with a zero gradient where it is, as SGD, Adam and Muon do, trains the rest as
    it would alone.

    Args:
      lora: ``{a: [..., in, r], b: [..., r, out]}``, nested.
      rank: at least r.

    Returns:
      The same with ``rank`` in place of r; the scale stays that of r.
    """

    def one(path: tuple[str, ...], leaf: jax.Array) -> jax.Array:
        axis = leaf.ndim - (1 if path[-1] == "a" else 2)
        return jnp.pad(leaf, [(0, rank - size if i == axis else 0) for i, size in enumerate(leaf.shape)])

    return traverse_util.unflatten_dict({path: one(path, leaf) for path, leaf in _flat(lora).items()})


def merge(adapted: Adapted) -> Any:
    """Plain weights that compute the same function: ``kernel + scale · a b``."""
    flat, adapters = _flat(adapted.base), _flat(adapted.scaled())
    for path in {path[:-1] for path in adapters}:
        flat[(*path, "kernel")] = flat[(*path, "kernel")] + adapters[(*path, "a")] @ adapters[(*path, "b")]
    return traverse_util.unflatten_dict(flat)


def plain(params: Any) -> Any:
    """Plain weights, merged where ``params`` is adapted."""
    return merge(params) if isinstance(params, Adapted) else params


def _flat(tree: Any) -> dict[tuple[str, ...], Any]:
    return traverse_util.flatten_dict(tree)
