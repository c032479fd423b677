"""What trains, as a value: weights are split into a part that moves, and one that is held and has no optimizer state."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from immunax.models import lora
from immunax.models.lora import Adapted, Dropout, LoraSpec
from immunax.models.model import Params
from immunax.runtime.errors import UserError, nearest


@jax.tree_util.register_static
@dataclass(frozen=True)
class Layers:
    """The layers that have adapters, from 0, where not all have one."""

    numbers: tuple[int, ...]


class AdapterBase(NamedTuple):
    """What is held where adapters train.

    Attributes:
      base: the weights below them.
      scale: ``alpha / rank``.
      dropout: of the adapters' input; asleep but in a step, see :func:`at_step`. None for none.
      layers: those that what trains has rows of; None for all. Static.
    """

    base: Any
    scale: Any
    dropout: Dropout | None = None
    layers: Layers | None = None


def at_step(held: Any, step: jax.Array | int) -> Any:
    """What is held, as the loss of one training step takes it: with the dropout of that step, where adapters have some."""
    if not isinstance(held, AdapterBase) or held.dropout is None:
        return held
    return held._replace(dropout=held.dropout.at(step))


class Trainable(ABC):
    """What trains of a model's weights. Frozen, and static: it decides the shapes of a loop."""

    @abstractmethod
    def split(self, params: Params, key: jax.Array | None = None) -> tuple[Any, Any]:
        """The part that trains, and the part that is held.

        Args:
          params: the whole weights.
          key: of what is drawn afresh.

        Raises:
          UserError: the weights have no such part.
        """

    @abstractmethod
    def join(self, trained: Any, held: Any) -> Params:
        """The whole weights that a model takes. A gradient by ``trained`` passes, and one by ``held`` where it is asked for."""

    def frozen(self, params: Params) -> Any:
        """The weights that are held and that :meth:`join` hands on as they are; by default None, for none.

        Args:
          params: the whole weights, as :meth:`split` takes them.
        """
        return None

    def holding(self, held: Any, frozen: Any) -> Any:
        """What is held, with other weights in the place of :meth:`frozen`, such as those in the dtype of the computation."""
        return held


@jax.tree_util.register_static
@dataclass(frozen=True)
class Full(Trainable):
    """All weights; of adapted ones, which hold their base, the adapters."""

    def split(self, params: Params, key: jax.Array | None = None) -> tuple[Any, Any]:
        """See :class:`Trainable`."""
        if isinstance(params, Adapted):
            return params.lora, AdapterBase(params.base, params.scale, params.dropout)
        return params, None

    def join(self, trained: Any, held: Any) -> Params:
        """See :class:`Trainable`."""
        if held is None:
            return trained
        if held.layers is not None:
            trained = lora.placed(trained, held.layers.numbers, lora.depth(held.base))
        awake = held.dropout is not None and held.dropout.drawn is not None
        return Adapted(held.base, trained, held.scale, held.dropout if awake else None)

    def frozen(self, params: Params) -> Any:
        """See :class:`Trainable`."""
        return params.base if isinstance(params, Adapted) else None

    def holding(self, held: Any, frozen: Any) -> Any:
        """See :class:`Trainable`."""
        return held if frozen is None else held._replace(base=frozen)


WHOLE = Full()


@jax.tree_util.register_static
@dataclass(frozen=True)
class Adapters(Full):
    """Fresh adapters beside weights that are held (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
      spec: which projections get one, and how large.
    """

    spec: LoraSpec

    def split(self, params: Params, key: jax.Array | None = None) -> tuple[Any, Any]:
        """See :class:`Trainable`; the key draws them."""
        if key is None:
            raise ValueError("fresh adapters need a random key")
        trained, held = super().split(lora.init(key, params, self.spec))
        if self.spec.dropout:
            held = held._replace(dropout=dropout_of(key, self.spec))
        layers = adapted_layers(self.spec, params)
        if layers is None:
            return trained, held
        return lora.taken(trained, layers.numbers), held._replace(layers=layers)

    def frozen(self, params: Params) -> Any:
        """See :class:`Trainable`."""
        return params


