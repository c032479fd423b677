from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pytest

from immunax.runtime import fields
from immunax.runtime.errors import UserError
from immunax.runtime.nodes import importable


class Judge(Protocol):
    def score(self): ...


@dataclass(frozen=True)
class Part:
    rank: int = 1


@dataclass(frozen=True)
class Thing:
    steps: int
    lr: float = 0.1
    name: str | None = None
    mode: Literal["a", "b"] = "a"
    targets: tuple[str, ...] = ("q",)
    deep: bool = False
    part: Part = Part()
    spare: Part | None = None
    judges: Mapping[str, Judge] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    anything: Any = None


PART = {"_target_": "x.Part", "rank": 2}


def node(**values):
    return {"thing": {"_target_": f"{Thing.__module__}.Thing", "steps": 1, **values}, "n": 2}


def check(config):
    fields.check(config, lambda name: Part if name.endswith("Part") else Thing, composed=True)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"lr": 1},
        {"name": None},
        {"name": "x"},
        {"targets": ["a", "b"]},
        {"steps": "${n}"},
        {"mode": "b"},
        {"part": PART, "spare": PART, "judges": {"mine": PART}, "shares": {"test": 1.0, "train": "${n}"}},
        {"spare": None, "anything": None},
        {"anything": 5, "judges": {}, "part": "${thing.spare}"},
    ],
)
def test_a_node_that_fits_its_dataclass_passes(values):
    check(node(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 2}, r"unknown field thing\.stepz\. Did you mean 'steps'\? thing has: anything, deep, judges, lr"),
        ({"steps": 1.5}, r"thing\.steps=1\.5: expected a whole number"),
        ({"steps": True}, "expected a whole number"),
        ({"lr": "fast"}, "expected a number"),
        ({"name": 3}, "expected text or null"),
        ({"mode": "c"}, "expected one of a, b"),
        ({"targets": [1]}, "expected a list of text"),
        ({"targets": "q"}, "expected a list of text"),
        ({"deep": 1}, "expected true or false"),
        ({"steps": "???"}, r"thing\.steps needs a value"),
        ({"part": 5}, rf"thing\.part=5: expected fields with _target_: {__name__}\.Part$"),
        ({"part": None}, r"thing\.part=null: expected fields with _target_"),
        ({"part": {"rank": 2}}, r"thing\.part={'rank': 2}: expected fields with _target_"),
        ({"spare": 8}, r"thing\.spare=8: expected fields with _target_: .*Part or null"),
        ({"judges": None}, "expected a mapping from names to fields with _target_ of a Judge"),
        (
            {"judges": {"a": None}},
            r"judges\.a=null: expected fields with .* of a Judge; ~thing\.judges\.a leaves it out",
        ),
        ({"judges": {"a": 5}}, r"thing\.judges\.a=5: expected fields with"),
        ({"shares": {"test": "all"}}, r"thing\.shares\.test='all': expected a number"),
        ({"shares": 1}, r"thing\.shares=1: expected a mapping from names to a number"),
    ],
)
def test_a_node_that_does_not_fit_is_told(values, message):
    with pytest.raises(UserError, match=message):
        check(node(**values))


def test_a_field_without_default_must_be_there():
    config = node()
    del config["thing"]["steps"]
    with pytest.raises(UserError, match=r"thing\.steps needs a value"):
        check(config)


def test_nodes_within_lists_are_checked():
    config = {"things": [{"_target_": "x.Thing", "steps": 1, "nope": 1}]}
    with pytest.raises(UserError, match=r"things\[0\]\.nope"):
        check(config)


def test_a_target_that_does_not_exist_is_named():
    with pytest.raises(UserError, match=r"a\._target_=immunax\.absent\.X: cannot be imported"):
        fields.check({"a": {"_target_": "immunax.absent.X"}}, importable)


@pytest.mark.parametrize(
    ("before", "after", "fits"),
    [
        (1, 2.5, True),
        (1, "a", False),
        (True, 1, False),
        (None, "a", True),
        ("a", 1, False),
        ("a", None, True),
        ({"a": 1}, {"a": 2}, True),
        ({"a": 1}, 5, False),
        ({"a": 1}, "a", False),
        ({"a": 1}, None, True),
    ],
)
def test_an_override_keeps_the_kind_of_value(before, after, fits):
    assert (fields.same_kind(before, after) is None) == fits


def test_null_takes_the_place_of_a_value_only_where_it_may():
    assert fields.same_kind(1, None) is None
    assert fields.same_kind(1, None, nullable=False) == "a number"
    assert fields.same_kind({"a": 1}, None, nullable=False) == "fields"
    assert fields.same_kind(None, None, nullable=False) is None
