"""SOPHON beside its paper's formula and its authors' code."""

import jax
import pytest
from fidelity.golden import MODEL, agrees

from immunax.defenses.sophon import OBJECTIVES, Sophon
from immunax.inner.optimizers import Sgd
from immunax.outer.attacker import Attacker
from immunax.outer.defense import Mixture
from immunax.outer.simulation import Simulation


@pytest.mark.parametrize("form", OBJECTIVES)
def test_loss_and_gradient_are_the_reference_s(form):
    mixture = Mixture(safe=3, retain=3, simulation=Simulation(4, 2, 2, 2))
    defense = Sophon(Attacker(Sgd(max_grad_norm=None), (0.05,)), 0.7, 1.5, form, mixture)
    agrees("sophon", form, lambda params, batch, _: defense.loss(MODEL, params, (), batch, jax.random.key(0))[0])
