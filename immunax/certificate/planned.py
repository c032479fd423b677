"""Which cells a certificate has to have: those that its suite plans, and those that its own tables ask for."""

import math
from collections.abc import Mapping
from typing import Any

from immunax.conditions.edges import RATE, Rates, beyond, planned_rates, tried_rates
from immunax.conditions.policy import Policy
from immunax.conditions.records import (
    DATA_KEPT,
    NEUTRAL,
    OWN_TEMPLATE,
    REFERENCE,
    SPECIAL,
    SUBJECT,
    TRAINABILITY,
    UNATTACKED,
    Table,
)


def fault(said: Mapping[str, Any], records: Table, cells: Table, policy: Policy) -> str | None:
    """The first cell too many or too few, or fine-tuning that hides what it trained on; None where there is none.

    Args:
      said: the predicate.
      records, cells: its tables, see :mod:`immunax.conditions.records`.
      policy: its own.
    """
    return _of_cells(said, records, cells, policy) or _of_data(said, records, cells)


def _rates(attack: Mapping[str, Any]) -> Rates:
    """The learning rates that an attack of a suite's configuration tries."""
    if "populations" in attack:
        return {name: rates for name, each in attack["populations"].items() for rates in _rates(each).values()}
    tuning = (attack.get("attack") or {}).get("tuning") or {}
    rates = planned_rates(attack["grid"], (tuning.get("optimizer") or {}).get("learning_rate"))
    return {"": rates} if rates else {}


def _count(attack: Mapping[str, Any], rates: Rates, further: Rates) -> int:
    """How many cells an attack of a suite's configuration has on one model, those at further learning rates included."""
    if "populations" in attack:
        return 1 + bool(further)
    count = math.prod(len(values) for values in attack["grid"].values()) * len(attack["seeds"])
    each = len(attack["grid"].get(RATE, (None,)))
    return count + (count // each * len(further[""]) if further else 0)


def _of_cells(said: Mapping[str, Any], records: Table, cells: Table, policy: Policy) -> str | None:
    """What was run, and what the suite says is to be, with the learning rates that its tables ask for."""
    listed = {each["family"]: each for each in said["attacks"]}
    attacks = said["suite"]["config"]["suite"]["attacks"]
    templates = said["templates"]
    if templates != ([NEUTRAL] if said["speech"]["model"]["template"] is None else [OWN_TEMPLATE, NEUTRAL]):
        return "the templates are not those of the model"
    if any(each["unmeasured"] and (each["skipped"] or len(templates) == 1) for each in listed.values()):
        return "an attack was left out twice"
    rates = {name: _rates(attacks[name]) for name in listed if name in attacks and not listed[name]["skipped"]}
    further = beyond(records, cells, policy, rates, said["suite"]["config"]["suite"].get("held_out") or ())
    planned = {
        (name, template): _count(attacks[name], each, further.get(name, {}))
        for name, each in rates.items()
        for template in templates
        if not (listed[name]["unmeasured"] and template == OWN_TEMPLATE)
    }
    special = {(UNATTACKED, template) for template in templates}
    for model in (SUBJECT, *([REFERENCE] if said["reference"] else [])):
        mine = cells[cells["model"] == model].drop_duplicates("cell")
        counts = {
            (str(name), str(template)): len(part) for (name, template), part in mine.groupby(["family", "template"])
        }
        if {each: count for each, count in counts.items() if each[0] not in SPECIAL} != planned:
            return f"the cells of the {model} are not those of the suite"
        if {each for each in counts if each[0] in SPECIAL} - {(TRAINABILITY, templates[0])} != special:
            return f"the {model} is not measured as it is under each template"
        for (family, template), _ in planned.items():
            tried = tried_rates(mine[(mine["family"] == family) & (mine["template"] == template)])
            if rates[family] and tried != _joined(rates[family], further.get(family, {})):
                return f"the learning rates of {family} on the {model} are not those of the suite and of what follows from it"
    ran = {name: sum(count for (each, _), count in planned.items() if each == name) for name in listed}
    if {name: each["cells"] for name, each in listed.items()} != ran:
        return "the attacks listed are not those of the suite"
    return None


def _joined(rates: Rates, further: Rates) -> dict[str, tuple[float, ...]]:
    return {name: tuple(sorted({*each, *further.get(name, ())})) for name, each in rates.items()}


def _of_data(said: Mapping[str, Any], records: Table, cells: Table) -> str | None:
    """Whether every fine-tuning says how much of its data it trained on: one that does not could hide that it had none."""
    attacks = said["suite"]["config"]["suite"]["attacks"]
    tuned = {name for name, each in attacks.items() if "populations" in each or "tuning" in (each.get("attack") or {})}
    told = set(records.loc[records["measure"] == DATA_KEPT, "cell"])
    silent = cells[cells["family"].isin(tuned) & ~cells["cell"].isin(told)]
    return f"{silent['family'].iloc[0]} does not say how much of its data it trained on" if len(silent) else None
