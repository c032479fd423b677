"""MLAC beside its paper's formula and its authors' code, whose attacker learns his rate."""

import jax
import jax.numpy as jnp
from fidelity.golden import MODEL, agrees

from immunax.defenses.mlac import Mlac
from immunax.inner.estimators import MixedMode
from immunax.inner.optimizers import AdamW
from immunax.outer.attacker import Attacker
from immunax.outer.defense import Mixture
from immunax.outer.learned_rate import SLOPE, LearnedRate
from immunax.outer.simulation import Simulation

RULE, RATE, STEPS = AdamW(max_grad_norm=None, eps_root=1e-16), 2e-3, 4


def objective(defense: Mlac, params, batch):
    """With one held-out batch for all checks."""
    checks = jax.tree.map(
        lambda leaf: jnp.repeat(leaf[:1], defense.mixture.simulation.checks, 0), batch.simulation.checks
    )
    simulation = batch.simulation._replace(checks=checks, member=jnp.float32(RATE))
    return defense.loss(MODEL, params, (), batch._replace(simulation=simulation), jax.random.key(0))


def test_the_end_of_the_attack_is_the_reference_s():
    mixture = Mixture(safe=3, retain=3, simulation=Simulation(STEPS, 2, 1, 2))
    defense = Mlac(Attacker(RULE, (RATE,), estimator=MixedMode()), 0.1, mixture=mixture)
    agrees("mlac", "paper", lambda params, batch, _: objective(defense, params, batch)[0])


def test_the_whole_trajectory_and_the_slope_of_the_rate_are_the_reference_s():
    mixture = Mixture(safe=3, retain=3, simulation=Simulation(STEPS, 2, STEPS, 2, same_check=True))
    defense = Mlac(LearnedRate(optimizer=RULE), 1.0, "trajectory", mixture)

    def loss(params, batch, _):
        value, metrics = objective(defense, params, batch)
        # The slope is that of the mean without the unattacked weights, which no rate moves.
        return value, {"slope": metrics[SLOPE] * STEPS / (STEPS + 1)}

    agrees("mlac", "repository", loss)
