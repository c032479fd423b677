import numpy as np
import pytest

from immunax.conditions.groups import intervals
from immunax.conditions.records import RECORDS, frame
from immunax.conditions.statistics import rate, ratio


def table(values, weights):
    count = len(values)
    columns = [["c"] * count, [0] * count, ["test"] * count, ["m"] * count, map(str, range(count)), values, weights]
    return frame(zip(*columns, strict=True), RECORDS).groupby(["cell", "step"], sort=False)


@pytest.mark.parametrize("successes", [0, 3, 10])
def test_rates_have_the_exact_interval(successes):
    outcomes = np.array([1.0] * successes + [0.0] * (10 - successes))
    assert np.allclose(intervals(table(outcomes, np.ones(10))).to_numpy()[0], rate(outcomes))


def test_a_likelihood_a_token_has_about_the_interval_of_a_bootstrap():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 15, 200).astype(float)
    losses = tokens * rng.gamma(4.0, 0.5, 200)
    value, low, high = intervals(table(losses, tokens)).to_numpy()[0]
    expected = ratio(losses, tokens)
    assert value == pytest.approx(expected.value)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.05)


def test_one_example_has_no_interval():
    value, low, high = intervals(table([0.5], [1.0])).to_numpy()[0]
    assert value == 0.5
    assert np.isnan([low, high]).all()
