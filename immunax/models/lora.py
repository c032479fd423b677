"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) as a pytree beside the base weights."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = NAMES

    def __post_init__(self):
        if self.rank < 1:
            raise UserError(f"LoRA rank {self.rank}: expected at least 1.")
        object.__setattr__(self, "targets", tuple(self.targets))

    @property
    def scale(self) -> float:
        """``alpha / rank``."""
        return self.alpha / self.rank


class Adapted(NamedTuple):
    """Base weights with adapters; every function that takes weights takes this too.

    Attributes:
      base: the plain weights.
      lora: nested like ``base``, with ``{a: [L, in, r], b: [L, r, out]}`` where there is an adapter.
      scale: ``alpha / rank``.
    """

    base: Any
    lora: Any
    scale: Any

    def scaled(self) -> Any:
        """The adapters with ``scale`` folded into ``b``."""
        flat = _flat(self.lora)
        return traverse_util.unflatten_dict(
            {path: leaf * self.scale if path[-1] == "b" else leaf for path, leaf in flat.items()}
        )


def init(key: jax.Array, base: Any, spec: LoraSpec) -> Adapted:
    """Fresh adapters, which leave the model's function unchanged.

    Args:
      key: random key.
      base: plain weights.
      spec: which projections, and how large.

    Returns:
      :class:`Adapted` with ``a`` uniform in ``±1/sqrt(in)`` (Kaiming with slope √5, as in the authors' code), ``b`` zero.

    Raises:
      UserError: a target is no projection of this model.
    """
    kernels = {path[:-1]: leaf for path, leaf in _flat(base).items() if path[-1] == "kernel"}
    known = {path[-1] for path in kernels if path[0] == "layers"}
    for target in spec.targets:
        if target not in known:
            raise UserError(
                f"LoRA target {target!r}: expected some of {', '.join(sorted(known))}.{nearest(target, known)}"
            )
    chosen = sorted(path for path in kernels if path[0] == "layers" and path[-1] in spec.targets)
    lora = {}
    for path, subkey in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        n_layers, d_in, d_out = kernels[path].shape
        bound = d_in**-0.5
        lora[(*path, "a")] = jax.random.uniform(subkey, (n_layers, d_in, spec.rank), minval=-bound, maxval=bound)
        lora[(*path, "b")] = jnp.zeros((n_layers, spec.rank, d_out))
    return Adapted(base, traverse_util.unflatten_dict(lora), jnp.float32(spec.scale))


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
