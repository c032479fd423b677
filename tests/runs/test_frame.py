from datetime import datetime

import pytest

from immunax.runs.frame import Frame, Row, UnknownColumnError, columns_of


def frame(*rows):
    return Frame([Row(row) for row in rows])


@pytest.mark.parametrize(
    ("values", "kind", "cells"),
    [
        ([1, 2, None], "BIGINT", [1, 2, None]),
        ([1, 2.5], "DOUBLE", [1.0, 2.5]),
        ([1, 2**63], "DOUBLE", [1.0, float(2**63)]),
        ([10**400], "DOUBLE", [float("inf")]),
        ([True, None], "BOOLEAN", [True, None]),
        ([True, 1], "VARCHAR", ["true", "1"]),
        ([0.1, "auto"], "VARCHAR", ["0.1", "auto"]),
        ([datetime(2026, 1, 1)], "TIMESTAMP", [datetime(2026, 1, 1)]),
        ([None], "VARCHAR", [None]),
    ],
)
def test_a_column_has_the_type_of_all_its_values(values, kind, cells):
    column = frame(*({"x": value} for value in values)).column("x")
    assert (column.type, column.values) == (kind, cells)


def test_a_name_may_be_shortened_where_one_column_is_meant():
    row = {"seed": 0, "config.seed": 1, "choices.defense": "tar", "config.defense.alpha": 1, "config.a.rate": 1}
    found = frame(row | {"config.b.rate": 2}, row | {"config.b.rate": 3})
    names = ("seed", "defense", "defense.alpha", "alpha", "a.rate", "rate")
    assert [found.resolve(name) for name in names] == [
        "seed",
        "choices.defense",
        "config.defense.alpha",
        "config.defense.alpha",
        "config.a.rate",
        "config.b.rate",  # the only one that differs
    ]


def test_a_name_that_is_none_or_several_is_told_with_the_nearest():
    found = frame({"config.a.rate": 1, "config.b.rate": 2}, {"config.a.rate": 3, "config.b.rate": 4})
    with pytest.raises(
        UnknownColumnError, match=r"rate: 2 columns end so \(config.a.rate, config.b.rate\); write more"
    ):
        found.resolve("rate")
    with pytest.raises(UnknownColumnError, match=r"no column 'a.rat'\. Did you mean 'a.rate'"):
        found.resolve("a.rat")
    with pytest.raises(UnknownColumnError, match=r"no column 'x'\. All of them: table=columns"):
        found.resolve("x")


def test_runs_are_told_apart_by_the_fewest_columns_and_the_seed_comes_last():
    rows = [
        {
            "seed": seed,
            "choices.defense": defense,
            "config.seed": seed,
            "config.trainer.seed": seed,
            "config.defense.alpha": defense == "tar",
            "config.trainer.rate": rate,
            "config.run": f"{seed}{defense}",
            "config.same": 1,
        }
        for seed in (0, 1)
        for defense in ("tar", "lat")
        for rate in (1, 2)
    ]
    assert frame(*rows).telling_apart() == ["choices.defense", "config.trainer.rate", "seed"]
    assert frame(*rows, {"status": "failed"}).telling_apart() == ["choices.defense", "config.trainer.rate", "seed"]
    at_once = {"config.trainer.rate": 3, "seed": 0}  # which failed, and was asked for no more
    assert frame(*rows, at_once).telling_apart() == ["choices.defense", "config.trainer.rate", "seed"]
    assert frame(rows[0]).telling_apart() == []
    assert frame().telling_apart() == []


def test_a_row_of_a_run_has_its_own_values_first():
    run = {"seed": 1, "status": "done"}
    found = Frame([Row({"seed": None, "step": 1}, run), Row({"step": 2}, run)], "line")
    assert found.column("seed").values == [None, 1]
    assert found.column("status").values == ["done", "done"]
    assert list(found.names) == ["seed", "step", "status"]


def test_columns_are_rows_too():
    found = columns_of(frame({"a": 1, "b": "x"}, {"a": 2}))
    assert [row.own for row in found.rows] == [
        {"name": "a", "type": "bigint", "rows": 2, "distinct": 2, "example": "1"},
        {"name": "b", "type": "varchar", "rows": 1, "distinct": 1, "example": "x"},
    ]


def test_an_interval_is_of_three_numbers():
    rows = ({"a": 1.0, "a.low": 0.5, "a.high": 2, "b": 1, "b.low": 0, "c": 1, "c.low": False, "c.high": "x"},)
    found = frame(*rows, {"d": "auto", "d.low": 1, "d.high": 2})
    assert [found.ends(name) for name in "abcd"] == [("a.low", "a.high"), (), (), ()]
