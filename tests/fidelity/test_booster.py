"""Booster beside its paper's and its authors' gradient."""

import jax
from fidelity.golden import MODEL, agrees
from fidelity.lora import adapters, beside

from immunax.defenses.booster import Booster

DEFENSE = Booster(weight=5.0, step_length=0.1)


def loss(params, batch, _):
    return DEFENSE.loss(MODEL, params, (), batch, jax.random.key(0))[0]


def test_loss_and_gradient_are_the_reference_s():
    agrees("booster", "both", loss)


def test_a_step_of_the_simulated_attack_is_as_long_in_adapters_that_train():
    agrees("booster", "adapters", beside(loss), trained=adapters)
