"""The cells that an attack of a suite's configuration has: which settings and seeds, and at how many steps each is measured.

All of it is read from plain values: a stranger's configuration builds nothing here.
"""

import itertools
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from immunax.attacks.segments import MEASURED, segments
from immunax.certificate.checks import few
from immunax.conditions.edges import POPULATION, RATE, TRIED, Rates, planned_rates
from immunax.conditions.records import MOST_STATES, Table
from immunax.runtime.untrusted.values import Limits, parse_json

_SETTING = Limits(size=1 << 16, values=10_000)
_NODE = "a part of an attack"
"""Stands for a setting that is built from a configuration, whose defaults a cell names and its configuration leaves out."""


def rates_of(attack: Mapping[str, Any]) -> Rates:
    """The learning rates that an attack of a suite's configuration tries."""
    if "populations" in attack:
        return {name: rates for name, each in attack["populations"].items() for rates in rates_of(each).values()}
    tuning = (attack.get("attack") or {}).get("tuning") or {}
    rates = planned_rates(attack["grid"], (tuning.get("optimizer") or {}).get("learning_rate"))
    return {"": rates} if rates else {}


def tuned(attack: Mapping[str, Any]) -> bool:
    """Whether it is a fine-tuning, or a search among some."""
    return "populations" in attack or "tuning" in (attack.get("attack") or {})


def count(attack: Mapping[str, Any], rates: Rates, further: Rates) -> int:
    """How many cells it has on one model under one template.

    Args:
      attack: of a suite's configuration.
      rates: from :func:`rates_of`.
      further: learning rates that it goes on to.
    """
    if "populations" in attack:
        return 1 + bool(further)
    return _combinations(attack) * len({*rates.get("", ()), *further.get("", ())} or (None,))


def _combinations(attack: Mapping[str, Any]) -> int:
    others = [values for path, values in attack["grid"].items() if path != RATE]
    found = len(attack["seeds"])
    for values in others:
        found *= len(values)
    return found


def fault(attack: Mapping[str, Any], rates: Rates, further: Rates, cells: Table) -> str | None:
    """What the cells of one attack on one model, under one template, have that its configuration does not give; None for nothing.

    Args:
      attack, rates, further: as of :func:`count`.
      cells: rows of the table, of all its states.
    """
    once = cells.drop_duplicates("cell")
    if len(once) != count(attack, rates, further):
        return "the cells"
    if "populations" in attack:
        return None
    paths = [path for path in attack["grid"] if path != RATE]
    axes = [attack["grid"][path] for path in paths]
    of_each = sorted({*rates.get("", ()), *further.get("", ())}) or [None]
    planned = Counter(
        (_canonical(dict(zip(paths, values, strict=True))), rate, seed)
        for *values, rate, seed in itertools.product(*axes, of_each, attack["seeds"])
    )
    found = Counter(
        (*_split(setting, bool(rates)), seed) for setting, seed in zip(once["setting"], once["seed"], strict=True)
    )
    return None if planned == found else "the settings and seeds"


def _split(setting: str, rated: bool) -> tuple[str, float | None]:
    """A cell's setting without its learning rate, and that rate where the configuration says which there are."""
    said = parse_json(setting, "a cell's setting", _SETTING, "certify again")
    rate = said.get(RATE)
    others = {path: value for path, value in said.items() if path not in (RATE, TRIED, POPULATION)}
    return _canonical(others), float(rate) if rated and rate is not None else None


def _canonical(setting: Mapping[str, Any]) -> str:
    plain = {path: _NODE if isinstance(value, Mapping) else value for path, value in setting.items()}
    return json.dumps(plain, sort_keys=True)


def course_fault(attack: Mapping[str, Any], suite: Mapping[str, Any], cells: Table) -> str | None:
    """How a cell of one attack is measured otherwise along its course than its suite says; None where none is.

    A fine-tuning is measured evenly up to its end, at the same steps on every model; everything else at its end alone.

    Args:
      attack: of a suite's configuration.
      suite: the configuration.
      cells: rows of all its cells on all models.
    """
    if "populations" in attack or not tuned(attack):
        return "more than once" if (cells.groupby("cell").size() > 1).any() else None
    return uneven(cells, suite.get("measured", MEASURED))


def uneven(cells: Table, times: int, begun: bool = False) -> str | None:
    """How some fine-tunings are measured otherwise than evenly, and alike on every model; None where all are as they should be.

    Args:
      cells: rows of all states.
      times: along each, or the largest divisor of its steps below.
      begun: whether they are measured before their first step too.
    """
    for _, part in cells.groupby("cell")["step"]:
        steps, last = sorted(part), int(part.max())
        if not 1 <= last < 1 << 40:
            return "without a step, or at more than there can be"
        parts = segments(last, min(max(times, 1), MOST_STATES))
        if steps != [0] * begun + [last * (each + 1) // parts for each in range(parts)]:
            return f"at the steps {few([str(each) for each in steps])}, which are not {times} times, or fewer, that lie evenly"
    courses = cells.sort_values("step").groupby(["setting", "seed", "template", "model"])["step"].agg(tuple)
    return (
        "at other steps on one model than on the other"
        if (courses.groupby(level=[0, 1, 2]).nunique() > 1).any()
        else None
    )
