"""Which cells a certificate has to have: those that its suite plans, and those that its own tables ask for."""

from collections.abc import Mapping
from typing import Any

from immunax.certificate import grids
from immunax.conditions.edges import beyond, tried_rates
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
    return _of_cells(said, records, cells, policy) or _of_courses(said, cells) or _of_data(said, records, cells)


def _of_cells(said: Mapping[str, Any], records: Table, cells: Table, policy: Policy) -> str | None:
    """What was run, and what the suite says is to be, with the learning rates that its tables ask for."""
    listed = {each["family"]: each for each in said["attacks"]}
    attacks = said["suite"]["config"]["suite"]["attacks"]
    templates = said["templates"]
    if templates != ([NEUTRAL] if said["speech"]["model"]["template"] is None else [OWN_TEMPLATE, NEUTRAL]):
        return "the templates are not those of the model"
    if any(each["unmeasured"] and (each["skipped"] or len(templates) == 1) for each in listed.values()):
        return "an attack was left out twice"
    rates = {name: grids.rates_of(attacks[name]) for name in listed if name in attacks and not listed[name]["skipped"]}
    further = beyond(records, cells, policy, rates, said["suite"]["config"]["suite"].get("held_out") or ())
    planned = {
        (name, template): grids.count(attacks[name], each, further.get(name, {}))
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
        once = {each for each, count in counts.items() if each[0] == UNATTACKED and count == 1}
        trained = {template for family, template in counts if family == TRAINABILITY}
        if not trained <= _of_task(templates, mine, records):
            return f"the harmless task of the {model} was not learned under its own template"
        if once != special:
            return f"the {model} is not measured as it is under each template"
        for family, template in planned:
            part, more = mine[(mine["family"] == family) & (mine["template"] == template)], further.get(family, {})
            if rates[family] and tried_rates(part) != grids.joined(rates[family], more):
                return f"the learning rates of {family} on the {model} are not those of the suite and of what follows from it"
            wrong = grids.fault(attacks[family], rates[family], more, part)
            if wrong is not None:
                return f"{wrong} of {family} on the {model} are not those of the suite"
    ran = {name: sum(count for (each, _), count in planned.items() if each == name) for name in listed}
    if {name: each["cells"] for name, each in listed.items()} != ran:
        return "the attacks listed are not those of the suite"
    return None


def _of_task(templates: list[str], mine: Table, records: Table) -> set[str]:
    """The templates that the harmless task may be learned under: the model's own one, or any where that cannot be asked."""
    own = mine.loc[(mine["family"] == UNATTACKED) & (mine["template"] == templates[0]), "cell"]
    return {templates[0]} if records["cell"].isin(own).any() else set(templates)


def _of_courses(said: Mapping[str, Any], cells: Table) -> str | None:
    """Whether every cell is measured as often along its course as the suite says: a state left out may be the one that tells."""
    suite = said["suite"]["config"]["suite"]
    for family, part in cells.groupby("family"):
        if family == UNATTACKED:
            wrong = "after a step" if (part["step"] != 0).any() or len(part) > part["cell"].nunique() else None
        elif family == TRAINABILITY:
            wrong = grids.uneven(part, suite["task"]["measured"], begun=True)
        else:
            wrong = grids.course_fault(suite["attacks"][family], suite, part)
        if wrong is not None:
            return f"{family} is measured {wrong}"
    return None


def _of_data(said: Mapping[str, Any], records: Table, cells: Table) -> str | None:
    """Whether every fine-tuning says how much of its data it trained on: one that does not could hide that it had none."""
    attacks = said["suite"]["config"]["suite"]["attacks"]
    tuned = {name for name, each in attacks.items() if grids.tuned(each)}
    told = set(records.loc[records["measure"] == DATA_KEPT, "cell"])
    silent = cells[cells["family"].isin(tuned) & ~cells["cell"].isin(told)]
    return f"{silent['family'].iloc[0]} does not say how much of its data it trained on" if len(silent) else None
