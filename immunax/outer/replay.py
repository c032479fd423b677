"""A pool of the hardest simulated attacks, replayed along a defense's outer loop.

The pool holds whole attacks, data and random key included, so that a replayed attack is the same attack on other weights.
It keeps those that got furthest when they were last run: a fresh attack takes the place of the easiest one if it got further,
and a replayed one is measured anew, so that what the defense has learnt to withstand falls out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from immunax.outer.simulation import SimulatedAttack

FRESH = -1
"""The slot of an attack that is not from the pool."""


class Pool(NamedTuple):
    """Attacks kept for replay.

    Attributes:
      attacks: every leaf with leading axis P, the slots.
      hardness: ``[P]`` float32, how far each got at its last run, higher for harder; −∞ marks an empty slot.
    """

    attacks: SimulatedAttack
    hardness: jax.Array


class Drawn(NamedTuple):
    """An outer step's attack, and the slot that it was taken from, int32; :data:`FRESH` for none."""

    attack: SimulatedAttack
    slot: jax.Array


def empty(attack: SimulatedAttack, size: int) -> Pool:
    """``size`` empty slots for attacks of the shapes of ``attack``."""
    # Copies instead of zeros: they lie on a mesh as the attack does.
    return Pool(jax.tree.map(lambda leaf: jnp.stack([leaf] * size), attack), jnp.full(size, -jnp.inf, jnp.float32))


def draw(pool: Pool, fresh: SimulatedAttack, chance: float, key: jax.Array) -> Drawn:
    """A kept attack by ``chance``, each with the same one; otherwise, or where none is kept, the fresh one."""
    coin_key, slot_key = jax.random.split(key)
    kept = jnp.isfinite(pool.hardness)
    slot = jax.random.categorical(slot_key, jnp.where(kept, 0.0, -jnp.inf)).astype(jnp.int32)
    replayed = kept.any() & jax.random.bernoulli(coin_key, float(chance))
    attack = jax.tree.map(lambda old, new: jnp.where(replayed, old[slot], new), pool.attacks, fresh)
    return Drawn(attack, jnp.where(replayed, slot, FRESH))


def keep(pool: Pool, drawn: Drawn, hardness: jax.Array) -> Pool:
    """The pool after an attack was run.

    Args:
      pool: before it.
      drawn: the attack.
      hardness: how far it got. Where that is not finite a fresh attack is not kept, and a replayed one leaves its slot.
    """
    hardness = jnp.where(jnp.isfinite(hardness), hardness, -jnp.inf)
    replayed = drawn.slot >= 0
    slot = jnp.where(replayed, drawn.slot, jnp.argmin(pool.hardness))
    enters = replayed | (hardness > pool.hardness[slot])
    new = Pool(drawn.attack, hardness)
    return jax.tree.map(lambda old, one: jnp.where(enters, old.at[slot].set(one), old), pool, new)
