import pytest

from immunax.conditions.statistics import Estimate
from immunax.runs.fit import power_law
from immunax.runs.series import Series
from immunax.runs.tables import Mean


def series(values, half=0.0):
    return Series(None, {x: Mean(Estimate(y, y - half * y, y + half * y), 3, 3) for x, y in values.items()})


def test_a_power_law_is_found_again_and_is_sure_where_its_means_are():
    law = power_law(series({x: 3.0 * x**0.7 for x in (1, 10, 100)}))
    assert law.factor == pytest.approx(3.0)
    assert law.exponent == pytest.approx((0.7, 0.7, 0.7))
    assert law.at(50) == pytest.approx(3.0 * 50**0.7)


def test_wider_means_give_a_wider_interval_around_the_exponent():
    law = power_law(series({x: 3.0 * x**0.7 for x in (1, 10, 100)}, half=0.3))
    assert law.exponent.low < 0.65
    assert law.exponent.high > 0.75


def test_two_points_and_names_have_no_law():
    assert power_law(series({1: 1.0, 2: 2.0})) is None
    assert power_law(series({"a": 1.0, "b": 2.0, "c": 1.0})) is None
    assert power_law(series({0: 1.0, 1: 2.0, 2: 1.0})) is None
