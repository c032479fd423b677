"""Small perturbations and short steps do to a loss in bfloat16 what they do in float32."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
import streams

from immunax.defenses.booster import Booster
from immunax.defenses.ctrap import CTRAP
from immunax.defenses.lat import Carried, Lat
from immunax.defenses.t_vaccine import Targets, TVaccine
from immunax.defenses.vaccine import Vaccine
from immunax.inner.perturbation import PLACES
from immunax.outer.defense import Mixture

ON_GRID = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), streams.WEIGHTS)
"""As the weights of a checkpoint in bfloat16 are: a change of less than half their spacing is rounded away."""

STEP = 0.002
LAT = Lat(
    (0,),
    epsilon=0.05,
    inner_steps=2,
    inner_learning_rate=0.01,
    mixture=Mixture(safe=3, harmful=3, retain=3, paired=True),
)


def _rises(dtype):
    """What each defense's inner problem changes its loss by, by name."""
    model = replace(streams.MODEL, dtype=dtype)

    def changes(weights):
        def terms(defense, state=()):
            return defense.loss(model, weights, state, streams.BATCH, streams.KEY)[1]

        lat = terms(LAT, Carried(None, None))
        steered = {
            f"{name}, {place}": terms(kind(rho=radius, place=place), state)
            for place in PLACES
            for name, kind, radius, state in (
                ("vaccine, a tenth", Vaccine, 0.2, ()),
                ("vaccine", Vaccine, 2.0, ()),
                ("t_vaccine", TVaccine, 3.0, Targets(jnp.ones(1), jnp.array([True]))),
            )
        }
        collapses = [terms(CTRAP(5, step_length=length))["collapse"] for length in (1e-9, 10 * STEP)]
        return {
            **{name: each["perturbed"] - each["calm"] for name, each in steered.items()},
            "lat": lat["adversary_first"] - lat["adversary_last"],
            "booster": terms(Booster(step_length=STEP))["harmful_fall"],
            "ctrap": collapses[1] - collapses[0],
        }

    return jax.jit(changes)(ON_GRID)


@pytest.mark.slow
def test_in_bfloat16_a_loss_changes_by_what_it_does_in_float32_within_five_percent():
    half, single = _rises("bfloat16"), _rises("float32")
    for name, change in single.items():
        assert abs(change) > 1e-3, name
        assert float(half[name]) == pytest.approx(float(change), rel=0.05), name
