"""What a certificate rests on: two tables of numbers, and no text.

``records`` has one row for every number that was measured on one held-out example, in the long form. ``cells`` has one
row for every state of a model that was measured: a cell is one attack, with one setting and one seed, on one model, and
it is measured at several points of its course, its *steps*. Both are data frames, kept as parquet files beside the
certificate; every verdict is computed from them and from the policy, and from nothing else.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from immunax.data.dialog import Dialog
from immunax.runtime import atomic
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted import parquet

Table = Any
"""A data frame of pandas, whose own annotations allow for more than a table of numbers."""

MOST_STATES = 20_000
"""Rows of ``cells``; a suite of 200 attacks makes half as many, and a report draws each."""

RECORDS_FILE, CELLS_FILE = "records.parquet", "cells.parquet"
"""Their names beside a certificate."""

SUBJECT, REFERENCE = "subject", "reference"
"""Values of ``model``: the one that is certified, and the undefended one that it is compared with."""

OWN_TEMPLATE, NEUTRAL = "own", "neutral"
"""Values of ``template``: the chat template that the model came with, and ``question\\nanswer<eos>``, which is ours."""

UNATTACKED = "none"
"""The ``family`` of the cell that measures a model as it is."""

TRAINABILITY = "trainability"
"""The ``family`` of the cells that fine-tune a model on a harmless task."""

SPECIAL = (UNATTACKED, TRAINABILITY)
"""Families of cells that are no attacks."""

RECORDS = {
    "cell": "string",
    "step": "int64",
    "split": "string",
    "measure": "string",
    "unit": "string",
    "value": "float64",
    "weight": "float64",
}
"""Columns of ``records``.

``cell``, ``step``: a row of ``cells``. ``split``: of the data that the example is from, ``test`` (in-domain) or
``transfer`` (another domain). ``measure``: a name below, or ``judge/NAME``. ``unit``: of the example, :func:`unit`.
``value``: the number, not NaN. ``weight``: what it counts: 1, but for likelihoods, whose values are sums over so many tokens.
"""

JUDGED = "judge/"
"""``judge/NAME``: what that judge says of the answer to a held-out harmful prompt, in [0, 1]; 1 is harmful."""

HARMFUL_NLL, RETAIN_NLL, TASK_NLL = "harmful_nll", "retain_nll", "task_nll"
"""Summed negative log likelihood of a given answer, nats: held-out harmful, held-out harmless, of the trainability task."""

_SUMS = (HARMFUL_NLL, RETAIN_NLL, TASK_NLL)

EXACT, CHOICE, TASK_EXACT = "exact", "choice", "task_exact"
"""1 where greedy decoding gives the one right answer, where the right choice is found likeliest, and the former of the task."""

OVER_REFUSAL = "over_refusal"
"""1 where the model refuses a harmless prompt."""

UNFINISHED = "unfinished"
"""1 where the answer to a held-out harmful prompt had no end within the tokens that an answer gets; judged as far as it goes."""

_OUTCOMES = (EXACT, CHOICE, TASK_EXACT, OVER_REFUSAL, UNFINISHED)

LEAST_NATS, MOST_NATS = 1e-3, 50.0
"""Nats per token of an answer: what is likelier is as good as certain, and nobody is the worse for more. Ratios of sums stay
numbers, and no answer alone makes a sum beside which the others count for nothing."""

MOST_COUNT, MOST_FLOPS = 1 << 40, 1e40
"""Of tokens, steps and dialogs; of what an attack spends."""

SAME_FLOPS = 1e-6
"""How far, relative to themselves, FLOPs of one attack that are counted twice may lie apart."""

MOST_MEASURES = 200
"""Measures by split that a table holds; a certificate has some ten."""

_ROUNDED = 1e-3

DATA_KEPT = "data_kept"
"""Share of an attack's answer tokens that it trained on, one number a cell: the rest was longer than its maximum length."""

CELLS = {
    "cell": "string",
    "model": "string",
    "family": "string",
    "setting": "string",
    "seed": "int64",
    "template": "string",
    "step": "int64",
    "samples": "int64",
    "flops": "float64",
    "diverged": "bool",
    "clipped": "float64",
}
"""Columns of ``cells``.

``cell``: its name. ``model``: ``subject`` or ``reference``. ``family``: of the attack, by its name in the suite. ``setting``:
canonical JSON of what sets the attack apart within its family. ``template``: that the model was attacked and asked under; of
one that it cannot be measured under there is the row of the unattacked model, and no record. ``step``: optimizer steps done, 0
for an attack without. ``samples``: dialogs that the attacker trains on; ``flops``: what they spent up to here. ``diverged``: the
attack met weights that were not finite, and is measured at the last ones that were, or its loss exploded. ``clipped``: share of
its steps that the clipping of gradients made smaller, in [0, 1]; 0 without steps, and for optimizers whose steps do not grow with
gradients.
"""


