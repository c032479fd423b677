import math

import numpy as np
import pytest
import scipy.stats

from immunax.runs.aggregate import check_number, grouped, in_order, lacking, means, pivot
from immunax.runs.frame import Frame, Row
from immunax.runs.query import EVERY, Query
from immunax.runs.tables import Mean
from immunax.runtime.errors import UserError


def query(rows, what="run"):
    named = [{"run": f"r{number}", "status": "done", **row} for number, row in enumerate(rows)]
    return Query(Frame([Row(row) for row in named], what))


def with_ends(value, half=0.1):
    return {"x": value, "x.low": value - half, "x.high": value + half}


def test_a_mean_over_runs_has_students_interval():
    values = [0.2, 0.5, 0.9]
    found = means(query([with_ends(value) for value in values]), [], "x", EVERY)[()]
    reference = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    np.testing.assert_allclose(found.estimate, (np.mean(values), *reference), rtol=1e-12)
    assert (found.count, found.runs) == (3, 3)


def test_a_single_run_has_its_own_interval_and_runs_that_agree_the_widest_of_theirs():
    found = means(query([with_ends(0.5)]), [], "x", EVERY)[()]
    np.testing.assert_allclose(found.estimate, (0.5, 0.4, 0.6))
    found = means(query([with_ends(0.0, 0.1), with_ends(0.0, 0.3)]), [], "x", EVERY)[()]
    np.testing.assert_allclose(found.estimate, (0.0, -0.3, 0.3))
    found = means(query([{"x": 1}]), [], "x", EVERY)[()]
    assert found.estimate.value == 1
    assert math.isnan(found.estimate.low)
    open_end = {"x": 1.0, "x.low": 0.5, "x.high": None}
    found = means(query([open_end]), [], "x", EVERY)[()]
    assert found.estimate[:2] == (1.0, 0.5)
    assert math.isnan(found.estimate.high)


def test_a_run_without_a_value_is_counted_and_left_out():
    rows = [
        {"x": 1.0, "g": "a"},
        {"g": "a", "status": "diverged"},
        {"x": 3.0, "g": "a"},
        {"g": "b", "status": "running"},
    ]
    asked = query(rows)
    found = means(asked, ["g"], "x", EVERY)
    assert (found[("a",)].estimate.value, found[("a",)].count, found[("a",)].runs) == (2.0, 2, 3)
    assert (found[("b",)].count, found[("b",)].runs) == (0, 1)
    assert lacking(asked, "x", EVERY) == ["2 of 4 runs have no x: 1 running, 1 diverged"]
    assert lacking(asked, "x", asked.where("x > 0")) == []


def test_lines_of_one_run_are_one_number_of_it():
    rows = [{"run": run, "x": value} for run, values in (("a", [1.0] * 9 + [2.0]), ("b", [4.0])) for value in values]
    found = means(query(rows, "line"), [], "x", EVERY)[()]
    assert found.estimate.value == pytest.approx((1.1 + 4.0) / 2)
    assert (found.count, found.runs) == (2, 2)


def test_groups_have_their_keys_their_runs_and_each_mean_or_how_many_runs_of_each_status():
    asked = query([{"g": "a", "x": 1, "y": 5}, {"g": "b", "x": 3}, {"g": "a", "x": 2, "status": "failed"}])
    table = grouped(asked, {"g": "group"}, {"x": "x", "y": "why"}, EVERY)
    assert table.headings == ["group", "runs", "x", "why"]
    assert [(row[0], row[1], row[2].estimate.value, row[3].count) for row in table.rows] == [
        ("a", 2, 1.5, 1),
        ("b", 1, 3.0, 0),
    ]
    table = grouped(asked, {"g": "g"}, {}, EVERY)
    assert (table.headings, table.rows) == (["g", "runs", "done", "failed"], [["a", 2, 1, 1], ["b", 1, 1, 0]])


def test_a_pivot_has_a_column_for_each_value_and_a_gap_where_there_is_no_run():
    asked = query([{"g": "a", "s": 0, "x": 1}, {"g": "a", "s": 1, "x": 2}, {"g": "b", "s": 1, "x": 3}])
    table = pivot(asked, {"g": "g"}, {"s": "seed"}, "x", EVERY)
    assert table.headings == ["g", "seed=0", "seed=1"]
    values = [[row[0], *(cell and cell.estimate.value for cell in row[1:])] for row in table.rows]
    assert values == [["a", 1.0, 2.0], ["b", None, 3.0]]
    assert pivot(asked, {}, {"s": "s"}, "x", EVERY).headings == ["s=0", "s=1"]
    assert pivot(asked, {"g": "g"}, {"s": "s"}, "x", asked.where("false")).rows == []


def test_a_pivot_too_wide_for_anybody_is_refused():
    asked = query([{"g": "a", "s": number, "x": 1} for number in range(101)])
    with pytest.raises(UserError, match="columns=s: 101 values, more than 100"):
        pivot(asked, {"g": "g"}, {"s": "s"}, "x", EVERY)


def test_groups_are_sorted_by_a_heading_with_what_has_no_value_last():
    asked = query([{"g": "a", "x": 1}, {"g": "b"}, {"g": "c", "x": 3}])
    table = grouped(asked, {"g": "g"}, {"x": "x"}, EVERY)
    assert [row[0] for row in in_order(table, "-x", None).rows] == ["c", "a", "b"]
    assert [row[0] for row in in_order(table, "x", 2).rows] == ["a", "c"]
    with pytest.raises(UserError, match="sort=y: expected one of g, runs, x"):
        in_order(table, "y", None)


def test_text_has_no_mean():
    frame = query([{"x": "a", "y": 1, "z": None}]).frame
    check_number(frame, "y", "metric")
    check_number(frame, "z", "metric")
    with pytest.raises(UserError, match="metric=x: holds text, and no numbers"):
        check_number(frame, "x", "metric")


def test_an_infinite_value_makes_an_infinite_mean_without_a_warning(recwarn):
    found = means(query([{"x": float("inf")}, {"x": 1.0}]), [], "x", EVERY)[()]
    assert isinstance(found, Mean)
    assert found.estimate.value == math.inf
    lines = [{"run": run, "x": value} for run in "ab" for value in (1e308, 1e308, float("inf"), float("-inf"))]
    assert math.isnan(means(query(lines, "line"), [], "x", EVERY)[()].estimate.value)
    assert not recwarn.list
