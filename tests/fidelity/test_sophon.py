"""SOPHON beside its paper's formula and its authors' code."""

from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from fidelity.golden import MODEL, agrees

from immunax.defenses import sophon
from immunax.inner.optimizers import Sgd
from immunax.outer.attacker import Attacker
from immunax.outer.defense import Mixture
from immunax.outer.simulation import Simulation

OBJECTIVES = dict(sophon.OBJECTIVES)
DEFENSE = sophon.Sophon(
    Attacker(Sgd(max_grad_norm=None), (0.05,)),
    0.7,
    1.5,
    mixture=Mixture(safe=3, retain=3, simulation=Simulation(4, 2, 2, 2)),
)


def loss(params, batch, _, number):
    """The defense's under one of its objectives: a program for all of them, which share the attack."""

    def one_of_them(model, params, batch):
        return jax.lax.switch(number, [partial(each, model) for each in OBJECTIVES.values()], params, batch)

    with mock.patch.object(sophon, "OBJECTIVES", {DEFENSE.objective: one_of_them}):
        return DEFENSE.loss(MODEL, params, (), batch, jax.random.key(0))[0]


@pytest.mark.parametrize("form", OBJECTIVES)
def test_loss_and_gradient_are_the_reference_s(form):
    agrees("sophon", form, loss, jnp.int32(list(OBJECTIVES).index(form)))
