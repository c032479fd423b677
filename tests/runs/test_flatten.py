import json
from datetime import datetime

import pytest

from immunax.runs.flatten import CrowdedError, flat, moment, plain


def test_nested_records_are_columns_and_estimates_are_three():
    record = {"config": {"a": {"b": 1, "c": None, "d": [1, "x"]}}, "results": {"value": 0.5, "low": 0.1, "high": None}}
    assert dict(flat(record, "top")) == {
        "top.config.a.b": 1,
        "top.config.a.c": None,
        "top.config.a.d": '[1, "x"]',
        "top.results": 0.5,
        "top.results.low": 0.1,
        "top.results.high": None,
    }


def test_a_class_that_has_moved_is_named_as_today():
    assert dict(flat({"_target_": "immunax.defenses.attacker.Attacker"}, "a")) == {
        "a._target_": "immunax.outer.attacker.Attacker"
    }


def test_names_of_strangers_are_one_line_and_values_stay():
    name, value = flat({"a\x1b[31m\n\u202e": "\x1b"}, "x")[0]
    assert name == "x.a\\x1b[31m\\n\\u202e"
    assert value == "\x1b"


@pytest.mark.parametrize(
    ("value", "cell"), [(float("nan"), None), (10**30, 10**30), (True, True), ("\ud800", "\\ud800")]
)
def test_a_value_is_what_a_table_can_hold(value, cell):
    assert plain(value) == cell


def test_what_nests_without_end_is_refused():
    record = json.loads('{"a":' * 200 + "1" + "}" * 200)
    with pytest.raises(CrowdedError):
        flat(record, "x")


def test_times_are_in_utc_and_what_is_none_is_none():
    assert moment("2026-01-01T12:00:00+02:00") == datetime(2026, 1, 1, 10)
    assert [moment(each) for each in ("yesterday", None, 5, "")] == [None] * 4