def unit(dialog: Dialog) -> str:
    """The name of an example: the first 16 hexadecimal digits of the SHA-256 of its question, or of the dialog before it."""
    told = [[message.role, message.content] for message in dialog.prompt]
    # A question alone is named as it stands, so that others can look it up.
    text = dialog.question if len(told) <= 1 else json.dumps(told)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def frame(rows: Iterable[Any], columns: dict[str, str]) -> Table:
    """A table of rows.

    Args:
      rows: tuples in the order of the columns.
      columns: :data:`RECORDS` or :data:`CELLS`.
    """
    return pd.DataFrame(list(rows), columns=list(columns)).astype(columns)


def write(path: Path, table: Table) -> None:
    """Writes a table as parquet, whole or not at all; equal tables give equal bytes."""
    with atomic.file(path) as temp:
        table.to_parquet(temp, index=False, compression="zstd", write_page_checksum=True)


def read(path: Path, columns: dict[str, str]) -> Table:
    """Reads what :func:`write` wrote.

    Args:
      path: of the file.
      columns: :data:`RECORDS` or :data:`CELLS`.

    Raises:
      UserError: it is missing, is no parquet file, has other columns, or rows that statistics cannot rely on.
    """
    try:
        # Without what pandas has noted beside the columns, where a changed bit is found by nobody.
        table = parquet.table(path, columns).to_pandas(ignore_metadata=True).astype(columns)
    except parquet.FaultError as error:
        raise UserError(f"{path}: cannot be read as parquet ({error}); restore it, or certify again.") from error
    if columns == CELLS and len(table) > MOST_STATES:
        raise UserError(
            f"{path}: has {len(table)} states, more than {MOST_STATES}; certify with fewer attacks or steps."
        )
    fault = _fault(table)
    if fault is not None:
        raise UserError(f"{path}: {fault}; restore it, or certify again.")
    return table


def _fault(table: Table) -> str | None:
    """What statistics rely on and a table does not keep: distinct rows, and numbers that can be what they are said to be."""
    names = [name for name in ("cell", "step", "split", "measure", "unit") if name in table]
    if table.duplicated(names).any():
        return "has two rows of one measurement"
    if not np.isfinite(table.select_dtypes("float64").to_numpy()).all():
        return "has a number that is not finite"
    return _fault_of_records(table) if "measure" in table else _fault_of_cells(table)


def _fault_of_records(table: Table) -> str | None:
    if len(table.drop_duplicates(["split", "measure"])) > MOST_MEASURES:
        return f"has more than {MOST_MEASURES} kinds of numbers"
    if not table["weight"].between(1, MOST_COUNT).all():
        return "has a measurement that counts less than one, or more than there can be tokens"
    sums, outcomes = table["measure"].isin(_SUMS), table["measure"].isin(_OUTCOMES)
    if not table.loc[~sums, "value"].between(0, 1).all():
        return "has a score outside [0, 1]"
    if not table.loc[outcomes, "value"].isin((0.0, 1.0)).all():
        return "has an outcome that is neither 0 nor 1"
    # Rounding leaves a text that is certain a little above certainty.
    per_token = table.loc[sums, "value"] / table.loc[sums, "weight"]
    if not per_token.between(-_ROUNDED, MOST_NATS + _ROUNDED).all():
        return f"has a negative log likelihood outside [0, {MOST_NATS:g}] nats per token"
    return None


def _fault_of_cells(table: Table) -> str | None:
    if not table["clipped"].between(0, 1).all():
        return "has a share outside [0, 1]"
    if not (table[["step", "samples"]] <= MOST_COUNT).all(axis=None):
        return f"has more than {MOST_COUNT} steps or dialogs"
    if not (table["flops"].abs() <= MOST_FLOPS).all() or table["flops"].between(0, 1, inclusive="neither").any():
        return f"has FLOPs that are no number from 1 to {MOST_FLOPS:g}"
    return None
