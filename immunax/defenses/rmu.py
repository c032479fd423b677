"""Representation misdirection for unlearning.

Li et al. 2024, *The WMDP Benchmark* (arXiv:2403.03218):

    L = mean over tokens of ‖h_l(x_h) − c · u‖² + α · mean over tokens of ‖h_l(x_r) − h_l⁰(x_r)‖²

- h_l is the residual stream after layer l (the first is 0), h_l⁰ that of the start model; u is a random unit vector, drawn
  once, uniform in the positive orthant and then normalised as in the authors' code. Both squares are means over
  D, as there.
- The paper's means are over tokens, the default. The authors' code averages over the padding of a batch too: ``positions=all``,
  with ``padding`` its end-of-text token, each example in a row of its own (``mixture.packed=false``), as long as the batch's
  longest. It pads on the left; here padding is behind an example, which it reads.
- Only layers l−2, l−1 and l are trained; of these the authors' code trains ``mlp.down_proj`` alone. With ``trainer.lora`` it is
  the adapters in the layers up to l.
- Paper, Zephyr-7B (32 layers): l = 7, α = 1200, c = 6.5, AdamW at 5e-5 (in the code with ε = 1e-6, no decay and no clipping), 150
  batches of 4. Its two harmful corpora have a u each, and steps take them in turn: ``mixture.topics`` names them. Without it, the
  default, there is one u, and a batch is drawn from all harmful examples.

Layers behind l are not computed. The state holds the start model's first l + 1 layers and its embedding.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from immunax.defenses.representations import first_layers, held, hold, states, token_mean
from immunax.inner.depth import layer_index
from immunax.inner.padding import padded_with
from immunax.inner.trainable import Projections
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import UserError, check_choice

POSITIONS = ("tokens", "all")


class Misdirection(NamedTuple):
    """What a step's loss needs beside its data.

    Attributes:
      control: ``c · u`` of each topic, ``[topics, D]``; fixed.
      start: what is kept of the start model's first l + 1 layers; fixed.
      topic: int32, whose turn it is.
    """

    control: jax.Array
    start: Params | None
    topic: jax.Array


@dataclass(frozen=True)
class Rmu(Defense):
    """The objective above.

    Attributes:
      layer: l, a number from 0 or a fraction of the depth.
      alpha: weight of the harmless states' distance to the start model's.
      steering: c, the norm that harmful states are drawn to.
      trained_layers: how many layers up to l are trained.
      projections: which matrices of those layers.
      positions: over which states are averaged: ``tokens``, or ``all``, padding too.
      padding: the id of the token that pads, for ``positions=all``.
      mixture: harmful and harmless examples a step.
    """

    needs = ("harmful", "retain")

    layer: int | float = 7 / 32
    alpha: float = 1200.0
    steering: float = 6.5
    trained_layers: int = 3
    projections: tuple[str, ...] = ("down_proj",)
    positions: str = "tokens"
    padding: int | None = None
    mixture: Mixture = Mixture(harmful=4, retain=4)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "projections", tuple(self.projections))
        if self.trained_layers < 1 or not self.projections:
            raise UserError(
                f"rmu trains nothing with trained_layers={self.trained_layers}, projections={self.projections}: "
                "expected at least one layer and one matrix."
            )

        check_choice("defense.positions", self.positions, POSITIONS)
        if (self.positions == "all") != (self.padding is not None):
            raise UserError(
                f"defense.positions={self.positions} with defense.padding={self.padding}: all positions, and they alone, need "
                "the id of the token that pads; set both or neither."
            )

    def trainable(self, model: Model) -> Projections:
        """The chosen matrices of the layers up to l."""
        layer = layer_index(model, self.layer, "defense.layer")
        return Projections(tuple(range(max(0, layer + 1 - self.trained_layers), layer + 1)), self.projections)

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> Misdirection:
        """Draws u, of each topic, and keeps the start model.

        Raises:
          UserError: the model has no such layer.
        """
        layer = layer_index(model, self.layer, "defense.layer")
        topics = len(self.mixture.topics) or 1
        directions = jax.random.uniform(key, (topics, model.config.d_model))
        directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
        return Misdirection(self.steering * directions, hold(model, params, layer + 1), jnp.int32(0))

    def advance(
        self,
        model: Model,
        params: Params,
        state: Misdirection,
        batch: StreamBatch,
        step: jax.Array,
        steps: int,
        key: jax.Array,
    ) -> Misdirection:
        """The topic of the step, as the data's :class:`~immunax.data.order.InTurn` takes them."""
        return state._replace(topic=step % len(state.control))

    def loss(self, model: Model, params: Params, state: Misdirection, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting."""
        layer = layer_index(model, self.layer, "defense.layer")
        model, params = first_layers(model, params, layer + 1)
        rows = (layer + 1,)
        harmful, harmless = (padded_with(part, self.padding, to_longest=True) for part in (batch.harmful, batch.retain))
        moved = states(model, params, harmful, rows) - state.control[state.topic]
        start = jax.lax.stop_gradient(states(model, held(state.start, params), harmless, rows))
        drift = states(model, params, harmless, rows) - start
        forget = token_mean(jnp.square(moved).mean(axis=-1), harmful)
        retain = token_mean(jnp.square(drift).mean(axis=-1), harmless)
        return forget + self.alpha * retain, {"forget": forget, "retain": retain}
