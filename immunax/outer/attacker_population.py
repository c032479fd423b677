"""A population of simulated attackers: a defender that trains against whoever may come.

A published defense simulates one attacker, and falls to another one who tunes. Here each outer step draws who attacks: a kind
(optimizer, full weights or adapters), each with the same chance; a learning rate, log-uniform in the kind's range; a random
key, for fresh adapters; and that step's data. By a chance it is one of the hardest attacks so far instead
(:mod:`~immunax.outer.replay`).

How hard an attack is, is how likely the attacked model makes the held-out harmful answers that the defender checks it
with: what an attacker who searches ranks his attacks by (:mod:`~immunax.campaign.search`), and the same for every defense.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from immunax.inner.estimators.straight_through import with_gradient
from immunax.inner.losses import mean_answer_loss
from immunax.inner.optimizers import Optimizer
from immunax.inner.trainable import WHOLE
from immunax.models.lora import LoraSpec
from immunax.models.model import Model, Params
from immunax.outer import replay
from immunax.outer.attacker import Attacker, Scalars, SimulatedAttacker
from immunax.outer.replay import Drawn, Pool
from immunax.outer.simulation import SimulatedAttack
from immunax.runtime.errors import UserError

HARDNESS = "attacker/hardness"


class DrawnAttacker(NamedTuple):
    """One attacker of a population.

    Attributes:
      kind: its number among the kinds, int32.
      learning_rate: float32.
      key: of his adapters and of whatever else is random in the attack.
    """

    kind: jax.Array
    learning_rate: jax.Array
    key: jax.Array


@dataclass(frozen=True)
class AttackerKind:
    """Attackers that differ in learning rate alone.

    Attributes:
      optimizer: rule and schedule; its own learning rate is not used.
      learning_rates: the lowest and the highest.
      lora: adapters that they train instead of the full weights, or None.
    """

    optimizer: Optimizer
    learning_rates: tuple[float, float]
    lora: LoraSpec | None = None

    def __post_init__(self):
        object.__setattr__(self, "learning_rates", tuple(self.learning_rates))
        if len(self.learning_rates) != 2 or not 0 < self.learning_rates[0] <= self.learning_rates[1]:
            raise UserError(
                f"attacker learning_rates={list(self.learning_rates)}: expected the lowest rate, above 0, and the highest."
            )


@dataclass(frozen=True)
class AttackerPopulation(SimulatedAttacker):
    """An attacker drawn anew at every outer step; a loss along his attack reads whom from ``data.member``.

    Attributes:
      kinds: by name, numbered in alphabetical order. Each is compiled; a step runs one of them.
      pool: how many of the hardest attacks are kept.
      replay: chance of an outer step that replays one of them.
    """

    kinds: Mapping[str, AttackerKind]
    pool: int = 8
    replay: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "kinds", FrozenDict(sorted(self.kinds.items())))
        if not self.kinds:
            raise UserError("attacker.kinds: expected at least one kind of attacker.")
        if self.pool < 1:
            raise UserError(f"attacker.pool={self.pool}: expected at least 1; attacker.replay=0 replays none.")
        if not 0 <= self.replay <= 1:
            raise UserError(f"attacker.replay={self.replay}: expected a chance, 0 to 1.")

    def attackers(self) -> tuple[Attacker, ...]:
        """The kinds as attackers, in the order of their numbers."""
        shared = {"retain_first": self.retain_first, "estimator": self.estimator}
        return tuple(Attacker(kind.optimizer, kind.learning_rates, kind.lora, **shared) for kind in self.kinds.values())

    def empty_pool(self, data: SimulatedAttack) -> Pool:
        """A pool without attacks, for those of the shapes of ``data``."""
        member = DrawnAttacker(jnp.int32(0), jnp.float32(0), jax.random.key(0))
        return replay.empty(data._replace(member=member), self.pool)

    def draw(self, pool: Pool, data: SimulatedAttack, key: jax.Array) -> tuple[Drawn, jax.Array]:
        """A fresh attacker, or one of the pool; see :class:`~immunax.outer.attacker.SimulatedAttacker`."""
        key, draw_key = jax.random.split(key)
        member_key, replay_key = jax.random.split(draw_key)
        fresh = data._replace(member=self.member(member_key))
        return replay.draw(pool, fresh, self.replay, replay_key), key

    def keep(self, pool: Pool, drawn: Drawn, seen: Scalars) -> tuple[Pool, Scalars]:
        """The pool after the attack; logs who attacked, whether from the pool, and the mean hardness kept, NaN for none."""
        pool = replay.keep(pool, drawn, seen[HARDNESS])
        kept = jnp.isfinite(pool.hardness)
        return pool, {
            "attacker/kind": drawn.attack.member.kind,
            "attacker/learning_rate": drawn.attack.member.learning_rate,
            "attacker/replayed": drawn.slot >= 0,
            "attacker/pool_hardness": jnp.where(kept, pool.hardness, 0.0).sum() / kept.sum(),
        }

    def member(self, key: jax.Array) -> DrawnAttacker:
        """A fresh attacker."""
        kind_key, rate_key, key = jax.random.split(key, 3)
        kind = jax.random.randint(kind_key, (), 0, len(self.kinds), jnp.int32)
        lowest, highest = jnp.array([each.learning_rates for each in self.kinds.values()], jnp.float32)[kind]
        rate = jnp.exp(jax.random.uniform(rate_key, (), jnp.float32, jnp.log(lowest), jnp.log(highest)))
        # The exponential of a logarithm may miss the bounds by a rounding.
        return DrawnAttacker(kind, jnp.clip(rate, lowest, highest), key)

    def along(
        self,
        model: Model,
        params: Params,
        data: SimulatedAttack,
        outer: Callable[[Params, Any], jax.Array],
        checks: Any,
        key: jax.Array,
    ) -> tuple[jax.Array, Scalars]:
        """See :class:`~immunax.outer.attacker.SimulatedAttacker`; logs ``attacker/hardness``.

        The key is the member's own, so that an attack replayed is the same; reverse mode alone.
        """
        del key
        _, rate, member_key = data.member

        trained, held = WHOLE.split(params)

        def loss(trained: Any, attacker: Attacker) -> tuple[jax.Array, jax.Array]:
            attacked, value = attacker.attack(model, WHOLE.join(trained, held), data, outer, checks, rate, member_key)
            return value, -mean_answer_loss(model, jax.lax.stop_gradient(attacked), data.checks)

        # The gradient is made in the branch: what each kind keeps for a backward pass would else be held by all of them.
        branches = [partial(jax.value_and_grad(loss, has_aux=True), attacker=each) for each in self.attackers()]
        (value, hardness), gradient = jax.lax.switch(data.member.kind, branches, jax.lax.stop_gradient(trained))
        return with_gradient(value, trained, gradient), {HARDNESS: hardness}
