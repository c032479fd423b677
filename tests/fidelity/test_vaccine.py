"""Vaccine beside its paper's formula and its authors' code."""

import jax
import pytest
from fidelity.golden import MODEL, agrees

from immunax.defenses.vaccine import Vaccine


@pytest.mark.parametrize("place", ["attention", "layer"])
def test_loss_and_gradient_are_the_reference_s(place):
    defense = Vaccine(rho=2.0, place=place)

    def loss(params, batch, _):
        return defense.loss(MODEL, params, (), batch._replace(retain=None), jax.random.key(0))[0]

    agrees("vaccine", place, loss)