def dropout_of(key: jax.Array, spec: LoraSpec) -> Dropout:
    """Asleep, with masks by a key of its own out of that of the adapters."""
    return Dropout(jnp.float32(spec.dropout), jax.random.fold_in(key, 1))


def adapted_layers(spec: LoraSpec, params: Params) -> Layers | None:
    """Those of plain weights that get adapters; None for all.

    Raises:
      UserError: the weights have no such layers.
    """
    depth = lora.depth(params)
    rows = spec.rows(depth)
    return None if len(rows) == depth else Layers(rows)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Projections(Trainable):
    """Some projections of some layers: rows of the stacked ``[L, ...]`` leaves, and nothing else, have moments.

    Attributes:
      layers: their numbers, from 0.
      names: such as ``down_proj``; None for everything in those layers.
    """

    layers: tuple[int, ...]
    names: tuple[str, ...] | None = None

    def __post_init__(self):
        object.__setattr__(self, "layers", tuple(sorted(self.layers)))
        object.__setattr__(self, "names", None if self.names is None else tuple(self.names))

    def split(self, params: Params, key: jax.Array | None = None) -> tuple[Any, Any]:
        """See :class:`Trainable`; what is held lacks the rows that train, and leaves that would be left without rows."""
        stacked = _flat(params["layers"])
        self._check(stacked)
        rest = [row for row in range(len(next(iter(stacked.values())))) if row not in self.layers]
        chosen = {path: leaf for path, leaf in stacked.items() if self._trains(path)}
        trained = {path: leaf[jnp.array(self.layers)] for path, leaf in chosen.items()}
        left = {path: leaf[jnp.array(rest)] for path, leaf in chosen.items() if rest}
        held = {path: leaf for path, leaf in stacked.items() if path not in chosen} | left
        return traverse_util.unflatten_dict(trained), {**params, "layers": traverse_util.unflatten_dict(held)}

    def join(self, trained: Any, held: Any) -> Params:
        """See :class:`Trainable`."""
        stacked = _flat(held["layers"])
        for path, rows in _flat(trained).items():
            stacked[path] = self._ordered(rows, stacked[path]) if path in stacked else rows
        return {**held, "layers": traverse_util.unflatten_dict(stacked)}

    def frozen(self, params: Params) -> Any:
        """See :class:`Trainable`; of leaves of which some rows train, none."""
        whole = {path: leaf for path, leaf in _flat(params["layers"]).items() if not self._trains(path)}
        return {**params, "layers": traverse_util.unflatten_dict(whole)}

    def holding(self, held: Any, frozen: Any) -> Any:
        """See :class:`Trainable`."""
        stacked = _flat(held["layers"]) | _flat(frozen["layers"])
        return {**frozen, "layers": traverse_util.unflatten_dict(stacked)}

    def _ordered(self, rows: jax.Array, rest: jax.Array) -> jax.Array:
        both = jnp.concatenate([rows, rest])
        if self.layers[-1] < len(rows):
            return both
        others = (row for row in range(len(both)) if row not in self.layers)
        return both[np.argsort([*self.layers, *others])]

    def _trains(self, path: Sequence[str]) -> bool:
        return self.names is None or not set(self.names).isdisjoint(path)

    def _check(self, stacked: Mapping[tuple[str, ...], jax.Array]) -> None:
        depth = len(next(iter(stacked.values())))
        if not self.layers or len(set(self.layers)) < len(self.layers) or not all(0 <= i < depth for i in self.layers):
            raise UserError(f"layers={list(self.layers)}: expected different numbers from 0 to {depth - 1}.")
        known = sorted({path[-2] for path in stacked})
        for name in self.names or ():
            if not any(name in path for path in stacked):
                raise UserError(f"projection {name!r}: expected some of {', '.join(known)}.{nearest(name, known)}")


def _flat(tree: Any) -> dict[tuple[str, ...], Any]:
    return dict(traverse_util.flatten_dict(tree))
