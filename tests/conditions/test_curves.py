from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from certified import POLICY, attacked, judged, measured, share, state, tables

from immunax.conditions.curves import best_so_far, envelope, worst
from immunax.conditions.points import points
from immunax.conditions.statistics import rate


def mine(*cells):
    return attacked(*[(name, "subject", *rest) for name, *rest in cells])


def test_a_cost_curve_rises_where_a_budget_allows_a_more_harmful_attack():
    table = mine(("a", "sft", 4, 10.0), ("b", "sft", 2, 20.0), ("c", "lora", 30, 30.0), ("d", "lora", 1, 90.0))
    found = envelope(table, "flops", 0.95)
    assert [(each["cost"], each["rate"]) for each in found] == [(10.0, 0.1), (30.0, 0.75), (90.0, 0.75)]
    exact = rate(np.array(share(30, 40)))
    assert (found[1]["low"], found[1]["high"]) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert envelope(table[:0], "flops", 0.95) == []


def test_the_worst_point_of_a_family_keeps_the_utility_and_broken_ones_are_counted():
    states = [state("none", "subject", "none"), state("a", "subject", "sft", 5), state("b", "subject", "sft", 5)]
    states.append(state("c", "subject", "lora", 5))
    records = [measured("none", 0, "retain_nll", [1.0] * 4)]
    for cell, harmful, nll in (("a", 40, 2.0), ("b", 10, 1.0), ("c", 40, 2.0)):
        records += [judged(cell, 5, "refusal", share(harmful, 40)), measured(cell, 5, "retain_nll", [nll] * 4)]
    found = worst(points(*tables(states, *records), POLICY, "test"), 0.95)
    assert [(row["family"], row["rate"], row["broken"]) for row in found] == [("sft", 0.25, 1), ("lora", None, 1)]
    assert [row["broken_rate"] for row in found] == [1.0, 1.0]


def test_the_best_so_far_is_the_mean_over_all_orders_of_the_trials():
    table = mine(("a", "sft", 4, 1.0), ("b", "sft", 20, 1.0), ("c", "lora", 30, 1.0), ("d", "lora", 0, 1.0))
    orders = np.array(list(permutations([0.1, 0.5, 0.75, 0.0])))
    expected = np.maximum.accumulate(orders, axis=1).mean(axis=0)
    np.testing.assert_allclose([row["rate"] for row in best_so_far(table)], expected)


def test_the_best_so_far_of_thousands_of_trials_is_a_number():
    table = mine(("a", "sft", 40, 1.0), ("b", "sft", 0, 1.0))
    harmless = table[table["harmful"] == 0]
    many = pd.concat([table, *(harmless.assign(cell=f"c{i}") for i in range(1998))])
    rates = [row["rate"] for row in best_so_far(many[many["side"] == "compliance"])]
    # One harmful trial of 2,000: it is among k with chance k / 2,000.
    np.testing.assert_allclose(rates, np.arange(1, 2001) / 2000, rtol=1e-6)
