"""RMU beside its paper's formula and its authors' code."""

import jax
import jax.numpy as jnp
import pytest
from fidelity.golden import MODEL, PAD, agrees, start_of

from immunax.defenses.rmu import Misdirection, Rmu

FORMS = {"tokens": {}, "all": {"positions": "all", "padding": PAD}}


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradient_are_the_reference_s(form):
    defense = Rmu(layer=1, alpha=2.0, **FORMS[form])

    def loss(params, batch, draws):
        direction = jnp.abs(draws["vector"])
        control = 6.5 * direction / jnp.linalg.norm(direction)
        state = Misdirection(control[None], start_of(params), jnp.int32(0))
        return defense.loss(MODEL, params, state, batch, jax.random.key(0))[0]

    agrees("rmu", form, loss)
