from dataclasses import dataclass
from typing import Literal

import pytest
from omegaconf import OmegaConf

from immunax.runtime import fields
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Thing:
    steps: int
    lr: float = 0.1
    name: str | None = None
    mode: Literal["a", "b"] = "a"
    targets: tuple[str, ...] = ("q",)
    deep: bool = False


def node(**values):
    return OmegaConf.create({"thing": {"_target_": f"{Thing.__module__}.Thing", "steps": 1, **values}, "n": 2})


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setattr(fields.pkgutil, "resolve_name", lambda _: Thing)


@pytest.mark.parametrize(
    "values", [{}, {"lr": 1}, {"name": None}, {"name": "x"}, {"targets": ["a", "b"]}, {"steps": "${n}"}, {"mode": "b"}]
)
def test_a_node_that_fits_its_dataclass_passes(values):
    fields.check(node(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 2}, r"unknown field thing\.stepz\. Did you mean 'steps'\? thing has: deep, lr"),
        ({"steps": 1.5}, r"thing\.steps=1\.5: expected a whole number"),
        ({"steps": True}, "expected a whole number"),
        ({"lr": "fast"}, "expected a number"),
        ({"name": 3}, "expected text or null"),
        ({"mode": "c"}, "expected one of a, b"),
        ({"targets": [1]}, "expected a list of text"),
        ({"targets": "q"}, "expected a list of text"),
        ({"deep": 1}, "expected true or false"),
        ({"steps": "???"}, r"thing\.steps needs a value"),
    ],
)
def test_a_node_that_does_not_fit_is_told(values, message):
    with pytest.raises(UserError, match=message):
        fields.check(node(**values))


def test_a_field_without_default_must_be_there():
    config = node()
    del config.thing["steps"]
    with pytest.raises(UserError, match=r"thing\.steps needs a value"):
        fields.check(config)


def test_nodes_within_lists_are_checked():
    config = OmegaConf.create({"things": [{"_target_": "x.Thing", "steps": 1, "nope": 1}]})
    with pytest.raises(UserError, match=r"things\[0\]\.nope"):
        fields.check(config)


def test_a_target_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"a\._target_=immunax\.absent\.X: cannot be imported"):
        fields.check(OmegaConf.create({"a": {"_target_": "immunax.absent.X"}}))


@pytest.mark.parametrize(
    ("before", "after", "fits"),
    [(1, 2.5, True), (1, "a", False), (True, 1, False), (None, "a", True), ("a", 1, False), ("a", None, True)],
)
def test_an_override_keeps_the_kind_of_value(before, after, fits):
    assert (fields.same_kind(before, after) is None) == fits
