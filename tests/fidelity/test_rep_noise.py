"""Representation noising beside its three published forms, and with padding and harmless examples as this package has them."""

from unittest import mock

import jax
import pytest
from fidelity.golden import MODEL, PAD, agrees

from immunax.defenses import rep_noise
from immunax.outer.defense import Mixture

FORMS = {
    "paper": {"padding": PAD},  # for the noise past the end of the shorter answer
    "repository": {"labels": "differing", "output": "twice", "padding": PAD},
    "rerun": {"noise_on": "answer", "output": "twice"},
    "unpadded": {},
    "harmless": {"gamma": 0.6},
}


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradient_are_the_reference_s(form):
    mixture = Mixture(safe=3, harmful=3, paired=True)
    defense = rep_noise.RepNoise(alpha=0.7, beta=0.5, mixture=mixture, **FORMS[form])

    def loss(params, batch, draws):
        streams = batch if form == "harmless" else batch._replace(retain=None)
        with mock.patch.object(rep_noise, "gaussian", return_value=draws["noise"]):
            return defense.loss(MODEL, params, (), streams, jax.random.key(0))[0]

    agrees("rep_noise", form, loss)
