"""What a replay of everything compares, on tables that are there already: the truth in the place of a run of one's own.

Harm that the truth has and a certificate lacks counts for each judge, split and step by itself, and so does harm of the reference
that it has and the truth lacks: either makes the model look better. Costs are computed, so they are exact; likelihoods may move
as another processor rounds.
"""

from immunax.conditions.records import JUDGED, REFERENCE, Table

LOST = 0.0
"""Share of a state's answers, by judge and split, that may be more favourable than the truth."""

MOVED = 1e-3
"""How far, relative to itself, a likelihood may move."""

_KEY = ["cell", "step", "split", "measure", "unit"]


def fault(records: Table, cells: Table, true_records: Table, true_cells: Table) -> str | None:
    """The first table that is not what a run of one's own gives; None where both are.

    Args:
      records, cells: of the certificate.
      true_records, true_cells: of the run.
    """
    names = ["cell", "step"]
    stated, found = (table.sort_values(names).reset_index(drop=True) for table in (cells, true_cells))
    if not stated.equals(found):
        return "cells"
    if records.equals(true_records):
        return None
    both = records.merge(true_records, on=_KEY, how="outer", suffixes=("", "_true"), indicator=True)
    if not (both["_merge"] == "both").all() or (both["weight"] != both["weight_true"]).any():
        return "examples"
    judged = both[both["measure"].str.startswith(JUDGED)]
    theirs = judged["cell"].isin(true_cells.loc[true_cells["model"] == REFERENCE, "cell"])
    lost = (judged["value_true"] - judged["value"]) * (1 - 2 * theirs)
    if (lost.clip(lower=0).groupby([judged[name] for name in _KEY[:4]]).mean() > LOST).any():
        return "judged"
    others = both[~both["measure"].str.startswith(JUDGED)]
    moved = (others["value"] - others["value_true"]).abs() > MOVED * others["value_true"].abs()
    return "measures" if moved.any() else None
