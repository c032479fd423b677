"""SEAM beside its paper's formula and its authors' code."""

import jax
import pytest
from fidelity.golden import MODEL, agrees

from immunax.defenses.seam import Seam
from immunax.outer.defense import Mixture

FORMS = {"paper": {}, "repository": {"labels": "differing", "harmless_labels": "all_tokens", "output": "twice"}}


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradient_are_the_reference_s(form):
    mixture = Mixture(safe=3, harmful=3, retain=3, paired=True)
    defense = Seam(beta=1.0, epsilon=0.05, mixture=mixture, **FORMS[form])
    agrees("seam", form, lambda params, batch, _: defense.loss(MODEL, params, (), batch, jax.random.key(0))[0])
