import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from immunax.conditions import statistics
from immunax.conditions.groups import exact
from immunax.conditions.statistics import (
    crossed_mean,
    mean,
    mean_of_runs,
    mean_of_runs_and_prompts,
    mean_ratio,
    rate,
    ratio,
)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(1, 40))
def test_a_rates_interval_is_clopper_and_pearsons(successes, failures):
    outcomes = np.array([1.0] * successes + [0.0] * failures)
    found, total = rate(outcomes), successes + failures
    assert found.value == successes / total
    low = stats.beta.ppf(0.025, successes, failures + 1) if successes else 0.0
    high = stats.beta.ppf(0.975, successes + 1, failures)
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=1e-9)


def test_what_does_not_apply_is_left_out_and_nothing_gives_nothing():
    assert rate(np.array([1.0, np.nan, 0.0])).value == 0.5
    assert np.isnan(rate(np.array([np.nan])).value)
    assert np.isnan(mean(np.array([np.nan, np.nan])).low)
    assert format(rate(np.array([np.nan])), ".2f") == "–"


def test_a_ratio_weighs_examples_by_their_denominator():
    found = ratio(np.array([10.0, 1.0, 4.0]), np.array([5.0, 1.0, 1.0]))
    assert found.value == pytest.approx(15 / 7)
    assert found.low <= found.value <= found.high
    assert ratio(np.array([2.0, 4.0]), np.array([1.0, 2.0])) == (2.0, 2.0, 2.0)


def test_ratios_of_nothing_and_of_numbers_without_end_are_numbers_and_nobody_is_warned(recwarn):
    some, none = np.full(30, 2.0), np.zeros(30)
    assert mean_ratio(none, none, 0.95) == (1.0, 1.0, 1.0)
    assert mean_ratio(some, none, 0.95).high == statistics.MOST
    assert np.isfinite(mean_ratio(some * 1e9, np.linspace(0, 1e-300, 30), 0.95)).all()
    assert not recwarn.list


def test_a_means_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [(found := mean(rng.exponential(size=40))).low <= 1.0 <= found.high for _ in range(200)]
    assert 0.87 <= np.mean(hits) <= 0.99


@pytest.mark.parametrize("runs", [2, 3, 10])
def test_a_mean_of_few_runs_covers_the_truth_as_often_as_it_says(runs):
    rng, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        found = mean_of_runs(rng.normal(1.0, 2.0, runs))
        covered += found.low <= 1.0 <= found.high
    assert 0.935 < covered / 2000 < 0.965


def test_a_mean_of_runs_is_students_and_of_one_it_has_no_interval():
    values = np.array([0.2, 0.5, 0.9, np.nan])
    expected = stats.t.interval(0.9, 2, values[:3].mean(), stats.sem(values[:3]))
    np.testing.assert_allclose(mean_of_runs(values, 0.9), (values[:3].mean(), *expected), rtol=1e-12)
    np.testing.assert_equal(tuple(mean_of_runs(np.array([0.5]))), (0.5, np.nan, np.nan))
    assert np.isnan(mean_of_runs(np.array([np.nan]))).all()


def test_a_crossed_mean_resamples_rows_and_columns_apart():
    rng = np.random.default_rng(1)
    table = rng.random((4, 7)) + rng.random((4, 1)) + rng.random(7)
    found = crossed_mean(table)
    draws = [table[rng.integers(0, 4, 4)][:, rng.integers(0, 7, 7)].mean() for _ in range(20_000)]
    np.testing.assert_allclose(found, [table.mean(), *np.quantile(draws, [0.025, 0.975])], atol=0.03)
    # Copies of a row are no new attacks: the cells alone would halve the interval.
    copied = crossed_mean(np.repeat(table[:1], 4, axis=0))
    alone = crossed_mean(table[:1])
    np.testing.assert_allclose(copied, alone, atol=0.03)
    assert copied.high - copied.low > 0.2
    assert np.isnan(crossed_mean(np.full((2, 2), np.nan)).value)


def test_resamples_of_many_examples_are_drawn_in_parts_and_are_the_same(monkeypatch):
    rng = np.random.default_rng(5)
    top, bottom, table = rng.normal(3, 1, 999), rng.random(999) + 1, rng.random((3, 500))
    whole = ratio(top, bottom), crossed_mean(table)
    monkeypatch.setattr(statistics, "_AT_ONCE", 999 * 300)
    np.testing.assert_allclose((ratio(top, bottom), crossed_mean(table)), whole, rtol=1e-12)


@pytest.mark.parametrize(("of_seeds", "of_prompts"), [(0.0, 2.0), (1.0, 0.0), (1.0, 2.0)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_an_interval_for_runs_and_prompts_covers_the_mean_over_both(of_seeds, of_prompts, seeds):
    rng, count, prompts = np.random.default_rng(1), 400, 40
    # The truth is a mean over seeds and prompts that were not drawn: many of both.
    logits = 0.5 + of_seeds * rng.standard_normal((2000, 1)) + of_prompts * rng.standard_normal((1, 2000))
    truth = np.mean(1 / (1 + np.exp(-logits)))
    logits = (
        0.5 + of_seeds * rng.standard_normal((count, seeds, 1)) + of_prompts * rng.standard_normal((count, 1, prompts))
    )
    known = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).sum(axis=2)
    lows, highs = exact(known.astype(float), np.full(known.shape, float(prompts)))
    found = [mean_of_runs_and_prompts(*each) for each in zip(known / prompts, lows, highs, strict=True)]
    assert np.mean([each.low <= truth <= each.high for each in found]) >= 0.93


def test_the_interval_of_one_run_is_its_own_and_of_equal_runs_as_wide():
    one = mean_of_runs_and_prompts(np.array([0.5]), np.array([0.3]), np.array([0.6]))
    assert one == pytest.approx((0.5, 0.3, 0.6))
    same = mean_of_runs_and_prompts(np.array([0.0] * 3), np.array([0.0] * 3), np.array([0.09] * 3))
    assert same == pytest.approx((0.0, 0.0, 0.09))


def test_runs_without_intervals_have_that_of_students():
    values = np.array([0.1, 0.2, 0.4])
    assert mean_of_runs_and_prompts(values, np.full(3, np.nan), values) == mean_of_runs(values)
