"""Random mapping beside its paper's formula and its authors' code."""

from unittest import mock

import jax
import pytest
from fidelity.golden import MODEL, PAD, agrees

from immunax.defenses import random_mapping
from immunax.outer.defense import Mixture

FORMS = {"paper": {}, "repository": {"labels": "all_tokens", "last_state": "normed", "padding": PAD}}


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradient_are_the_reference_s(form):
    defense = random_mapping.RandomMapping(mixture=Mixture(harmful=3, retain=3), **FORMS[form])

    def loss(params, batch, draws):
        with mock.patch.object(random_mapping, "token_vectors", lambda key, tokens, width: draws["vectors"][tokens]):
            return defense.loss(MODEL, params, jax.random.key(0), batch, jax.random.key(0))[0]

    agrees("random_mapping", form, loss)
