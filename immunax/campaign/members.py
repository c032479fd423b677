"""What the members of one program have for themselves, beside their batches."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from immunax.inner.step import Slope
from immunax.inner.trainable import WHOLE, AdapterBase, Adapters, Layers, Trainable, adapted_layers, dropout_of
from immunax.models import lora
from immunax.models.lora import Dropout, LoraSpec
from immunax.models.model import Params
from immunax.runtime.mesh import split_parameters


class MemberData(NamedTuple):
    """What is one member's own beside its batches; every leaf has a leading axis A.

    Attributes:
      key: ``[A]``, of its examination.
      numbers: of its optimizer, as :meth:`~immunax.inner.optimizers.Optimizer.build` takes them.
      adapters: ``[A, ...]`` fresh adapters of the largest rank, zero past its own; None for full weights.
      scale: ``[A]``, ``alpha / rank``; None for full weights.
      dropout: ``[A]`` rates and keys; None where no member has any.
      layers: those that the adapters are of, None for all; static.
      first_step: ``[A]``, which of the shared first steps is its own; None where none are shared.
      trainable: what trains, where no adapters do; static.
    """

    key: jax.Array
    numbers: Any = None
    adapters: Any = None
    scale: Any = None
    dropout: Dropout | None = None
    layers: Layers | None = None
    first_step: Any = None
    trainable: Trainable = WHOLE

    def start(self, params: Params) -> Any:
        """What one member trains, before its first step."""
        return self.trainable.split(params)[0] if self.adapters is None else self.adapters

    def held(self, params: Params) -> Any:
        """What one member does not train."""
        if self.adapters is None:
            return self.trainable.split(params)[1]
        return AdapterBase(params, self.scale, self.dropout, self.layers)

    def whole(self, params: Params, trained: Any) -> Params:
        """The weights that a model takes, of what one member has trained."""
        return self.trainable.join(trained, self.held(params))

    def first(self, first_steps: Any) -> Slope | None:
        """The slope of one member's first step, out of those of :mod:`~immunax.campaign.first_steps`, if they are shared."""
        return None if self.first_step is None else chosen(first_steps, self.first_step)


class MemberKeys(NamedTuple):
    """Random keys of A members: of fresh adapters, each by itself, and of examinations ``[A]``."""

    adapters: tuple[jax.Array, ...]
    exam: jax.Array


def drawn(specs: Sequence[LoraSpec], trainable: Trainable, params: Params, keys: MemberKeys) -> MemberData:
    """What is random in each member: the key of its examination, and fresh adapters.

    Args:
      specs: A adapters of the same projections of the same layers, or none.
      trainable: what trains where there are none.
      params: plain weights.
      keys: of the members.
    """
    if not specs:
        return MemberData(keys.exam, trainable=trainable)
    layers, largest = adapted_layers(specs[0], params), max(spec.rank for spec in specs)
    # Member by member, so that one program draws those of any population. Each at its own rank: the same numbers in the shape of
    # a larger rank would be others.
    parts = [
        _adapter(replace(spec, alpha=1.0, dropout=0.0), largest, params, key)
        for spec, key in zip(specs, keys.adapters, strict=True)
    ]
    dropout = _dropout(tuple(specs), keys.adapters) if any(spec.dropout for spec in specs) else None
    scale = np.array([spec.scale for spec in specs], np.float32)
    return MemberData(keys.exam, adapters=_stacked(parts), scale=scale, dropout=dropout, layers=layers)


@jax.jit
def chosen(members: Any, places: Any) -> Any:
    """Some members of a pytree with a leading axis A, by an array of their places; or one, without the axis, by its place."""
    return jax.tree.map(lambda leaf: leaf[places], members)


@jax.jit
def seeded(key: jax.Array, places: np.ndarray, seeds: np.ndarray) -> MemberKeys:
    """The keys of A members.

    Args:
      key: the member of seed s draws by ``fold_in(key, s)``; or ``[N]``, and each by the one at its place.
      places, seeds: ``[A]``.
    """
    mine = key[places] if key.ndim else jax.vmap(partial(jax.random.fold_in, key))(seeds)
    pairs = jax.vmap(jax.random.split)(mine)
    return MemberKeys(tuple(pairs[place, 0] for place in range(len(seeds))), pairs[:, 1])


@partial(jax.jit, static_argnums=(0, 1))
def _adapter(spec: LoraSpec, rank: int, params: Params, key: jax.Array) -> Any:
    return lora.widen(Adapters(spec).split(params, key)[0], rank)


@partial(jax.jit, static_argnums=0)
def _dropout(specs: tuple[LoraSpec, ...], keys: Sequence[jax.Array]) -> Dropout:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(dropout_of, keys, specs))


@jax.jit
def _stacked(adapters: Sequence[Any]) -> Any:
    return split_parameters(jax.tree.map(lambda *leaves: jnp.stack(leaves), *adapters), stacked=True)
