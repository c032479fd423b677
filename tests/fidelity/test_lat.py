"""Latent adversarial training beside its paper's formula and its authors' code for two models."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fidelity.golden import CASES, FOLDER, MODEL, agrees, case, params, start_of

from immunax.defenses.lat import Carried, Lat, Search
from immunax.outer.defense import Mixture

FORMS = {
    "paper": {"threshold": None, "inner_weight_decay": 0.0, "sft": 0.5},
    "llama2": {"sft": 0.5},
    "llama3": {"answers": True, "sft": 0.0, "kl": 0.1},
}


def _defense(form):
    mixture = Mixture(safe=3, harmful=3, retain=3, paired=True)
    sizes = {"epsilon": 0.3, "inner_steps": 2, "inner_learning_rate": 0.1, "toward": 0.3, "away": 0.4}
    return Lat(rows=(0, 1), mixture=mixture, **sizes, **FORMS[form])


@pytest.mark.parametrize("form", FORMS)
def test_loss_and_gradient_at_the_reference_s_perturbation_are_its(form):
    defense = _defense(form)

    def loss(params, batch, stored):
        state = Carried(start_of(params), Search(batch, stored["found"], jnp.zeros(1)))
        return defense.loss(MODEL, params, state, batch, jax.random.key(0))[0]

    agrees("lat", form, loss)


def test_the_next_update_has_the_same_perturbation_and_batch_at_the_weights_that_moved():
    defense = replace(_defense("llama2"), updates=2)

    def loss(params, batch, stored):
        found = Carried(None, Search(batch, stored["found"], jnp.zeros(2)))
        slopes = jax.grad(lambda at: defense.loss(MODEL, at, found, batch, jax.random.key(0))[0])(params)
        moved = jax.tree.map(lambda leaf, slope: leaf - 0.01 * jax.lax.stop_gradient(slope), params, slopes)
        # The next step's own batch is another one.
        other = batch._replace(safe=batch.harmful, harmful=batch.safe)
        carried = defense.advance(MODEL, moved, found, other, jnp.int32(1), 4, jax.random.key(0))
        return defense.loss(MODEL, moved, carried, other, jax.random.key(0))[0]

    agrees("lat", "updated", loss)


@pytest.mark.parametrize("form", FORMS)
def test_the_perturbation_is_the_reference_s(form):
    defense, golden = _defense(form), np.load(FOLDER / "lat.npz")

    @jax.jit
    def found(batch):
        return defense.perturbation(MODEL, batch, defense.search(MODEL, params(), batch).part).stream[:2]

    for name in CASES:
        theirs = golden[f"{form}.{name}.found"]
        assert np.linalg.norm(found(case(name)) - theirs) < 5e-3 * np.linalg.norm(theirs), name
