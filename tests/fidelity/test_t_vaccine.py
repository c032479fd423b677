"""T-Vaccine beside its paper's formula and its authors' code, the chances of layers too."""

import jax
import jax.numpy as jnp
import pytest
from fidelity.golden import MODEL, agrees

from immunax.defenses.t_vaccine import Targets, TVaccine, harm_chances


@pytest.mark.parametrize("place", ["attention", "layer"])
def test_loss_gradient_and_chances_are_the_reference_s(place):
    defense = TVaccine(rho=3.0, place=place)

    def loss(params, batch, _):
        chances = harm_chances(MODEL, params, batch, place)
        drawn = Targets(chances, jnp.array([False, True]))
        total = defense.loss(MODEL, params, drawn, batch._replace(retain=None), jax.random.key(0))[0]
        return total + jax.lax.stop_gradient(jnp.array([1.0, 2.0]) @ chances)

    agrees("t_vaccine", place, loss)
