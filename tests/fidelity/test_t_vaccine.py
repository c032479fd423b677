"""T-Vaccine beside its paper's formula and its authors' code, the chances of layers too."""

import jax
import jax.numpy as jnp
import pytest
from fidelity.golden import MODEL, agrees

from immunax.defenses.t_vaccine import Targets, TVaccine, harm_chances

FORMS = {"attention": {}, "layer": {"place": "layer"}, "harmless": {"gamma": 0.6}}


@pytest.mark.parametrize("form", FORMS)
def test_loss_gradient_and_chances_are_the_reference_s(form):
    defense = TVaccine(rho=3.0, **FORMS[form])

    def loss(params, batch, _):
        chances = harm_chances(MODEL, params, batch, defense.place)
        drawn = Targets(chances, jnp.array([False, True]))
        streams = batch if form == "harmless" else batch._replace(retain=None)
        total = defense.loss(MODEL, params, drawn, streams, jax.random.key(0))[0]
        return total + jax.lax.stop_gradient(jnp.array([1.0, 2.0]) @ chances)

    agrees("t_vaccine", form, loss)
