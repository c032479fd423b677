"""Booster beside its paper's and its authors' gradient."""

import jax
from fidelity.golden import MODEL, agrees

from immunax.defenses.booster import Booster


def test_loss_and_gradient_are_the_reference_s():
    defense = Booster(weight=5.0, step_length=0.1)
    agrees("booster", "both", lambda params, batch, _: defense.loss(MODEL, params, (), batch, jax.random.key(0))[0])
