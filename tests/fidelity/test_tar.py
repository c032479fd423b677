"""TAR beside its paper's formula and its authors' code."""

from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from fidelity.golden import MODEL, PAD, agrees, params

from immunax.defenses.tar import References, Tar
from immunax.inner.optimizers import AdamW
from immunax.outer import attacker
from immunax.outer.defense import Mixture
from immunax.outer.simulation import Simulation

CODE = {"labels": "all_tokens", "positions": "all", "last_state": "normed", "reference": "base", "padding": PAD}
FORMS = {
    "paper": {"resistance": "dpo"},
    "entropy_repository": {"resistance": "entropy", **CODE},
    "dpo_repository": {"resistance": "dpo", **CODE},
}
SWITCH = 2
"""Harmless inner steps of the form that has some."""


def scaled(factor: float) -> dict:
    return jax.tree.map(lambda leaf: factor * leaf, params())


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradient_are_the_reference_s(form):
    rule = AdamW(max_grad_norm=None)
    simulated = attacker.Attacker(rule, (2e-3,), retain_first=float(form == "dpo_repository"))
    mixture = Mixture(retain=3, simulation=Simulation(4, 2, 2, 2, paired=True, mixed=True))
    defense = Tar(simulated, decay=0.2, mixture=mixture, **FORMS[form])
    references = References(scaled(0.9)) if form == "paper" else References(scaled(0.95), scaled(0.9))

    def loss(params, batch, _):
        with mock.patch.object(attacker, "switch", return_value=jnp.int32(SWITCH)):
            return defense.loss(MODEL, params, references, batch, jax.random.key(0))[0]

    agrees("tar", form, loss)
