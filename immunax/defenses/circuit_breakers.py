"""Circuit breakers, by representation rerouting.

Zou et al. 2024, *Improving Alignment and Robustness with Circuit Breakers* (arXiv:2406.04313), at step t of T:

    L = c_s · mean relu(cos(h(x_h), h⁰(x_h))) + c_r · mean ‖h(x_r) − h⁰(x_r)‖₂
    c_s = α (1 − t/2T),  c_r = α t/2T

- h⁰ is the start model's. The first mean is over tokens and over the target rows of the residual stream, the second
  over tokens and over every row up to the last target, as in the authors' code, which drops the layers behind it.
- ``safe`` examples, where the mixture has some, are held in place with the harmless ones: the authors' retain set holds
  refusals too.
- Paper, Llama-3-8B (32 layers): targets 10 and 20, α = 10 (Mistral-7B: 5), 150 steps of 16 at 1e-4, constant, LoRA r = 16 in
  the layers up to the last target (``trainer.lora``: those behind get no gradient). Without, those layers are trained
  whole and all else is held, as it is beside adapters.

The state holds the start model's layers up to the last target, and its embedding.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from immunax.defenses.representations import cosine, distance, first_layers, held, hold, states, token_mean
from immunax.inner.depth import stream_rows
from immunax.inner.trainable import Projections
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import UserError


class Circuit(NamedTuple):
    """The schedule's place t/2T, and what is kept of the start model's layers up to the last target."""

    place: jax.Array
    start: Params | None


@dataclass(frozen=True)
class CircuitBreakers(Defense):
    """The objective above.

    Attributes:
      targets: rows of the residual stream that are rerouted: i for what i layers have written, or fractions of the depth.
      alpha: scale of both terms.
      mixture: harmful, harmless and, by choice, safe examples a step.
    """

    needs = ("harmful", "retain")

    targets: tuple[int | float, ...] = (10 / 32, 20 / 32)
    alpha: float = 10.0
    mixture: Mixture = Mixture(harmful=8, retain=8)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "targets", tuple(self.targets))

    def rows(self, model: Model) -> tuple[int, ...]:
        """The targets' rows of the residual stream, rising.

        Raises:
          UserError: the model has no such row, or a target is the embedding, which no layer can reroute.
        """
        rows = stream_rows(model, self.targets, "defense.targets")
        if rows[0] == 0:
            raise UserError(f"defense.targets={self.targets} holds the embedding, row 0: expected rows from 1.")
        return rows

    def trainable(self, model: Model) -> Projections:
        """The layers up to the last target."""
        return Projections(tuple(range(self.rows(model)[-1])))

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> Circuit:
        """Keeps the start model."""
        return Circuit(jnp.float32(0), hold(model, params, self.rows(model)[-1]))

    def advance(
        self,
        model: Model,
        params: Params,
        state: Circuit,
        batch: StreamBatch,
        step: jax.Array,
        steps: int,
        key: jax.Array,
    ) -> Circuit:
        """Moves the schedule on."""
        return state._replace(place=step / (2 * steps))

    def loss(self, model: Model, params: Params, state: Circuit, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, its terms before weighting, and ``schedule``, t/2T."""
        targets = self.rows(model)
        model, params = first_layers(model, params, targets[-1])
        start = held(state.start, params)

        def pair(part, rows):
            return states(model, params, part, rows), jax.lax.stop_gradient(states(model, start, part, rows))

        reroute = token_mean(jax.nn.relu(cosine(*pair(batch.harmful, targets))), batch.harmful)
        kept = [part for part in (batch.retain, batch.safe) if part is not None]
        tokens = jnp.stack([(part.segment_ids > 0).sum() for part in kept])
        every = range(targets[-1] + 1)
        drifts = jnp.stack([token_mean(distance(*pair(part, every)), part) for part in kept])
        retain = tokens @ drifts / jnp.maximum(tokens.sum(), 1)
        total = self.alpha * ((1 - state.place) * reroute + state.place * retain)
        return total, {"reroute": reroute, "retain": retain, "schedule": state.place}
