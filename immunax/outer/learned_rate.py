"""An attacker whose learning rate is learned beside the defender's weights.

Henderson et al. 2022 (arXiv:2211.14946) and their code (Breakend/SelfDestructingModels): one rate, which descends by Adam on the
loss that the defender ascends along the attack, with the gradient through all inner steps, and stays within bounds. So the
defender faces the rate that harms most, and need not be told which one that is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from immunax.inner.adapt import Estimator
from immunax.inner.estimators import MixedMode, Truncated, Unrolled
from immunax.inner.estimators.straight_through import with_gradient
from immunax.inner.optimizers import AdamW, Optimizer
from immunax.inner.trainable import WHOLE
from immunax.models.lora import LoraSpec
from immunax.models.model import Model, Params
from immunax.outer.attacker import Attacker, Scalars, SimulatedAttacker
from immunax.outer.replay import FRESH, Drawn
from immunax.outer.simulation import SimulatedAttack
from immunax.runtime.errors import UserError

SLOPE = "attacker/rate_slope"


class Rate(NamedTuple):
    """A learning rate on its way: a float32 scalar, and the state of its Adam."""

    value: jax.Array
    optimizer: optax.OptState


@dataclass(frozen=True)
class LearnedRate(SimulatedAttacker):
    """The attacker above; ``data.member`` is an outer step's rate.

    Attributes:
      optimizer: rule and schedule; its own learning rate is not used.
      estimator: one whose gradient passes through the inner steps.
      start: the rate of the first outer step.
      bounds: the lowest and the highest that it may become.
      learning_rate: of the rate itself.
      max_grad_norm: bound of its gradient.
      lora: adapters that he trains instead of the full weights, or None.
    """

    learns: ClassVar[bool] = True

    estimator: Estimator = field(default_factory=MixedMode)
    optimizer: Optimizer = field(default_factory=lambda: AdamW(eps_root=1e-16))
    start: float = 3e-4
    bounds: tuple[float, float] = (1e-6, 1e-2)
    learning_rate: float = 1e-4
    max_grad_norm: float = 10.0
    lora: LoraSpec | None = None

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "bounds", tuple(self.bounds))
        if len(self.bounds) != 2 or not 0 < self.bounds[0] <= self.start <= self.bounds[1]:
            raise UserError(
                f"attacker.start={self.start}, attacker.bounds={list(self.bounds)}: expected a lowest rate above 0, "
                "and a start between it and the highest."
            )
        if not isinstance(self.estimator, MixedMode | Truncated | Unrolled):
            raise UserError(
                f"attacker.estimator={type(self.estimator).__name__}: a rate learns by the gradient through the inner steps; "
                "take MixedMode."
            )

    def attackers(self) -> tuple[Attacker, ...]:
        """One, at the start's rate."""
        return (self._kind,)

    @property
    def _kind(self) -> Attacker:
        shared = {"retain_first": self.retain_first, "estimator": self.estimator}
        return Attacker(self.optimizer, (self.start,), self.lora, **shared)

    def empty_pool(self, data: SimulatedAttack) -> Rate:
        """The rate before the first outer step."""
        value = jnp.float32(self.start)
        return Rate(value, self._rule().init(value))

    def draw(self, pool: Rate, data: SimulatedAttack, key: jax.Array) -> tuple[Drawn, jax.Array]:
        """The step's data, attacked at the rate as it is."""
        return Drawn(data._replace(member=pool.value), jnp.int32(FRESH)), key

    def keep(self, pool: Rate, drawn: Drawn, seen: Scalars) -> tuple[Rate, Scalars]:
        """The rate after a step, within its bounds; one whose slope is not finite stays. Logs the rate of the step."""
        step, moved = self._rule().update(seen[SLOPE], pool.optimizer)
        after = Rate(jnp.clip(jnp.asarray(optax.apply_updates(pool.value, step)), *self.bounds), moved)
        finite = jnp.isfinite(seen[SLOPE])
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, pool)
        return kept, {"attacker/learning_rate": pool.value}

    def along(
        self,
        model: Model,
        params: Params,
        data: SimulatedAttack,
        outer: Callable[[Params, Any], jax.Array],
        checks: Any,
        key: jax.Array,
    ) -> tuple[jax.Array, Scalars]:
        """See :class:`~immunax.outer.attacker.SimulatedAttacker`; logs ``attacker/rate_slope``. Reverse mode alone."""
        trained, held = WHOLE.split(params)

        def loss(trained: Any, rate: jax.Array) -> jax.Array:
            return self._kind.attack(model, WHOLE.join(trained, held), data, outer, checks, rate, key)[1]

        value, (gradient, slope) = jax.value_and_grad(loss, (0, 1))(jax.lax.stop_gradient(trained), data.member)
        return with_gradient(value, trained, gradient), {SLOPE: slope}

    def _rule(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.adam(self.learning_rate))
