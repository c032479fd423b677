"""Circuit breakers, by representation rerouting.

Zou et al. 2024, *Improving Alignment and Robustness with Circuit Breakers* (arXiv:2406.04313), at step t of T:

    L = c_s · mean relu(cos(h(x_h), h⁰(x_h))) + c_r · mean ‖h(x_r) − h⁰(x_r)‖₂
    c_s = α (1 − t/2T),  c_r = α t/2T

- h⁰ is the start model's. The first mean is over tokens and over the target rows of the residual stream, the second over rows
  and tokens as below; t counts from 1, as in the authors' code.
- ``hold=stream``, the default: rows up to the last target, and the layers up to it are trained. ``hold=hidden_states`` is the
  authors' code, whose model ends with the layer behind the last target: that layer is trained too, and its state, past the
  final norm, is the last row.
- ``hold_length``: the second mean is the paper's, over tokens, by default. In the authors' code it is a sum over tokens divided
  by all positions of examples padded to 1,024: ``hold_length=1024``, much weaker for short examples.
- ``safe`` examples, where the mixture has some, are held in place with the harmless ones: the authors' retain set holds
  refusals too. For Llama-3 they empty the prompt of every second example: ``mixture.emptied=0.5``.
- Paper, Llama-3-8B (32 layers): targets 10 and 20, α = 10 (Mistral-7B: 5), 150 steps of 16 at 1e-4, constant, LoRA r = 16 in
  the layers up to the last target (``trainer.lora``: those behind get no gradient). Without, those layers are trained
  whole and all else is held, as it is beside adapters.

The state holds the start model's layers that this needs, and its embedding.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.defenses.representations import cosine, distance, first_layers, held, hold, states, token_mean
from immunax.inner.depth import stream_rows
from immunax.inner.trainable import Projections
from immunax.models.model import Model, Params
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.runtime.errors import UserError, check_choice

HOLDS = ("stream", "hidden_states")


class Circuit(NamedTuple):
    """The schedule's place t/2T, and what is kept of the start model."""

    place: jax.Array
    start: Params | None


@dataclass(frozen=True)
class CircuitBreakers(Defense):
    """The objective above.

    Attributes:
      targets: rows of the residual stream that are rerouted: i for what i layers have written, or fractions of the depth.
      alpha: scale of both terms.
      hold: which rows are held: ``stream``, those up to the last target, or ``hidden_states``, one more.
      hold_length: positions that an example counts as in the mean over what is held; None for its tokens.
      mixture: harmful, harmless and, by choice, safe examples a step.
    """

    needs = ("harmful", "retain")

    targets: tuple[int | float, ...] = (10 / 32, 20 / 32)
    alpha: float = 10.0
    hold: str = "stream"
    hold_length: int | None = None
    mixture: Mixture = Mixture(harmful=8, retain=8)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "targets", tuple(self.targets))
        check_choice("defense.hold", self.hold, HOLDS)
        if self.hold_length is not None and self.hold_length < 1:
            raise UserError(f"defense.hold_length={self.hold_length}: expected a number of positions, or null.")

    def rows(self, model: Model) -> tuple[int, ...]:
        """The targets' rows of the residual stream, rising.

        Raises:
          UserError: the model has no such row, or a target is the embedding, which no layer can reroute.
        """
        rows = stream_rows(model, self.targets, "defense.targets")
        if rows[0] == 0:
            raise UserError(f"defense.targets={self.targets} holds the embedding, row 0: expected rows from 1.")
        return rows

    def depth(self, model: Model) -> int:
        """How many layers are trained, and run.

        Raises:
          UserError: as :meth:`rows`, or there is no layer behind the last target where its state is to be held.
        """
        last = self.rows(model)[-1]
        if self.hold == "stream":
            return last
        if last == model.config.n_layers:
            raise UserError(
                f"defense.hold={self.hold} holds the layer behind the last target, which is the last: set stream."
            )
        return last + 1

    def trainable(self, model: Model) -> Projections:
        """The layers up to the last target, or one more."""
        return Projections(tuple(range(self.depth(model))))

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> Circuit:
        """Keeps the start model."""
        return Circuit(jnp.float32(0), hold(model, params, self.depth(model)))

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
        return state._replace(place=(step + 1) / (2 * steps))

    def loss(self, model: Model, params: Params, state: Circuit, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, its terms before weighting, and ``schedule``, t/2T."""
        targets, depth = self.rows(model), self.depth(model)
        model, params = first_layers(model, params, depth)
        start = held(state.start, params)

        def pair(part, rows, last_state="stream"):
            both = params, jax.lax.stop_gradient(start)
            return (states(model, each, part, rows, last_state) for each in both)

        reroute = token_mean(jax.nn.relu(cosine(*pair(batch.harmful, targets))), batch.harmful)
        kept = [part for part in (batch.retain, batch.safe) if part is not None]
        tokens = jnp.stack([(part.segment_ids > 0).sum() for part in kept])
        last_state = "stream" if self.hold == "stream" else "normed"
        every = [pair(part, range(depth + 1), last_state) for part in kept]
        drifts = jnp.stack([token_mean(distance(*rows), part) for part, rows in zip(kept, every, strict=True)])
        retain = tokens @ drifts / jnp.maximum(self._positions(kept), 1)
        total = self.alpha * ((1 - state.place) * reroute + state.place * retain)
        return total, {"reroute": reroute, "retain": retain, "schedule": state.place}

    def _positions(self, kept: list[Batch]) -> jax.Array:
        """What the mean over held states divides by: tokens, or examples times their length."""
        if self.hold_length is None:
            return jnp.stack([(part.segment_ids > 0).sum() for part in kept]).sum()
        return self.hold_length * jnp.stack([part.segment_ids.max(axis=1).sum() for part in kept]).sum()
