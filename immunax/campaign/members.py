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
      asked: what it is examined on in its own wording, ``[A, ...]``.
      first_step: ``[A]``, which of the shared first steps is its own; None where none are shared.
      trainable: what trains, where no adapters do; static.
    """

    key: jax.Array
    numbers: Any = None
    adapters: Any = None
    scale: Any = None
    dropout: Dropout | None = None
    layers: Layers | None = None
    asked: Any = ()
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
        return None if self.first_step is None else jax.tree.map(lambda leaf: leaf[self.first_step], first_steps)


def drawn(specs: Sequence[LoraSpec], trainable: Trainable, params: Params, keys: jax.Array) -> MemberData:
    """What is random in each member: the key of its examination, and fresh adapters.

    Args:
      specs: A adapters of the same projections of the same layers, or none.
      trainable: what trains where there are none.
      params: plain weights.
      keys: ``[A]``, one a member.
    """
    adapter_keys, exam_keys = _keys(keys)
    if not specs:
        return MemberData(exam_keys, trainable=trainable)
    layers = adapted_layers(specs[0], params)
    adapters, dropout = _adapters(tuple(specs), layers, params, adapter_keys)
    scale = jnp.array([spec.scale for spec in specs], jnp.float32)
    return MemberData(exam_keys, adapters=adapters, scale=scale, dropout=dropout, layers=layers)


@jax.jit
def seeded(key: jax.Array, seeds: jax.Array) -> jax.Array:
    """The keys ``[A]`` of members by their seeds ``[A]``."""
    return jax.vmap(partial(jax.random.fold_in, key))(seeds)


@jax.jit
def _keys(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]


@partial(jax.jit, static_argnums=(0, 1))
def _adapters(
    specs: tuple[LoraSpec, ...], layers: Layers | None, params: Params, keys: jax.Array
) -> tuple[Any, Dropout | None]:
    # Drawn at each rank of its own: the same numbers in the shape of a larger rank would be others.
    parts, places = [], []
    ranks = [spec.rank for spec in specs]
    for rank in sorted(set(ranks)):
        chosen = [place for place, each in enumerate(ranks) if each == rank]
        spec = replace(specs[0], rank=rank, dropout=0.0)
        fresh = jax.vmap(lambda key, spec=spec: Adapters(spec).split(params, key)[0])(keys[jnp.array(chosen)])
        parts.append(lora.widen(fresh, max(ranks)))
        places += chosen
    order = np.argsort(places)
    adapters = split_parameters(jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *parts), stacked=True)
    if not any(spec.dropout for spec in specs):
        return adapters, None
    return adapters, jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(dropout_of, keys, specs))
