"""Circuit breakers beside their paper's formula and their authors' code."""

import jax
import jax.numpy as jnp
import pytest
from fidelity.golden import LENGTH, MODEL, ROWS, agrees, start_of

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


STEPS, SHOWN = 150, {1: 1.0, 75: 2.0, 150: 3.0}
"""As the reference has them: numbers of steps, from 1, and the weights by which it sums the losses there."""


@pytest.mark.parametrize("layout", ROWS)
def test_the_coefficients_follow_the_reference_s_schedule_whether_or_not_examples_share_rows(layout):
    defense = CircuitBreakers(alpha=10.0, targets=(1, 2))

    def loss(params, batch, _):
        start = Circuit(jnp.float32(0), start_of(params))

        def at(step):
            state = defense.advance(MODEL, params, start, batch, jnp.int32(step), STEPS, jax.random.key(0))
            return defense.loss(MODEL, params, state, batch, jax.random.key(0))[0]

        return sum(weight * at(number - 1) for number, weight in SHOWN.items())

    agrees("circuit_breakers", "schedule", loss, rows=ROWS[layout])
