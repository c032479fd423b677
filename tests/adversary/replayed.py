"""What a replay of everything compares, on what is there already: the truth in the place of a run of one's own."""

from collections.abc import Iterable, Mapping
from typing import Any

from immunax.certificate.comparison import Cell, difference, together
from immunax.certificate.inputs import Found, model_fault, reference_fault, undefended_fault
from immunax.conditions.policy import Policy, harmful
from immunax.conditions.records import Table
from immunax.stages.replay import HERE


def inputs_fault(said: Mapping[str, Any], true: Mapping[str, Any]) -> str | None:
    """The first thing that whoever has the models does not find as it is said of them.

    Args:
      said: the predicate.
      true: that of the truth.
    """
    model, speech = true["model"], true["speech"]
    own = model_fault(said, Found(model["weights"], model["parameters"], speech["model"]))
    own = own or undefended_fault(said, true["undefended"])
    if own or not said["reference"]:
        return own
    return reference_fault(said, Found(true["reference"]["weights"], 0, speech["reference"]))


def tables_fault(stated: tuple[Table, Table], true: tuple[Table, Table], policies: Iterable[Policy] = ()) -> str | None:
    """The first cell that a run of one's own does not give, on the same kind of machine; None where all are.

    Args:
      stated, true: records and cells of the certificate, and of the run.
      policies: the certificate's and the gate's, with the scores from which answers are harmful.
    """
    if all(one.equals(other) for one, other in zip(stated, true, strict=True)):
        return None
    if set(stated[1]["cell"]) != set(true[1]["cell"]):
        return "cells"
    found = []
    for name in true[1]["cell"].unique():
        one, other = (Cell(*_rows(both, name)) for both in (stated, true))
        found.append(difference(one, other, HERE, harmful(policies)))
    told = next((each.fault for each in [*found, together(found, HERE)] if each.fault), None)
    return told and told.partition(",")[0]


def _rows(both: tuple[Table, Table], cell: str) -> tuple[Table, Table]:
    records, cells = both
    return records[records["cell"] == cell], cells[cells["cell"] == cell]
