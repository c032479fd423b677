"""TAR beside its paper's formula and its authors' code."""

from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from fidelity.golden import MODEL, PAD, ROWS, agrees, params

from immunax.defenses.tar import References, Tar
from immunax.inner.optimizers import AdamW
from immunax.outer import attacker
from immunax.outer.defense import Mixture
from immunax.outer.simulation import Simulation

TOKENS = {"labels": "all_tokens", "positions": "all", "last_state": "normed", "reference": "base"}
CODE = {**TOKENS, "padding": PAD}
FORMS = {
    "paper": {"resistance": "dpo"},
    "entropy_repository": {"resistance": "entropy", **CODE},
    "dpo_repository": {"resistance": "dpo", **CODE},
}
SWITCH = 2
"""Harmless inner steps of the form that has some."""


def scaled(factor: float) -> dict:
    return jax.tree.map(lambda leaf: factor * leaf, params())


def objective(form, rule, **options):
    """TAR's loss at the references of a form, for :func:`agrees`."""
    simulated = attacker.Attacker(rule, (2e-3,), retain_first=float(form == "dpo_repository"))
    mixture = Mixture(retain=3, simulation=Simulation(4, 2, 2, 2, paired=True, mixed=True))
    defense = Tar(simulated, decay=0.2, mixture=mixture, **options)
    references = References(scaled(0.9)) if form == "paper" else References(scaled(0.95), scaled(0.9))

    def loss(params, batch, _):
        with mock.patch.object(attacker, "switch", return_value=jnp.int32(SWITCH)):
            return defense.loss(MODEL, params, references, batch, jax.random.key(0))[0]

    return loss


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradient_are_the_reference_s(form):
    agrees("tar", form, objective(form, AdamW(max_grad_norm=None), **FORMS[form]))


@pytest.mark.parametrize("layout", ROWS)
def test_examples_that_share_rows_have_the_reference_s_loss_and_gradient(layout):
    loss = objective("entropy_tokens", AdamW(max_grad_norm=None), resistance="entropy", **TOKENS)
    agrees("tar", "entropy_tokens", loss, rows=ROWS[layout])


def test_an_attacker_whose_weights_decay_is_the_reference_s():
    rule = AdamW(max_grad_norm=None, weight_decay=20.0, decays_norms=True)
    agrees("tar", "decay", objective("decay", rule, resistance="entropy", **TOKENS))
