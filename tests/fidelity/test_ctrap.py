"""CTRAP beside its authors' gradient."""

import jax
from fidelity.golden import MODEL, agrees

from immunax.defenses.ctrap import CTRAP


def test_loss_and_gradient_are_the_reference_s():
    defense = CTRAP(token=7, weight=0.1, step_length=0.1)
    agrees("ctrap", "repository", lambda params, batch, _: defense.loss(MODEL, params, (), batch, jax.random.key(0))[0])
