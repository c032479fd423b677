"""T-Vaccine: Vaccine on the layers that matter most to harm.

Liu et al. 2024, *Targeted Vaccine* (arXiv:2410.09760), after Vaccine:

    L = CE(x_s; h_l + ε_l for l in A),  ε_l = ρ · ∇_{h_l} CE(x_s) / ‖∇ CE(x_s)‖ over A

- Every ``refresh`` steps each layer's chance is set to ``p_l ∝ ‖∇_{h_l} CE(x_h)‖`` on that step's harmful examples. Every
  ``interval`` steps A is drawn by these chances, ``active`` layers without replacement.
- ``place: attention`` is the authors' code, and the default, since ρ was chosen with it: h_l is what the attention of layer l
  gives. They train adapters on all seven projections; the draw freezes those in the attention of layers outside A, while every
  layer's MLP always trains.
- ``place: layer`` is the paper's text: h_l is what layer l writes, and a layer outside A is not trained at all.
- Authors' script, Llama-2-7B (32 layers): ρ = 3, 8 active layers, interval 20, refresh 200, one harmful example; LoRA r = 8,
  α = 4, dropout 0.1 (``trainer.lora``), AdamW at 1e-3 with decay 0.1, cosine with 10% warm-up, 20 epochs of batches of 10. Here
  layers are trained whole, or their adapters; embedding and final norm are held.
- What is frozen stays, and so do its moments: neither momentum nor decay moves it. The authors' torch counts a parameter's steps
  for itself, to correct its moments; here the run's are counted.

As in :mod:`~immunax.defenses.vaccine`, ε is a constant, and harmless examples add ``γ · CE(x_r)``.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from immunax.defenses.representations import ATTENTION, LAYERS
from immunax.defenses.vaccine import perturbed_loss
from immunax.inner.perturbation import PLACES, at_place, layers_gradient, scaled_to
from immunax.inner.trainable import AdapterBase, Projections
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import UserError, check_choice


class Targets(NamedTuple):
    """Each layer's chance, ``[L]`` float32, and the layers in A, ``[L]`` bool."""

    chances: jax.Array
    active: jax.Array


@dataclass(frozen=True)
class TVaccine(Defense):
    """The objective above.

    Attributes:
      rho: ρ, the norm of the whole perturbation.
      place: where ε is added, and what is frozen: ``attention`` or ``layer``.
      active: how many layers are in A, or a fraction of the depth.
      interval: outer steps between two draws of A.
      refresh: outer steps between two estimates of the chances.
      gamma: weight of harmless examples; without effect where the mixture has none.
      mixture: safe and harmful examples a step, and harmless ones, 0 for the objective as published.
    """

    against = ("latent_attack",)
    needs = ("safe", "harmful")

    rho: float = 3.0
    place: str = "attention"
    active: int | float = 8 / 32
    interval: int = 20
    refresh: int = 200
    gamma: float = 1.0
    mixture: Mixture = Mixture(safe=10, harmful=1)

    def __post_init__(self):
        super().__post_init__()
        check_choice("defense.place", self.place, PLACES)
        for name in ("interval", "refresh"):
            if getattr(self, name) < 1:
                raise UserError(f"defense.{name}={getattr(self, name)}: expected at least 1 outer step.")

    def trainable(self, model: Model) -> Projections:
        """Every layer, since any of them may be drawn."""
        return Projections(tuple(range(model.config.n_layers)))

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> Targets:
        """Room for the chances and the draw, which the first step makes.

        Raises:
          UserError: A would be empty, or larger than the model is deep.
        """
        self._count(model)
        depth = model.config.n_layers
        return Targets(jnp.full(depth, 1 / depth), jnp.zeros(depth, bool))

    def advance(
        self,
        model: Model,
        params: Params,
        state: Targets,
        batch: StreamBatch,
        step: jax.Array,
        steps: int,
        key: jax.Array,
    ) -> Targets:
        """Estimates the chances and draws A, each when it is due."""
        chances = jax.lax.cond(
            step % self.refresh == 0, lambda: harm_chances(model, params, batch, self.place), lambda: state.chances
        )
        drawn = draw(key, chances, self._count(model))
        return Targets(chances, jnp.where(step % self.interval == 0, drawn, state.active))

    def loss(self, model: Model, params: Params, state: Targets, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, its terms, and ``calm``, CE(x_s) without the perturbation."""
        calm, gradient = layers_gradient(model, params, batch.safe, self.place)
        step = scaled_to(jnp.where(state.active[:, None, None, None], gradient, 0.0), self.rho)
        params = only_active(params, state.active, self._part)
        total, metrics = perturbed_loss(model, params, batch, at_place(step, self.place), self.gamma)
        return total, metrics | {"calm": calm}

    def moves(self, state: Targets, trained: Any, held: Any) -> Any:
        """The layers in A, and of the others with ``place: attention`` what is no attention."""
        layers = held.layers if isinstance(held, AdapterBase) else None
        active = state.active if layers is None else state.active[jnp.array(layers.numbers)]
        part = self._part

        def one(path: tuple, leaf: jax.Array) -> jax.Array:
            frozen = part == LAYERS or part in path
            return active.reshape(-1, *[1] * (leaf.ndim - 1)) if frozen else jnp.bool_(True)

        return jax.tree_util.tree_map_with_path(one, trained)

    @property
    def _part(self) -> Any:
        """The key below which leaves of layers outside A are frozen."""
        return ATTENTION if self.place == "attention" else LAYERS

    def _count(self, model: Model) -> int:
        depth = model.config.n_layers
        count = max(1, round(self.active * depth)) if isinstance(self.active, float) else self.active
        if not 1 <= count <= depth or self.active <= 0:
            raise UserError(
                f"defense.active={self.active!r}: the model has {depth} layers; expected a whole number from 1 to {depth}, "
                "or a fraction of the depth above 0.0, up to 1.0."
            )
        return count


def only_active(params: Params, active: jax.Array, part: Any) -> Params:
    """The same weights, of which a part of each layer outside A gets no gradient.

    Args:
      params: weights, plain or adapted.
      active: A, ``[L]`` bool.
      part: the key below which leaves of layers are frozen; ``LAYERS`` for all of a layer.
    """

    def one(path: tuple, leaf: jax.Array) -> jax.Array:
        if LAYERS not in path or part not in path:
            return leaf
        return jnp.where(active.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, jax.lax.stop_gradient(leaf))

    return jax.tree_util.tree_map_with_path(one, params)


def harm_chances(model: Model, params: Params, batch: StreamBatch, place: str) -> jax.Array:
    """``[L]``: the norms of the harmful loss's gradient by each layer's states, divided by their sum."""
    _, gradient = layers_gradient(model, params, batch.harmful, place)
    norms = jnp.sqrt(jnp.sum(jnp.square(gradient), axis=(1, 2, 3)))
    # All norms are zero only for a batch without answers; then no layer is preferred.
    return (norms + 1e-30) / (norms + 1e-30).sum()


def draw(key: jax.Array, chances: jax.Array, count: int) -> jax.Array:
    """``[L]`` bool with ``count`` true: layers drawn one after the other by their chances, without replacement."""
    numbers = jax.random.choice(key, len(chances), (count,), replace=False, p=chances)
    return jnp.zeros(len(chances), bool).at[numbers].set(True)
