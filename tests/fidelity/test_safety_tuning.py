"""Safety tuning beside the cross entropies of answers and of all tokens."""

import jax
import pytest
from fidelity.golden import MODEL, agrees

from immunax.defenses.safety_tuning import SafetyTuning
from immunax.outer.defense import Mixture


@pytest.mark.parametrize("labels", ["answers", "all_tokens"])
def test_loss_and_gradient_are_the_reference_s(labels):
    defense = SafetyTuning(Mixture(safe=3, retain=3), labels)
    agrees(
        "safety_tuning", labels, lambda params, batch, _: defense.loss(MODEL, params, (), batch, jax.random.key(0))[0]
    )
