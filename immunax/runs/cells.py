"""The cells of certificates as rows: one attack with one setting and one seed on one model, at one of its steps."""

import json
from collections.abc import Sequence
from typing import Any

from immunax.runs.certified import certified
from immunax.runs.flatten import ENDS, Value, flat, plain
from immunax.runs.frame import Frame, Row
from immunax.runs.read import Run

WHAT = "cell"
SETTINGS = ("model", "family", "setting", "seed", "template", "step")
"""Columns that tell the cells of one certificate apart."""

SHOWN = "test.judge."
"""The beginning of what a table shows, beside these, that was asked for nothing."""

_SETTING = "setting"


def cells(runs: Sequence[Run]) -> tuple[Frame, list[str]]:
    """One row for every state that a certificate measured: the columns of ``cells.parquet``, each field of its setting as
    ``setting.PATH``, and what was measured there, ``SPLIT.judge.NAME`` and ``SPLIT.MEASURE``: the mean over examples, or of
    likelihoods nats a token, with its interval over examples.

    Args:
      runs: to read; those without tables of a certificate have no rows.

    Returns:
      The rows; one line for each table that cannot be read.
    """
    rows: list[Row] = []
    faults: list[str] = []
    for run, measured, states in certified(runs, faults):
        means = _means(measured)
        for state in states.to_dict("records"):
            own = {name: plain(value) for name, value in state.items()}
            own |= _fields(state[_SETTING])
            own |= means.get((state["cell"], state["step"]), {})
            rows.append(Row(own, run.values))
    return Frame(rows, WHAT), faults


def _fields(setting: str) -> dict[str, Value]:
    """The fields of a setting, by their paths."""
    try:
        told = json.loads(setting)
    except ValueError:
        return {}
    return dict(flat(told, _SETTING)) if isinstance(told, dict) else {}


def _means(measured: Any) -> dict[tuple[str, int], dict[str, Value]]:
    """By cell and step, each measure's sum over what it counts, and the ends of its interval."""
    from immunax.conditions.groups import intervals

    found: dict[tuple[str, int], dict[str, Value]] = {}
    told = intervals(measured.groupby(["cell", "step", "split", "measure"], sort=False))
    for (cell, step, split, measure), value, low, high in zip(
        told.index, told["value"], told["low"], told["high"], strict=True
    ):
        name, own = f"{split}.{measure.replace('/', '.')}", found.setdefault((cell, int(step)), {})
        own |= {name: float(value), f"{name}.{ENDS[0]}": plain(float(low)), f"{name}.{ENDS[1]}": plain(float(high))}
    return found
