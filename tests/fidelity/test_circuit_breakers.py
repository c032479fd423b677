"""Circuit breakers beside their paper's formula and their authors' code."""

import jax
import jax.numpy as jnp
import pytest
from fidelity.golden import LENGTH, MODEL, agrees, start_of

from immunax.defenses.circuit_breakers import Circuit, CircuitBreakers

FORMS = {
    "paper": {"targets": (1, 2)},
    "repository": {"targets": (1,), "hold": "hidden_states", "hold_length": LENGTH},
}


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradient_are_the_reference_s(form):
    defense = CircuitBreakers(alpha=10.0, **FORMS[form])

    def loss(params, batch, _):
        state = Circuit(jnp.float32(0.3), start_of(params))
        return defense.loss(MODEL, params, state, batch, jax.random.key(0))[0]

    agrees("circuit_breakers", form, loss)
