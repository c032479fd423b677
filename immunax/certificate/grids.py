"""The cells that an attack of a suite's configuration has: which settings and seeds, and at how many steps each is measured.

All of it is read from plain values: a stranger's configuration builds nothing here.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from immunax.attacks.segments import MOST_MEASURED, evenly, segments
from immunax.certificate.checks import few
from immunax.conditions.edges import POPULATION, RATE, TRIED, Rates, planned_rates
from immunax.conditions.records import MOST_COUNT, SAME_FLOPS, Table
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
    return _combinations(attack) * len(joined(rates, further).get("", (None,)))


def joined(rates: Rates, further: Rates) -> dict[str, tuple[float, ...]]:
    """All learning rates of an attack, those that it goes on to included; arguments as of :func:`count`."""
    return {name: tuple(sorted({*each, *further.get(name, ())})) for name, each in rates.items()}


def _combinations(attack: Mapping[str, Any]) -> int:
    """Of everything but learning rates."""
    return math.prod(len(values) for path, values in attack["grid"].items() if path != RATE) * len(attack["seeds"])


def fault(attack: Mapping[str, Any], rates: Rates, further: Rates, cells: Table) -> str | None:
    """What the cells of one attack on one model, under one template, have that its configuration does not give; None for nothing.

    Args:
      attack, rates, further: as of :func:`count`.
      cells: rows of the table, of all its states.
    """
    once = cells.drop_duplicates("cell")
    if len(once) != count(attack, rates, further):
        return "the cells"
    settings = [parse_json(each, "a cell's setting", _SETTING, "certify again") for each in once["setting"]]
    # In one form: what is written otherwise is another setting wherever settings are compared.
    if [json.dumps(each, sort_keys=True) for each in settings] != list(once["setting"]):
        return "the settings"
    if "populations" in attack:
        return _searches_fault(attack, rates, further, settings)
    found = Counter((_plain(each, bool(rates)), seed) for each, seed in zip(settings, once["seed"], strict=True))
    return None if found == Counter(_planned(attack, rates, further)) else "the settings and seeds"


def _planned(attack: Mapping[str, Any], rates: Rates, further: Rates) -> Iterator[tuple[str, Any]]:
    paths = [path for path in attack["grid"] if path != RATE]
    axes = [attack["grid"][path] for path in paths]
    of_each = joined(rates, further).get("", (None,))
    for *values, rate, seed in itertools.product(*axes, of_each, attack["seeds"]):
        told = {} if rate is None else {RATE: rate}
        yield _plain({**dict(zip(paths, values, strict=True)), **told}, bool(rates)), seed


def _plain(setting: Mapping[str, Any], rated: bool) -> str:
    """A setting as far as a configuration says what it is: not what is built, nor the learning rate of an optimizer that is."""
    said = {path: value for path, value in setting.items() if rated or path != RATE}
    return json.dumps(
        {path: _NODE if isinstance(value, Mapping) else value for path, value in said.items()}, sort_keys=True
    )


def _searches_fault(
    attack: Mapping[str, Any], rates: Rates, further: Rates, settings: Sequence[dict[str, Any]]
) -> str | None:
    """What a search says that it tried, and what it chose of that."""
    planned = [_tried(attack, rates, attack["populations"])]
    planned += [_tried(attack, further, further)] if further else []
    found = [{name: value for name, value in each.items() if name not in (POPULATION, RATE)} for each in settings]
    if sorted(json.dumps(each, sort_keys=True) for each in found) != sorted(planned):
        return "what was searched"
    for each in settings:
        name, rate = each.get(POPULATION), each.get(RATE)
        if (name is None) != (rate is None) or (name is not None and name not in attack["populations"]):
            return "what was chosen"
        if name in each[TRIED] and (not isinstance(rate, float) or rate not in each[TRIED][name]):
            return "the learning rate that was chosen"
    return None


def _tried(attack: Mapping[str, Any], rates: Rates, names: Iterable[str]) -> str:
    members = sum(_combinations(attack["populations"][name]) * len(rates.get(name, (None,))) for name in names)
    tried = {name: list(values) for name, values in rates.items()}
    return json.dumps({"members": members, TRIED: tried}, sort_keys=True)


def course_fault(attack: Mapping[str, Any], suite: Mapping[str, Any], cells: Table) -> str | None:
    """How a cell of one attack is measured otherwise along its course than its suite says; None where none is.

    A fine-tuning is measured evenly up to its end, everything else at its end alone; and but for searches, which end where they
    find that they should, attacks cost the same on every model.

    Args:
      attack: of a suite's configuration.
      suite: the configuration.
      cells: rows of all its cells on all models.
    """
    if "populations" not in attack and tuned(attack):
        return uneven(cells, suite["measured"])
    if (cells.groupby("cell").size() > 1).any():
        return "more than once"
    return None if "populations" in attack else _dearer(cells, ["setting", "seed", "template"])


def uneven(cells: Table, times: int, begun: bool = False) -> str | None:
    """How some fine-tunings are measured otherwise than evenly, and alike on every model; None where all are as they should be.

    Args:
      cells: rows of all states.
      times: along each, or the largest divisor of its steps below.
      begun: whether they are measured before their first step too.
    """
    for _, part in cells.groupby("cell")["step"]:
        steps, last = sorted(part), int(part.max())
        if not 1 <= last < MOST_COUNT:
            return "without a step, or at more than there can be"
        parts = segments(last, min(max(times, 1), MOST_MEASURED))
        if steps != [0] * begun + evenly(last, parts):
            return f"at the steps {few([str(each) for each in steps])}, which are not {times} times, or fewer, that lie evenly"
    alike = ["setting", "seed", "template"]
    courses = cells.sort_values("step").groupby([*alike, "model"])["step"].agg(tuple)
    if (courses.groupby(level=alike).nunique() > 1).any():
        return "at other steps on one model than on the other"
    return _dearer(cells, [*alike, "step"])


def _dearer(cells: Table, alike: list[str]) -> str | None:
    same = cells.groupby(alike)
    dearer = (same["samples"].nunique() > 1).any() or (
        same["flops"].max() > same["flops"].min() * (1 + SAME_FLOPS)
    ).any()
    return "at other costs on one model than on the other" if dearer else None
