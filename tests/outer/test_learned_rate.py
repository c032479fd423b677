"""The attacker who learns his rate, beside Adam written out."""

from dataclasses import replace

import jax.numpy as jnp
import pytest
import small

from immunax.data.batches import stack
from immunax.defenses.mlac import Mlac
from immunax.defenses.sophon import Sophon
from immunax.inner.estimators import FirstOrder
from immunax.outer.defense import Mixture
from immunax.outer.exposure import trained_against
from immunax.outer.learned_rate import SLOPE, LearnedRate
from immunax.outer.simulation import SimulatedAttack, Simulation
from immunax.runtime.errors import UserError

DATA = SimulatedAttack(stack([small.batch(1, 2)]), stack([small.batch(2, 2)]))
ATTACKER = LearnedRate()


def led(attacker: LearnedRate, slopes) -> list[float]:
    """The rates of the steps after the first."""
    pool, rates = attacker.empty_pool(DATA), []
    for slope in slopes:
        drawn, _ = attacker.draw(pool, DATA, None)
        assert drawn.attack.member == pool.value
        pool, _ = attacker.keep(pool, drawn, {SLOPE: jnp.float32(slope)})
        rates.append(float(pool.value))
    return rates


def test_the_rate_descends_by_adam_on_its_clipped_slope():
    slopes, first, second, rate, expected = (-2.0, 50.0, 3.0), 0.0, 0.0, 3e-4, []
    for t, slope in enumerate(slopes, 1):
        clipped = min(slope, 10.0)
        first, second = 0.9 * first + 0.1 * clipped, 0.999 * second + 0.001 * clipped**2
        rate -= 1e-4 * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)) ** 0.5 + 1e-8)
        expected.append(rate)
    assert led(ATTACKER, slopes) == pytest.approx(expected, rel=1e-4)


def test_the_rate_stays_within_its_bounds_and_where_its_slope_is_not_finite():
    assert led(replace(ATTACKER, learning_rate=1.0), (1.0, -1.0, -1.0)) == pytest.approx([1e-6, 1e-2, 1e-2], rel=0.2)
    assert led(ATTACKER, (float("nan"),)) == pytest.approx([3e-4])


def test_an_attacker_who_learns_needs_a_gradient_through_his_steps_bounds_around_his_start_and_a_defender_who_ascends():
    with pytest.raises(UserError, match="FirstOrder"):
        LearnedRate(estimator=FirstOrder())
    with pytest.raises(UserError, match=r"attacker\.bounds"):
        LearnedRate(start=1.0)
    mixture = Mixture(safe=1, retain=1, simulation=Simulation(2, 1))
    with pytest.raises(UserError, match="Sophon does not ascend"):
        Sophon(ATTACKER, mixture=mixture)
    assert trained_against(Mlac(ATTACKER, mixture=mixture)) == ("harmful_sft",)
