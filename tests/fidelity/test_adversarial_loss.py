"""The adversarial loss beside the authors' formula."""

import jax
import pytest
from fidelity.golden import MODEL, PAD, agrees

from immunax.defenses.adversarial_loss import AdversarialLoss
from immunax.outer.defense import Mixture

FORMS = {"answer": {}, "differing": {"labels": "differing", "padding": PAD}}


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradient_are_the_reference_s(form):
    defense = AdversarialLoss(mixture=Mixture(safe=3, harmful=3, paired=True), **FORMS[form])
    agrees(
        "adversarial_loss", form, lambda params, batch, _: defense.loss(MODEL, params, (), batch, jax.random.key(0))[0]
    )
