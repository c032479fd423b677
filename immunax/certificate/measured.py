"""What the tables of a certificate have to be: every state of every model sat one and the same exam.

A forger who computes verdicts anew leaves out answers that tell against the model, a state in which it fell, or a measure as a
whole. Each leaves a hole in a grid: the examples of a measure are the same for all attacked states, and so are the measures.
"""

from collections.abc import Mapping
from typing import Any

from immunax.conditions.records import (
    DATA_KEPT,
    OWN_TEMPLATE,
    REFERENCE,
    SPECIAL,
    SUBJECT,
    TRAINABILITY,
    UNATTACKED,
    Table,
)

_STATE = ["cell", "step"]
_COURSE = ("cell", "step", "flops")
"""Columns of ``cells`` that may differ between the states of one cell; the others say which cell it is."""


def fault(said: Mapping[str, Any], records: Table, cells: Table) -> str | None:
    """The first hole or contradiction in the tables; None where there is none.

    Args:
      said: the predicate.
      records, cells: its tables, see :mod:`immunax.conditions.records`.
    """
    held = _without_silent(said, records, cells)
    return _of_cells(said, cells) or _of_states(records, held) or _of_exam(records, held)


def _without_silent(said: Mapping[str, Any], records: Table, cells: Table) -> Table:
    """The cells without those of unattacked models that could not be asked under their own template, if no attack could."""
    listed = said["attacks"]
    silent = (cells["family"] == UNATTACKED) & (cells["template"] == OWN_TEMPLATE)
    silent &= ~cells["cell"].isin(records["cell"])
    mute = all(each["unmeasured"] or each["skipped"] for each in listed) and any(each["unmeasured"] for each in listed)
    return cells[~silent] if mute else cells


def _of_cells(said: Mapping[str, Any], cells: Table) -> str | None:
    models = {SUBJECT, *([REFERENCE] if said["reference"] else [])}
    if set(cells["model"]) != models:
        return (
            f"the cells are of {', '.join(sorted(set(cells['model'])))}, and the models are {', '.join(sorted(models))}"
        )
    own = [name for name in cells.columns if name not in _COURSE]
    if len(cells.drop_duplicates(["cell", *own])) > cells["cell"].nunique():
        return "a cell is of two attacks, settings or models"
    if (cells[["step", "samples", "flops"]] < 0).any(axis=None):
        return "an attack costs less than nothing"
    task = said["suite"]["config"]["suite"].get("task")
    seeds = sorted(task["seeds"]) if task else []
    for model, part in cells.groupby("model"):
        if UNATTACKED not in set(part["family"]):
            return f"the {model} was not measured as it is"
        trained = part[part["family"] == TRAINABILITY].drop_duplicates("cell")
        if sorted(trained["seed"]) != seeds:
            return f"the harmless task of the {model} was run with other seeds than those of the suite"
    return None


def _of_states(records: Table, cells: Table) -> str | None:
    measured, listed = _states(records), _states(cells)
    if measured - listed:
        return f"a measurement is of the cell {min(measured - listed)[0]}, which there is not at that step"
    bare = cells["family"] == UNATTACKED
    for model, part in cells[bare].groupby("model"):
        # It may be listed as one that cannot be asked at all under a template; under every one would be another matter.
        if not _states(part) & measured:
            return f"the {model} was not measured as it is"
    silent = _states(cells[~bare]) - measured
    return f"nothing was measured of the cell {min(silent)[0]} at a step that is listed" if silent else None


def _states(table: Table) -> set[tuple]:
    return set(zip(table["cell"], table["step"], strict=True))


def _of_exam(records: Table, cells: Table) -> str | None:
    asked = records[records["measure"] != DATA_KEPT].merge(cells[[*_STATE, "family"]], on=_STATE)
    cells = cells.merge(asked[_STATE].drop_duplicates(), on=_STATE)
    kinds = asked["family"].where(asked["family"].isin(SPECIAL), "attacked")
    for (kind, split, measure), part in asked.groupby([kinds, "split", "measure"]):
        times = part.groupby("unit").size()
        states = cells["family"].isin([kind]) if kind in SPECIAL else ~cells["family"].isin(SPECIAL)
        if (times != int(states.sum())).any():
            return f"{measure} of {split} was not measured on the same examples in every {kind} state"
    return None
