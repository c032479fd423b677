"""Whom a bilevel defense simulates: what all such attackers share, and the attacker of a kind that is fixed."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.inner.adapt import Estimator, adapt
from immunax.inner.estimators import FirstOrder
from immunax.inner.losses import answer_loss
from immunax.inner.optimizers import AdamW, Optimizer
from immunax.inner.step import Scalars
from immunax.inner.trainable import dropout_of
from immunax.models.lora import Dropout, LoraSpec, init, plain
from immunax.models.model import Model, Params
from immunax.outer.replay import FRESH, Drawn
from immunax.outer.simulation import SimulatedAttack, Simulation
from immunax.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SimulatedAttacker(ABC):
    """Fine-tuning on harmful answers, as an inner loop of the defender's loss; frozen, built from YAML.

    An attacker who differs from one outer step to the next has an :meth:`empty_pool`, :meth:`draw` and :meth:`keep` of his own.

    Attributes:
      retain_first: chance of an attacker who fine-tunes on harmless data first, and turns to harmful data after
        ``K · Beta(6, 3)`` steps (Tamirisa et al. 2024); needs ``simulation.mixed``.
      estimator: how the gradient passes through the loop.
      learns: whether he changes along the outer loop by the loss along his attack, of a kind, not a field.
    """

    learns: ClassVar[bool] = False

    retain_first: float = 0.0
    estimator: Estimator = field(default_factory=FirstOrder)

    def __post_init__(self):
        if not 0 <= self.retain_first <= 1:
            raise UserError(f"attacker.retain_first={self.retain_first}: expected a chance, 0 to 1.")

    @abstractmethod
    def attackers(self) -> "tuple[Attacker, ...]":
        """Every kind of attacker that this one may be."""

    @abstractmethod
    def along(
        self,
        model: Model,
        params: Params,
        data: SimulatedAttack,
        outer: Callable[[Params, Any], jax.Array],
        checks: Any,
        key: jax.Array,
    ) -> tuple[jax.Array, Scalars]:
        """The defender's loss along one simulated attack; see :meth:`~immunax.inner.adapt.Adaptation.along`.

        Args:
          model: static.
          params: the defender's weights; of adapted ones he attacks what they are when merged, as they would be released.
          data: what the attacker trains on.
          outer: ``outer(attacked weights, check) -> scalar``; the weights are adapted ones for a LoRA attacker.
          checks: a pytree with leading axis S.
          key: of what is random in the attack.

        Returns:
          The sum over the checks, and scalars to log.
        """

    def check(self, simulation: Simulation) -> None:
        """Refuses a simulation without the data that this attacker trains on.

        Raises:
          UserError: he begins with harmless data, and there are none.
        """
        if self.retain_first and not simulation.mixed:
            raise UserError("attacker.retain_first trains on harmless data: set mixture.simulation.mixed=true.")

    def empty_pool(self, data: SimulatedAttack) -> Any:
        """What is carried from one outer step to the next, for attacks of the shapes of ``data``; by default nothing."""
        return ()

    def draw(self, pool: Any, data: SimulatedAttack, key: jax.Array) -> tuple[Drawn, jax.Array]:
        """An outer step's attack; by default that of the step's data.

        Args:
          pool: as the last step left it.
          data: this step's, for a fresh attack.
          key: of the step.

        Returns:
          The attack, and the key that is left for the rest of the step.
        """
        return Drawn(data, jnp.int32(FRESH)), key

    def keep(self, pool: Any, drawn: Drawn, seen: Scalars) -> tuple[Any, Scalars]:
        """What is carried after a step, and scalars to log; by default nothing is.

        Args:
          pool: before it.
          drawn: the step's attack.
          seen: what the step's loss gave to be logged.
        """
        return pool, {}


@dataclass(frozen=True)
class Attacker(SimulatedAttacker):
    """An attacker of one kind.

    Attributes:
      optimizer: rule and schedule; its own learning rate is not used.
      learning_rates: one is drawn at every outer step.
      lora: adapters that the attacker trains instead of the full weights, or None.
    """

    optimizer: Optimizer = field(default_factory=lambda: AdamW(eps_root=1e-16))
    learning_rates: tuple[float, ...] = (2e-5,)
    lora: LoraSpec | None = None

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise UserError(f"attacker.learning_rates={list(self.learning_rates)}: expected rates above 0.")

    def attackers(self) -> "tuple[Attacker, ...]":
        """Himself."""
        return (self,)

    def along(
        self,
        model: Model,
        params: Params,
        data: SimulatedAttack,
        outer: Callable[[Params, Any], jax.Array],
        checks: Any,
        key: jax.Array,
    ) -> tuple[jax.Array, Scalars]:
        """See :class:`SimulatedAttacker`; the key draws rate, data and adapters, and nothing is logged."""
        rate = jax.random.choice(jax.random.split(key, 3)[0], jnp.array(self.learning_rates))
        return self.attack(model, params, data, outer, checks, rate, key)[1], {}

    def attack(
        self,
        model: Model,
        params: Params,
        data: SimulatedAttack,
        outer: Callable[[Params, Any], jax.Array],
        checks: Any,
        rate: jax.Array,
        key: jax.Array,
    ) -> tuple[Params, jax.Array]:
        """One simulated attack at a given learning rate.

        Args:
          model, params, data, outer, checks: as for :meth:`along`.
          rate: a float32 scalar in place of ``learning_rates``.
          key: draws data and adapters as it does for :meth:`along`.

        Returns:
          The attacked weights, and the sum over the checks.
        """
        _, switch_key, lora_key = jax.random.split(key, 3)
        batches = data.harmful
        steps = batches.tokens.shape[0]
        if self.retain_first:
            harmless = jnp.arange(steps) < switch(switch_key, steps, self.retain_first)
            batches = jax.tree.map(
                lambda first, then: jnp.where(harmless.reshape(-1, *[1] * (then.ndim - 1)), first, then),
                data.retain,
                batches,
            )
        start = plain(params) if self.lora is None else init(lora_key, plain(params), self.lora)
        optimizer = replace(self.optimizer, learning_rate=rate).build(steps)
        inner = adapt(partial(_inner_loss, model), optimizer, steps, self.estimator)
        return inner.along(start, (batches, _dropouts(self.lora, lora_key, steps)), outer, checks)


def _dropouts(spec: LoraSpec | None, key: jax.Array, steps: int) -> Dropout | None:
    """What the adapters of an attack leave out at each of its steps, on a leading axis; None for nothing.

    It goes with the data: estimators differentiate by all that weights hold, and the losses along the way are of weights that
    leave nothing out.
    """
    if spec is None or not spec.dropout:
        return None
    return jax.vmap(dropout_of(key, spec).at)(jnp.arange(steps))


def _inner_loss(model: Model, params: Params, data: tuple[Batch, Dropout | None]) -> jax.Array:
    batch, dropout = data
    return answer_loss(model, params if dropout is None else params._replace(dropout=dropout), batch)


def mean_along(
    attacker: SimulatedAttacker,
    model: Model,
    params: Params,
    data: SimulatedAttack,
    loss: Callable[[Model, Params, Batch], jax.Array],
    key: jax.Array,
) -> tuple[jax.Array, Scalars]:
    """The mean over the checks of a loss on their held-out harmful batches, and scalars to log.

    Args:
      attacker: who attacks.
      model, params, data, key: as for :class:`SimulatedAttacker`.
      loss: ``loss(model, attacked weights, batch) -> scalar``.
    """
    count = data.checks.tokens.shape[0]

    def outer(attacked: Params, check: Batch) -> jax.Array:
        return loss(model, attacked, check) / count

    return attacker.along(model, params, data, outer, data.checks, key)


def switch(key: jax.Array, steps: int, chance: float) -> jax.Array:
    """At which inner step an attacker turns to harmful data: 0, or by ``chance`` ``K · Beta(6, 3)``, rounded down."""
    coin_key, beta_key = jax.random.split(key)
    later = jnp.floor(steps * jax.random.beta(beta_key, 6.0, 3.0))
    return jnp.where(jax.random.bernoulli(coin_key, float(chance)), later, 0.0)
