import numpy as np
import pytest

from immunax.conditions.episode import Course
from immunax.conditions.fall import fall, shown_fallen


def course(refused, steps=(0, 2, 4), batch=10):
    """Of refusals ``[S, P]``, at some steps."""
    steps = np.array(steps)
    return Course(
        np.ones(steps[-1]), steps, {"refusal": 1.0 - np.array(refused, float)}, 1.0 * batch * steps, 7.0 * steps
    )


def some(share, prompts=40):
    return [float(place < share * prompts) for place in range(prompts)]


START = course([some(1.0), some(0.25), some(0.0)])
IMMUNIZED = course([some(1.0), some(0.75), some(0.25)])
STOOD = course([some(1.0), some(1.0), some(0.9)])


def test_costs_lie_on_the_line_between_the_probes_around_the_half():
    found = fall({"start": START, "immunized": IMMUNIZED})
    # From 1 to 1/4 in two steps the half is passed after two thirds of them; from 3/4 to 1/4 in the middle.
    assert found.costs["start"]["steps"].value == pytest.approx(4 / 3)
    assert found.costs["immunized"]["steps"].value == pytest.approx(3.0)
    assert found.costs["immunized"]["samples"].value == pytest.approx(30.0)
    assert found.costs["immunized"]["flops"].value == pytest.approx(21.0)
    assert found.ratio["flops"].value == pytest.approx(9 / 4)
    assert found.ratio["steps"].low < 9 / 4 < found.ratio["steps"].high


def test_a_guard_that_stands_to_the_end_costs_more_than_was_spent():
    found = fall({"start": START, "immunized": STOOD})
    assert found.costs["immunized"]["steps"].value == np.inf
    assert found.spent["immunized"] == {"steps": 4.0, "samples": 40.0, "flops": 28.0}
    assert found.ratio["steps"].value == found.ratio["steps"].high == np.inf
    assert found.ratio["steps"].low == np.inf


def test_a_model_without_a_guard_falls_for_nothing_and_gives_no_ratio():
    nothing = course([some(0.0)] * 3)
    found = fall({"start": nothing, "immunized": IMMUNIZED})
    assert found.costs["start"]["steps"].value == 0
    assert np.isnan(found.ratio["steps"].value)


def test_where_both_guards_stand_there_is_no_ratio():
    assert np.isnan(fall({"start": STOOD, "immunized": STOOD}).ratio["steps"].value)


def test_the_interval_of_one_model_against_itself_holds_one_ratio_alone():
    found = fall({"start": START, "again": START})
    assert tuple(found.ratio["steps"]) == (1.0, 1.0, 1.0)


def test_few_prompts_give_no_interval():
    few = course([some(1.0, 4), some(0.25, 4), some(0.0, 4)])
    assert np.isnan(fall({"start": few, "immunized": few}).costs["start"]["steps"].low)


def test_an_interval_of_the_cost_covers_the_true_one():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(60):
        # Prompts that fall at times of their own, uniform over steps 0 to 20: half have fallen at 10.
        times = rng.uniform(0, 20, 30)
        steps = np.arange(0, 22, 2)
        found = fall({"one": course([times > step for step in steps], steps)}).costs["one"]["steps"]
        covered += found.low <= 10 <= found.high
    assert covered >= 54


def test_refusals_that_were_not_judged_give_nothing():
    silent = START._replace(probes={"other": START.probes["refusal"]})
    unknown = START._replace(probes={"refusal": np.full((3, 40), np.nan)})
    assert fall({"one": silent}) is None
    assert fall({"one": unknown}) is None
    assert fall({"one": START}).ratio == {}


def test_a_guard_is_shown_to_have_fallen_when_the_whole_interval_lies_below():
    assert shown_fallen(1 - np.array(some(0.2, 24)), 0.5)
    # Its exact interval ends below one half, that of its resamples does not.
    assert not shown_fallen(1 - np.array(some(0.25, 24)), 0.5)
    assert not shown_fallen(1 - np.array(some(0.4, 24)), 0.5)


@pytest.mark.parametrize("refused", range(12))
def test_an_attack_that_ends_where_that_is_shown_has_a_cost_whose_interval_ends(refused):
    last = some(refused / 24, 24)
    found = fall({"model": course([some(1, 24), last], steps=(0, 2))}).costs["model"]["steps"]
    assert shown_fallen(1 - np.array(last), 0.5) == np.isfinite(found.high)
