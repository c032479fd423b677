"""Vaccine beside its paper's formula and its authors' code."""

import jax
import pytest
from fidelity.golden import MODEL, agrees

from immunax.defenses.vaccine import Vaccine

FORMS = {"attention": {}, "layer": {"place": "layer"}, "harmless": {"gamma": 0.6}}


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradient_are_the_reference_s(form):
    defense = Vaccine(rho=2.0, **FORMS[form])

    def loss(params, batch, _):
        streams = batch if form == "harmless" else batch._replace(retain=None)
        return defense.loss(MODEL, params, (), streams, jax.random.key(0))[0]

    agrees("vaccine", form, loss)
